"""How far each run of a study is, by the run's own files."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

from lib.core.layout import RunFiles
from lib.core.progress_file import Epoch, RunProgress
from lib.study.study import Study

# A training renews its lease every few seconds; a file server may show that a minute late.
SILENT_AFTER = 120.0  # seconds


@dataclass(frozen=True)
class RunState:
    """How far one run is."""

    stage: str  # waiting, training, trained, done, or failed: it fails whenever it is tried
    epochs: int  # in all
    done: list[Epoch]  # the epochs that were trained and measured
    training: RunProgress | None  # where it is in the epoch at hand
    trained_at: float | None  # when its results were written, if they are there

    @property
    def accuracy(self) -> float | None:
        """Held-out accuracy after the last epoch that is done, None before the first."""
        return self.done[-1].accuracy if self.done else None


def run_state(study: Study, experiment: str, seed: int) -> RunState:
    """Return how far a run is.

    The history is in `history.csv` of a trained run, else in the file that its training writes.
    """
    files = study.layout.run(experiment, seed)
    epochs = study.experiments[experiment].training["epochs"]
    training = None
    if files.record.is_file():
        done = _history(files)
        stage = "done" if is_evaluated(files) else "trained"
    else:
        training = RunProgress.read(files.progress)
        done = training.done if training else []
        stage = "training" if training and _is_alive(files) else "waiting"
        if stage == "waiting" and files.failure.is_file():
            stage = "failed"
    return RunState(stage, epochs, done, training, _time_of(files.record))


def is_evaluated(files: RunFiles) -> bool:
    """Return whether a run is done: it was evaluated since it was last trained."""
    trained, evaluated = _time_of(files.record), _time_of(files.evaluation)
    return None not in (trained, evaluated) and evaluated >= trained


def _is_alive(files: RunFiles) -> bool:
    """Return whether a training has renewed its lease lately."""
    renewed = _time_of(files.lease)
    return renewed is not None and time.time() - renewed < SILENT_AFTER


def _time_of(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _history(files: RunFiles) -> list[Epoch]:
    try:
        with files.history.open(newline="", encoding="utf-8") as file:
            return [
                Epoch(int(row["epoch"]), row["split"], float(row["loss"]), float(row["accuracy"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []
