"""How far each run of a study is, by the run's own files."""

import csv
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lib.core import records
from lib.core.errors import UserError
from lib.core.layout import RunFiles
from lib.core.progress_file import Epoch, RunProgress
from lib.study.outdated import RunCheck

# A training renews its lease every few seconds; a file server may show that a minute late.
SILENT_AFTER = 120.0  # seconds


@dataclass(frozen=True)
class RunState:
    """How far one run is."""

    # waiting, training, trained, done, failed (it fails whenever it is tried), or out of date (it
    # is of other settings, data or code than those of now)
    stage: str
    epochs: int  # in all
    done: list[Epoch]  # the epochs that were trained and measured
    training: RunProgress | None  # where it is in the epoch at hand
    results: str | None  # the seal of its results' record, unless it is being trained

    @property
    def accuracy(self) -> float | None:
        """Held-out accuracy after the last epoch that is done, None before the first."""
        return self.done[-1].accuracy if self.done else None


def run_state(check: RunCheck, experiment: str, seed: int) -> RunState:
    """Return how far a run is.

    The history is in `history.csv` of a trained run, else in the file that its training writes.
    """
    files = check.study.layout.run(experiment, seed)
    epochs = check.study.experiments[experiment].training["epochs"]
    training = RunProgress.read(files.progress)
    if training and _is_alive(files):
        stage, done = "training", training.done
    elif files.is_complete("train"):
        training = None
        stage = _stage_of_trained(check, experiment, seed)
        done = [] if stage in ("failed", "out of date") else _history(files)
    else:
        stage = "failed" if files.failure.is_file() else "waiting"
        done = training.done if training else []
    results = None if stage == "training" else _seal(files.record)
    return RunState(stage, epochs, done, training, results)


def _stage_of_trained(check: RunCheck, experiment: str, seed: int) -> str:
    """Return the stage of a run whose training has written all its files, now or long ago."""
    files = check.study.layout.run(experiment, seed)
    stage, _ = check.problem(experiment, seed) or (None, "")
    if stage == "train":
        return "failed" if files.failure.is_file() else "out of date"
    last = check.study.stages(experiment)[-1]
    return "done" if not stage and files.is_complete(last) else "trained"


def _seal(record: Path) -> str | None:
    with suppress(UserError):
        return records.read(record)[records.SEAL]
    return None


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
