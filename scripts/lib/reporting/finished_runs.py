"""Reads finished runs for the report and checks that their files are what their records say."""

import json
import re
import zlib
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tqdm import tqdm

from lib.core import adoptions
from lib.core.adoptions import Adoption
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.files import read_object
from lib.core.layout import Layout, RunFiles, audit_file
from lib.core.metric import Metric, positive_class
from lib.core.run_state import Expected, read_evaluation, read_trained, run_state
from lib.data import image_list, prepared_record
from lib.data.tensor_file import TensorFile
from lib.reporting.measures import Answers, scores
from lib.reporting.pseudo_values import pseudo_values
from lib.reporting.uncertainty import Measured, binned, calibration

PREDICTIONS = {"label": np.int16, "prediction": np.int16, "confidence": np.float32}


@dataclass(frozen=True)
class TestSet:
    """The test set of a prepared dataset."""

    path: Path  # of the prepared dataset
    names: tuple[str, ...]  # the digests by which results may name its data
    file: TensorFile  # which has the images
    labels: np.ndarray  # int64 [images]
    classes: list[str]
    positive: int | None  # the number of the positive class; None with more than two
    files: list[str] | None = None  # the images' names, where they have some
    groups: np.ndarray | None = None  # int64 [images], the number of each image's group
    audit: dict | None = None  # what was found in the data, see `lib.data.audit.Audit`

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        shape = self.file.shapes["test_images"][1:]
        return shape if len(shape) == 3 else (1, *shape)  # as of version 0.2

    def image(self, index: int) -> np.ndarray:
        """Return an image, uint8 [channels, height, width]."""
        return self.file.rows("test_images", [index])[0].reshape(self.input_shape)


@dataclass(frozen=True)
class FinishedRun:
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
    test_set: TestSet
    probabilities_file: Path
    adoption: Adoption | None = None  # the latest, for other code than that of the training

    @property
    def correct(self) -> int:
        """The number of test images that are classified correctly."""
        return int((self.prediction == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """The share of the test images that are classified correctly."""
        return self.correct / len(self.labels)

    @property
    def choices(self) -> Answers:
        """Which classes it chooses for the test images, without the probabilities."""
        return self._answers(np.empty((len(self.labels), 0), np.float32))

    @property
    def answers(self) -> Answers:
        """All that it says of the test images. Its probabilities are read from their file."""
        return self._answers(read_probabilities(self.probabilities_file)["probabilities"])

    def _answers(self, probabilities: np.ndarray) -> Answers:
        about = (self.test_set.classes, self.test_set.positive)
        return Answers(self.test_set.labels, self.prediction, probabilities, *about)

    @property
    def scores(self) -> dict[str, float | None]:
        """The value of each metric; None where it cannot be computed."""
        return self._measures[0]

    @property
    def areas(self) -> dict[int, float]:
        """The area under the ROC curve of each class against the rest, where there is one."""
        return self._measures[1]

    @cached_property
    def _measures(self) -> tuple[dict[str, float | None], dict[int, float]]:
        answers = self.answers
        return scores(answers), answers.areas

    @property
    def device(self) -> str:
        """The GPU's model, or `cpu`."""
        return self.record["gpu"] or self.record["device"]


@dataclass(frozen=True)
class FinishedExperiment:
    """The runs of one experiment, which differ only in their seeds."""

    name: str
    runs: list[FinishedRun] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)  # why, by seed, a run is not in `runs`

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
        pairs = zip(self.runs, self.right, strict=True)
        return calibration(sum(binned(run.confidence, right) for run, right in pairs))

    @cached_property
    def class_calibration(self) -> tuple[list[tuple[float, float, int]], float]:
        """The same of the probabilities of the classes: of the positive one, or of all together."""
        return calibration(sum(class_bins(run.answers) for run in self.runs))


def class_bins(answers: Answers) -> np.ndarray:
    """Return the bins of what a network says of the positive class, or else of every class."""
    sure = answers.probabilities
    right = answers.labels[:, None] == np.arange(sure.shape[1])
    if answers.positive is not None:
        sure, right = sure[:, answers.positive], right[:, answers.positive]
    return binned(sure.ravel(), right.ravel())


def measured(metric: Metric, runs: list[FinishedRun]) -> Measured | None:
    """Return a metric of some runs on the test images; None where it cannot be computed."""
    values = [run.scores[metric.name] for run in runs]
    if None in values:
        return None
    total = 0.0
    for run in runs:
        answers = run.answers if metric.needs_probabilities else run.choices
        total = total + pseudo_values(metric, answers)
    return Measured(np.array(values), total / len(runs), runs[0].test_set.groups)


def read_test_set(path: Path, positive: str | None = None) -> TestSet:
    """Read the test set of a prepared dataset.

    Args:
        path: of the dataset.
        positive: the name of the positive class, see `positive_class`.

    Raises:
        UserError: the file is missing or corrupt, or there is no such class.
    """
    data = prepared_record.verified(path)
    file = TensorFile(path)
    labels = file.read("test_labels")
    classes = json.loads(file.metadata.get("classes", "[]"))
    files, groups = image_list.names(path, "test"), image_list.groups(path, "test")
    groups = np.unique(groups, return_inverse=True)[1] if groups else None
    audit = read_object(audit_file(path), {"classes": dict, "largest_class": list, "lines": list})
    number = positive_class(positive, classes)
    return TestSet(path, data.names, file, labels, classes, number, files, groups, audit)


def read(
    results: Path,
    names: list[tuple[str, int]],
    test_set: TestSet,
    incomplete: bool = False,
    out_of_date: Collection[tuple[str, int]] = (),
) -> list[FinishedExperiment]:
    """Read runs, given by experiment and seed.

    The experiments keep the order of `names`. The runs of each experiment are sorted by seed, so
    that the runs of two experiments with the same seeds are pairs whatever the order of `names`.

    Args:
        results: the folder that contains `runs`.
        names: the runs.
        test_set: what they were evaluated on.
        incomplete: whether a run that cannot be read is listed as missing instead of an error.
        out_of_date: runs whose results are not of the code, the data and the config as they are
            now, so that they are missing too.

    Raises:
        UserError: a file is missing or corrupt, or no run can be read.
    """
    layout = Layout(results)
    experiments = {name: FinishedExperiment(name) for name, _ in names}
    in_order = sorted(names, key=lambda run: run[1])
    for name, seed in tqdm(in_order, desc="reading", unit="run", disable=None):
        if (name, seed) in out_of_date:
            experiments[name].missing[seed] = why_missing(layout, name, seed, None)
            continue
        try:
            experiments[name].runs.append(read_run(results, name, seed, test_set))
        except UserError as error:
            if not incomplete:
                raise UserError(f"{error} (--incomplete reports the other runs)") from error
            experiments[name].missing[seed] = why_missing(layout, name, seed, error)
    if not any(each.runs for each in experiments.values()):
        each = next(iter(experiments.values()))
        seed, reason = next(iter(each.missing.items()))
        raise UserError(f"no run is complete. {each.name}, seed {seed}: {reason}")
    return list(experiments.values())


def why_missing(layout: Layout, experiment: str, seed: int, error: UserError | None) -> str:
    """Return why a run is not reported: how its training or its evaluation has failed, if it has.

    Args:
        layout: where the runs are.
        experiment: of the run.
        seed: of the run.
        error: what is wrong with its files; None if they are out of date.
    """
    files = layout.run(experiment, seed)
    stages, otherwise = ("train", "evaluate"), "out of date, and not made again yet"
    if error is not None:
        stages, otherwise = (), str(error)
        # Each stage writes its record last. Without it, nothing is damaged.
        never = {"train": (files.record, "trained"), "evaluate": (files.evaluation, "evaluated")}
        left = run_state(files, Expected()).left
        if left and not never[left][0].exists():
            stages, otherwise = (left,), f"not {never[left][1]}"
    failure = Failure.read(files.failure) if "train" in stages else None
    logs = (_last_error(layout.log(stage, experiment, seed)) for stage in stages)
    return failure.message if failure else next(filter(None, logs), otherwise)


def _last_error(log: Path) -> str:
    """Return the last error in a log, as `command_line.run` prints it."""
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        return errors[-1].removeprefix("error: ") if errors else ""
    return ""


def read_run(results: Path, experiment: str, seed: int, test_set: TestSet) -> FinishedRun:
    """Read one run.

    Raises:
        UserError: a file of the run is missing or corrupt, or is not of this run. The message names
            the file.
    """
    layout = Layout(results)
    files = layout.run(experiment, seed)
    record, evaluation = read_records(files, test_set)
    predictions = read_table(files.predictions, PREDICTIONS)
    run = FinishedRun(
        experiment,
        seed,
        layout.run_path(experiment, seed),
        record,
        evaluation,
        read_table(files.history, {"train_loss": float, "loss": float}),
        *(predictions[name].to_numpy() for name in PREDICTIONS),
        test_set,
        files.probabilities,
        next(reversed(adoptions.of(files, record)), None),
    )
    check_predictions(run, files.predictions, test_set)
    return run


def read_records(files: RunFiles, test_set: TestSet) -> tuple[dict, dict]:
    """Read the two records of a run, and check that they describe this run and its files.

    Raises:
        UserError: they do not. The message names the file.
    """
    # The report does not use the weights, and a large study has gigabytes of them.
    record = read_trained(files, verify="all but weights")
    evaluation = read_evaluation(files, record)
    if files.probabilities.name not in evaluation["files"]:
        raise UserError(
            f"{files.evaluation} is of an earlier version, which kept no probabilities: evaluate "
            "the run again, as the next start of snakemake does"
        )
    for path, content in ((files.record, record), (files.evaluation, evaluation)):
        if content["data_sha256"] not in test_set.names:
            raise UserError(f"{path} is of a different dataset than {test_set.path}")
    return record, evaluation


def check_predictions(run: FinishedRun, path: Path, test_set: TestSet) -> None:
    """Check that the predictions are possible answers to the test set.

    Their digest shows that they are as `evaluate.py` wrote them, but not that the model is sound.

    Raises:
        UserError: they are not. The message names the file.
    """
    classes = len(run.record["classes"])
    if not np.array_equal(run.labels, test_set.labels):
        raise UserError(f"{path} contains labels of a different test set than {test_set.path}")
    if not np.all((run.prediction >= 0) & (run.prediction < classes)):
        raise UserError(
            f"{path} contains predictions that are none of the {classes} classes: the model has "
            "more outputs than there are classes"
        )
    if not np.all((run.confidence >= 0) & (run.confidence <= 1.0001)):
        raise UserError(f"{path} contains confidences that are not probabilities")


def read_probabilities(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file as `lib.training.predictions.write_probabilities` writes it.

    Raises:
        UserError: the file is missing or corrupt. The message names it.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error


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
