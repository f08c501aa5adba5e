"""Reads finished runs for the report and checks that their files are complete and consistent."""

import csv
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from lib.core import records
from lib.core.errors import UserError
from lib.core.layout import Layout, RunFiles
from lib.reporting.uncertainty import calibration

PREDICTIONS = {"label": np.int16, "prediction": np.int16, "confidence": np.float32}


@dataclass(frozen=True)
class Run:
    """One trained and evaluated network."""

    experiment: str
    seed: int
    path: str  # the run's folder, relative to results_dir
    record: dict  # run.json
    evaluation: dict  # evaluation.json
    history: pd.DataFrame  # one row per epoch
    labels: np.ndarray  # int16 [images]
    prediction: np.ndarray  # int16 [images]
    confidence: np.ndarray  # float32 [images]

    @property
    def correct(self) -> int:
        """The number of test images that are classified correctly."""
        return int((self.prediction == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """The share of the test images that are classified correctly."""
        return self.correct / len(self.labels)

    @property
    def device(self) -> str:
        """The GPU's model, or `cpu`."""
        return self.record["gpu"] or self.record["device"]


@dataclass(frozen=True)
class Experiment:
    """The runs of one experiment, which differ only in their seeds."""

    name: str
    runs: list[Run]

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [run.seed for run in self.runs]

    @property
    def settings(self) -> dict:
        """All settings except the seed."""
        return {k: v for k, v in self.runs[0].record["settings"].items() if k != "seed"}

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each run classifies each test image correctly, bool [runs, images]."""
        return np.stack([run.prediction == run.labels for run in self.runs])

    @cached_property
    def always_right(self) -> np.ndarray:
        """Whether all runs classify each test image correctly, bool [images]."""
        return self.right.all(axis=0)

    @cached_property
    def ever_right(self) -> np.ndarray:
        """Whether any run classifies each test image correctly, bool [images]."""
        return self.right.any(axis=0)

    @cached_property
    def calibration(self) -> tuple[list[tuple[float, float, int]], float]:
        """The reliability curve and the expected calibration error of all runs together."""
        confidence = np.concatenate([run.confidence for run in self.runs])
        return calibration(confidence, self.right.ravel())


def read(results: Path, names: list[tuple[str, int]]) -> list[Experiment]:
    """Read runs, given by experiment and seed.

    The experiments keep the order of `names`. The runs of each experiment are sorted by seed, so
    that the runs of two experiments with the same seeds are pairs whatever the order of `names`.

    Raises:
        UserError: a file is missing or corrupt, or two runs were evaluated on different test sets.
    """
    experiments: dict[str, list[Run]] = {}
    first = None
    for name, seed in tqdm(names, desc="reading", unit="run", disable=None):
        run = read_run(results, name, seed)
        first = first or run
        if not np.array_equal(first.labels, run.labels):
            raise UserError(
                f"{results / run.path} was evaluated on a different test set than "
                f"{results / first.path}: the labels in their predictions.csv.gz differ"
            )
        experiments.setdefault(name, []).append(run)
    return [
        Experiment(name, sorted(runs, key=lambda run: run.seed))
        for name, runs in experiments.items()
    ]


def read_run(results: Path, experiment: str, seed: int) -> Run:
    """Read one run.

    Raises:
        UserError: a file of the run is missing or corrupt. The message names the file.
    """
    layout = Layout(results)
    files = layout.run(experiment, seed)
    predictions = read_table(files.predictions, PREDICTIONS)
    run = Run(
        experiment,
        seed,
        layout.run_path(experiment, seed),
        records.read(files.record),
        records.read(files.evaluation),
        read_table(files.history, {"train_loss": float, "loss": float}),
        *(predictions[name].to_numpy() for name in PREDICTIONS),
    )
    check(run, files)
    return run


def check(run: Run, files: RunFiles) -> None:
    """Check that the files of a run agree with each other.

    Raises:
        UserError: they do not. The message names the file.
    """
    if not np.all((run.confidence >= 0) & (run.confidence <= 1.0001)):
        raise UserError(f"{files.predictions} contains confidences that are not probabilities")
    epochs = run.record["settings"]["epochs"]
    if len(run.history) != epochs:
        raise UserError(
            f"{files.history} is truncated or corrupt: it has {len(run.history)} of {epochs} epochs"
        )
    counted = overall_counts(files.accuracy)
    if counted != (run.correct, len(run.labels)):
        raise UserError(
            f"{files.predictions} has {run.correct} correct predictions of {len(run.labels)}, but "
            f"{files.accuracy} has {counted[0]} of {counted[1]}: one of the two files is corrupt"
        )


def read_table(path: Path, types: dict) -> pd.DataFrame:
    """Read a CSV file that must have certain columns of certain types.

    Raises:
        UserError: the file is missing or corrupt. The message names it.
    """
    try:
        table = pd.read_csv(path, dtype=types)
        table[list(types)]  # a missing column raises a KeyError
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, KeyError, ValueError, zlib.error) as error:
        raise UserError(f"{path} is truncated or corrupt: {error}") from error
    return table


def overall_counts(accuracy_csv: Path) -> tuple[int, int]:
    """Return the number of correct predictions and of test images, from the row `all`.

    Raises:
        UserError: the table is missing or corrupt.
    """
    try:
        with accuracy_csv.open(newline="", encoding="utf-8") as file:
            rows = {row["class"]: row for row in csv.DictReader(file)}
        return int(rows["all"]["correct"]), int(rows["all"]["total"])
    except OSError as error:
        raise UserError(f"cannot read {accuracy_csv}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{accuracy_csv} is truncated or corrupt: it has no valid row 'all'"
        ) from error


def parse_runs(words: list[str]) -> list[tuple[str, int]]:
    """Read `["mlp=1,2"]` as `[("mlp", 1), ("mlp", 2)]`.

    Raises:
        UserError: a word does not have that form, or a run is named twice.
    """
    runs = []
    for word in words:
        match = re.fullmatch(r"([^=/]+)=(\d+(?:,\d+)*)", word)
        if not match:
            raise UserError(f"--runs: {word!r} does not have the form EXPERIMENT=SEED,SEED")
        runs += [(match[1], int(seed)) for seed in match[2].split(",")]
    if len(set(runs)) < len(runs):
        raise UserError(f"--runs names a run twice: {' '.join(words)}")
    return runs


def discover_runs(results: Path) -> list[tuple[str, int]]:
    """Return experiment and seed of each run folder in `results`, sorted.

    Raises:
        UserError: there is none.
    """
    files = Layout(results)
    runs = files.runs()
    if not runs:
        raise UserError(f"there are no runs: no folder matches {files.run('*', '*').folder}")
    return runs
