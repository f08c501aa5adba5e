"""Finished runs as the report reads them: record, history and predictions, checked."""

import csv
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cli import Failure
from files import read_json
from uncertainty import calibration

PREDICTIONS = {"label": np.int16, "prediction": np.int16, "confidence": np.float32}


@dataclass(frozen=True)
class Run:
    """One trained and evaluated network."""

    experiment: str
    seed: int
    path: str  # the run's folder below results_dir
    record: dict  # run.json
    evaluation: dict  # evaluation.json
    history: pd.DataFrame  # a row an epoch
    labels: np.ndarray  # int16 [images]
    prediction: np.ndarray  # int16 [images]
    confidence: np.ndarray  # float32 [images]

    @property
    def correct(self) -> int:
        """Test images that are classified right."""
        return int((self.prediction == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Share of the test images that are classified right."""
        return self.correct / len(self.labels)

    @property
    def device(self) -> str:
        """The GPU's model, or `cpu`."""
        return self.record["gpu"] or self.record["device"]


@dataclass(frozen=True)
class Experiment:
    """The runs of one experiment, which differ in their seeds."""

    name: str
    runs: list[Run]

    @property
    def seeds(self) -> list[int]:
        """Seed of each run."""
        return [run.seed for run in self.runs]

    @property
    def settings(self) -> dict:
        """What was set, but for the seed."""
        return {k: v for k, v in self.runs[0].record["settings"].items() if k != "seed"}

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each run classifies each test image right, bool [runs, images]."""
        return np.stack([run.prediction == run.labels for run in self.runs])

    @cached_property
    def always_right(self) -> np.ndarray:
        """Whether all runs classify each test image right, bool [images]."""
        return self.right.all(axis=0)

    @cached_property
    def ever_right(self) -> np.ndarray:
        """Whether any run does, bool [images]."""
        return self.right.any(axis=0)

    @cached_property
    def calibration(self) -> tuple[list[tuple[float, float, int]], float]:
        """Reliability curve and expected calibration error, all runs together."""
        confidence = np.concatenate([run.confidence for run in self.runs])
        return calibration(confidence, self.right.ravel())


def read(results: Path, names: list[tuple[str, int]]) -> list[Experiment]:
    """Read runs by experiment and seed: the experiments in their order, their runs by seed.

    So the runs of two experiments with the same seeds are pairs, in whatever order they are named.

    Raises:
        Failure: a file is missing or torn, or two runs were measured on different test sets.
    """
    experiments: dict[str, list[Run]] = {}
    first = None
    for name, seed in tqdm(names, desc="reading", unit="run", disable=None):
        run = read_run(results, name, seed)
        first = first or run
        if not np.array_equal(first.labels, run.labels):
            raise Failure(
                f"{results / run.path} was measured on another test set than "
                f"{results / first.path}: their predictions.csv.gz have different labels"
            )
        experiments.setdefault(name, []).append(run)
    return [
        Experiment(name, sorted(runs, key=lambda run: run.seed))
        for name, runs in experiments.items()
    ]


def read_run(results: Path, experiment: str, seed: int) -> Run:
    """Read one run.

    Raises:
        Failure: a file of the run is missing or torn; the message names it.
    """
    path = f"runs/{experiment}/seed{seed}"
    folder = results / path
    predictions = read_table(folder / "predictions.csv.gz", PREDICTIONS)
    columns = [predictions[name].to_numpy() for name in PREDICTIONS]
    record, evaluation = read_json(folder / "run.json"), read_json(folder / "evaluation.json")
    history = read_table(folder / "history.csv", {"train_loss": float, "loss": float})
    run = Run(experiment, seed, path, record, evaluation, history, *columns)
    if not np.all((run.confidence >= 0) & (run.confidence <= 1.0001)):
        raise Failure(f"{folder / 'predictions.csv.gz'} has confidences that are no probabilities")
    if len(history) != record["settings"]["epochs"]:
        raise Failure(f"{folder / 'history.csv'} is torn: {len(history)} epochs")
    counted = overall_counts(folder / "accuracy.csv")
    if counted != (run.correct, len(run.labels)):
        raise Failure(
            f"{folder / 'predictions.csv.gz'} has {run.correct} of {len(run.labels)} right, "
            f"but accuracy.csv beside it says {counted[0]} of {counted[1]}: one of them is torn"
        )
    return run


def read_table(path: Path, types: dict) -> pd.DataFrame:
    """Read a CSV file that must have some columns of some types.

    Raises:
        Failure: it is missing or torn; the message names it.
    """
    try:
        table = pd.read_csv(path, dtype=types)
        table[list(types)]  # a missing column is a KeyError
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, KeyError, ValueError, zlib.error) as error:
        raise Failure(f"{path} is torn: {error}") from error
    return table


def overall_counts(accuracy_csv: Path) -> tuple[int, int]:
    """Return how many test images were right and how many there are: the row `all`.

    Raises:
        Failure: the table is missing or torn.
    """
    try:
        with accuracy_csv.open(newline="", encoding="utf-8") as file:
            rows = {row["class"]: row for row in csv.DictReader(file)}
        return int(rows["all"]["correct"]), int(rows["all"]["total"])
    except OSError as error:
        raise Failure(f"cannot read {accuracy_csv}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(f"{accuracy_csv} is not a whole accuracy table: no row 'all'") from error


def named(words: list[str]) -> list[tuple[str, int]]:
    """Read `["mlp=1,2"]` as `[("mlp", 1), ("mlp", 2)]`.

    Raises:
        Failure: a word is not of that form, or names a run again.
    """
    runs = []
    for word in words:
        match = re.fullmatch(r"([^=/]+)=(\d+(?:,\d+)*)", word)
        if not match:
            raise Failure(f"--runs: {word!r} is not EXPERIMENT=SEED,SEED")
        runs += [(match[1], int(seed)) for seed in match[2].split(",")]
    if len(set(runs)) < len(runs):
        raise Failure(f"--runs names a run twice: {' '.join(words)}")
    return runs


def found(results: Path) -> list[tuple[str, int]]:
    """Return experiment and seed of each folder below `results/runs`, sorted.

    Raises:
        Failure: there is none.
    """
    folders = results.glob("runs/*/seed*/")
    runs = [
        (folder.parent.name, int(folder.name.removeprefix("seed")))
        for folder in folders
        if folder.name.removeprefix("seed").isdecimal()
    ]
    if not runs:
        raise Failure(f"there is no run below {results / 'runs'}")
    return sorted(runs)
