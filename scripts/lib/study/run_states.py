"""How far each run of a study is, by the run's own files."""

import csv
from dataclasses import dataclass

from lib.core.layout import RunFiles
from lib.core.progress_file import Epoch, RunProgress
from lib.study.study import Study


@dataclass(frozen=True)
class RunState:
    """How far one run is."""

    experiment: str
    seed: int
    stage: str  # waiting, training, trained or done
    epochs: int  # in all
    done: list[Epoch]  # the epochs that were trained and measured
    training: RunProgress | None  # where it is in the epoch at hand

    @property
    def name(self) -> str:
        """The run as a person types it."""
        return f"{self.experiment}/seed{self.seed}"

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
    done, training = _history(files), None
    if files.evaluation.is_file():
        stage = "done"
    elif files.record.is_file():
        stage = "trained"
    else:
        training = RunProgress.read(files.progress)
        done = training.done if training else []
        stage = "training" if training and files.lease.exists() else "waiting"
    return RunState(experiment, seed, stage, epochs, done, training)


def _history(files: RunFiles) -> list[Epoch]:
    try:
        with files.history.open(newline="", encoding="utf-8") as file:
            return [
                Epoch(int(row["epoch"]), row["split"], float(row["loss"]), float(row["accuracy"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
