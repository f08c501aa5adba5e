"""Reads finished runs for the report and checks that their files are what their records say."""

import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tqdm import tqdm

from lib.core import adoptions, seeds
from lib.core.adoptions import Adoption
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.files import read_object
from lib.core.layout import Layout, RunFiles, audit_file, run_name
from lib.core.metric import Metric, positive_class
from lib.core.run_state import Expected, read_evaluation, read_trained, run_state
from lib.core.seeds import Run, Seed
from lib.data import image_list, prepared_record
from lib.data.tensor_file import TensorFile
from lib.reporting.pseudo_values import pseudo_values
from lib.reporting.uncertainty import Folds, Measured, binned, calibration
from lib.training.measures import Answers, scores

PREDICTIONS = {"label": np.int16, "prediction": np.int16, "confidence": np.float32}


@dataclass(frozen=True)
class TestSet:
    """The test set of a prepared dataset; where it has folds, all its images are."""

    path: Path  # of the prepared dataset
    names: tuple[str, ...]  # the digests by which results may name its data
    file: TensorFile  # which has the images
    labels: np.ndarray  # int64 [images]
    classes: list[str]
    positive: int | None  # the number of the positive class; None with more than two
    files: list[str] | None = None  # the images' names, where they have some
    groups: np.ndarray | None = None  # int64 [images], the number of each image's group
    audit: dict | None = None  # what was found in the data, see `lib.data.audit.Audit`
    folds: np.ndarray | None = None  # int64 [images], the number of each image's fold, from 1

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        shape = self.file.shapes[self._images][1:]
        return shape if len(shape) == 3 else (1, *shape)  # as of version 0.2

    @property
    def _images(self) -> str:
        return "test_images" if self.folds is None else "images"

    def image(self, index: int) -> np.ndarray:
        """Return an image, uint8 [channels, height, width]."""
        return self.file.rows(self._images, [index])[0].reshape(self.input_shape)

    def place(self, index: int) -> str:
        """Return the number of an image in its test set, and the fold, where there are folds."""
        if self.folds is None:
            return str(index)
        fold = int(self.folds[index])
        return f"fold {fold}, {np.searchsorted(self.images_of(fold), index)}"

    def images_of(self, fold: int | None) -> np.ndarray:
        """Return the indices of the images of a fold; without folds, of all."""
        return np.flatnonzero(self.folds == fold) if fold else np.arange(len(self.labels))

    @property
    def number_of_folds(self) -> int | None:
        """How many folds there are; None where there are none."""
        return None if self.folds is None else int(self.folds.max())


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
    fold: int | None = None

    @cached_property
    def images(self) -> np.ndarray:
        """The indices in the test set of the images that it was tested on, int64 [images]."""
        return self.test_set.images_of(self.fold)

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
        labels = self.test_set.labels[self.images]
        return Answers(labels, self.prediction, probabilities, *about)

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
    """The runs of one experiment, which differ only in seeds and folds.

    Where there are folds, each seed has a run for each, and what a seed says of the images is what
    those runs say of theirs.
    """

    name: str
    runs: list[FinishedRun] = field(default_factory=list)
    missing: dict[Seed, str] = field(default_factory=dict)  # why, by seed, a run is not in `runs`
    searched: bool = False  # whether a search has chosen the recipe of each fold

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs, each once."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    @property
    def settings(self) -> dict:
        """All settings except seed and fold; where a search has chosen by fold, all that it has."""
        each = [run.record["settings"] for run in self.runs]
        found = common(each) if self.searched else each[0]
        return {key: value for key, value in found.items() if key not in ("seed", "fold")}

    @cached_property
    def predictions(self) -> np.ndarray:
        """What each seed predicts for each test image, int16 [seeds, images]."""
        return self._by_seed("prediction")

    @cached_property
    def confidences(self) -> np.ndarray:
        """How sure each seed is of that, float32 [seeds, images]."""
        return self._by_seed("confidence")

    def _by_seed(self, name: str) -> np.ndarray:
        test_set, rows = self.runs[0].test_set, {seed: n for n, seed in enumerate(self.seeds)}
        shape = len(rows), len(test_set.labels)
        found = np.empty(shape, getattr(self.runs[0], name).dtype)
        for run in self.runs:
            found[rows[run.seed], run.images] = getattr(run, name)
        return found

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each seed classifies each test image correctly, bool [seeds, images]."""
        return self.predictions == self.runs[0].test_set.labels

    @cached_property
    def always_right(self) -> np.ndarray:
        """Whether all seeds classify each test image correctly, bool [images]."""
        return self.right.all(axis=0)

    @cached_property
    def ever_right(self) -> np.ndarray:
        """Whether any seed classifies each test image correctly, bool [images]."""
        return self.right.any(axis=0)

    @cached_property
    def calibration(self) -> tuple[list[tuple[float, float, int]], float]:
        """The reliability curve and the expected calibration error of all runs together."""
        return calibration(
            sum(binned(run.confidence, run.prediction == run.labels) for run in self.runs)
        )

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


def common(settings: list[dict]) -> dict:
    """Return what some settings have in common; where they differ, a text with each value."""
    found = {}
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [each.get(key) for each in settings]
        if all(isinstance(value, dict) for value in values):
            found[key] = common(values)
        else:
            texts = dict.fromkeys(map(str, values))
            found[key] = values[0] if len(texts) == 1 else " / ".join(texts)
    return found


def measured(metric: Metric, runs: list[FinishedRun]) -> Measured | None:
    """Return a metric of some runs on the test images; None where it cannot be computed.

    That is one run, or all runs of an experiment.
    """
    values, groups = [run.scores[metric.name] for run in runs], runs[0].test_set.groups
    if None in values:
        return None
    if len(runs) > 1 and runs[0].fold:
        return in_folds(runs, np.array(values), (own_values(metric, run) for run in runs))
    images = sum(own_values(metric, run) for run in runs) / len(runs)
    return Measured(np.array(values), images, None if groups is None else groups[runs[0].images])


def own_values(metric: Metric, run: FinishedRun) -> np.ndarray:
    """Return the pseudo-values of the images that a run was tested on, float64 [images]."""
    return pseudo_values(metric, run.answers if metric.needs_probabilities else run.choices)


def in_folds(runs: list[FinishedRun], values: np.ndarray, pseudo: Iterable[np.ndarray]) -> Measured:
    """Return a metric of the runs of an experiment, which has a run for each seed and fold.

    It is the mean over the folds. Images count so that the mean of all of them is that, too.

    Args:
        runs: the runs.
        values: the metric of each, float64 [runs].
        pseudo: the pseudo-values of the images of each.
    """
    test_set, folds = runs[0].test_set, [run.fold for run in runs]
    seed_count, numbers = len({run.seed for run in runs}), range(1, test_set.number_of_folds + 1)
    images = np.full(len(test_set.labels), values.mean())
    for run, own in zip(runs, pseudo, strict=True):
        weight = len(images) / (len(numbers) * len(own)) / seed_count
        images[run.images] += weight * (own - own.mean())
    by_fold = np.stack([values[np.array(folds) == number] for number in numbers])
    ratio = float(np.mean([len(run.images) / run.record["train_size"] for run in runs]))
    folded = Folds(by_fold.mean(axis=1), ratio)
    return Measured(by_fold.mean(axis=0), images, test_set.groups, folded)


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
    folded = "fold" in file.shapes
    labels, folds = file.read("labels" if folded else "test_labels"), None
    classes = json.loads(file.metadata.get("classes", "[]"))
    split = None if folded else "test"
    files, groups = image_list.names(path, split), image_list.groups(path, split)
    folds = file.read("fold") if folded else None
    groups = np.unique(groups, return_inverse=True)[1] if groups else None
    audit = read_object(audit_file(path), {"classes": dict, "largest_class": list, "lines": list})
    number = positive_class(positive, classes)
    about = (number, files, groups, audit, folds)
    return TestSet(path, data.names, file, labels, classes, *about)


def read(
    results: Path,
    names: list[Run],
    test_set: TestSet,
    incomplete: bool = False,
    out_of_date: Collection[Run] = (),
    shown_as: Mapping[tuple[str, int], str] | None = None,
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
        shown_as: the experiments that runs are shown as, by the name of their own, and the fold,
            where it is another.

    Raises:
        UserError: a file is missing or corrupt, or no run can be read.
    """
    layout, shown_as = Layout(results), shown_as or {}
    check_folds(names, test_set)
    shown = {run: shown_as.get((run[0], seeds.parts(run[1])[1]), run[0]) for run in names}
    searched = set(shown_as.values())
    experiments = {
        name: FinishedExperiment(name, searched=name in searched) for name in shown.values()
    }
    in_order = sorted(names, key=lambda run: seeds.order(run[1]))
    for name, seed in tqdm(in_order, desc="reading", unit="run", disable=None):
        experiment = experiments[shown[name, seed]]
        if (name, seed) in out_of_date:
            experiment.missing[seed] = why_missing(layout, name, seed, None)
            continue
        try:
            run = read_run(results, name, seed, test_set)
            experiment.runs.append(replace(run, experiment=experiment.name))
        except UserError as error:
            if not incomplete:
                raise UserError(f"{error} (--incomplete reports the other runs)") from error
            experiment.missing[seed] = why_missing(layout, name, seed, error)
    for (name, seed), shown_name in shown.items():
        if name != shown_name and seed in experiments[shown_name].missing:
            why = experiments[shown_name].missing[seed]
            experiments[shown_name].missing[seed] = f"{run_name(name, seed)}: {why}"
    if test_set.folds is not None:
        for each in experiments.values():
            leave_out_parts(each, test_set.number_of_folds, incomplete)
    if not any(each.runs for each in experiments.values()):
        what = "no run is complete" if test_set.folds is None else "no seed has all of its folds"
        reasons = [(each, *item) for each in experiments.values() for item in each.missing.items()]
        each, seed, reason = min(reasons, key=lambda reason: reason[2] == OTHER_FOLDS)
        raise UserError(f"{what}. {each.name}, seed {seed}: {reason}")
    return list(experiments.values())


OTHER_FOLDS = "it is there, but other folds of its seed are not"


def check_folds(names: list[Run], test_set: TestSet) -> None:
    """Check that the runs are of the folds of a test set, or of none where it has none.

    Raises:
        UserError: one is not.
    """
    folds = test_set.number_of_folds
    for name, seed in names:
        fold = seeds.parts(seed)[1]
        if (fold is None) != (folds is None) or (fold and not 1 <= fold <= folds):
            has = f"{folds} folds" if folds else "no folds"
            raise UserError(f"run {run_name(name, seed)}: {test_set.path} has {has}")


def leave_out_parts(experiment: FinishedExperiment, folds: int, incomplete: bool) -> None:
    """Note the runs of seeds of which not all folds are there as missing: they test some images.

    Raises:
        UserError: there are some, and the report is to be complete.
    """
    count = Counter(run.seed for run in experiment.runs)
    for run in [run for run in experiment.runs if count[run.seed] < folds]:
        if not incomplete:
            raise UserError(
                f"{experiment.name}, seed {run.seed}: only {count[run.seed]} of its {folds} folds "
                "are among the runs (--incomplete reports the other seeds)"
            )
        experiment.runs.remove(run)
        experiment.missing[seeds.SeedAndFold(run.seed, run.fold)] = OTHER_FOLDS
    in_order = sorted(experiment.missing.items())
    experiment.missing.clear()
    experiment.missing.update(in_order)


def why_missing(layout: Layout, experiment: str, seed: Seed, error: UserError | None) -> str:
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


def read_run(results: Path, experiment: str, seed: Seed, test_set: TestSet) -> FinishedRun:
    """Read one run.

    Raises:
        UserError: a file of the run is missing or corrupt, or is not of this run. The message names
            the file.
    """
    layout = Layout(results)
    files = layout.run(experiment, seed)
    record, evaluation = read_records(files, test_set)
    predictions = read_table(files.predictions, PREDICTIONS)
    number, fold = seeds.parts(seed)
    run = FinishedRun(
        experiment,
        number,
        layout.run_path(experiment, seed),
        record,
        evaluation,
        read_table(files.history, {"train_loss": float, "loss": float}),
        *(predictions[name].to_numpy() for name in PREDICTIONS),
        test_set,
        files.probabilities,
        next(reversed(adoptions.of(files, record)), None),
        fold,
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
    if not np.array_equal(run.labels, test_set.labels[run.images]):
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


def parse_runs(words: list[str]) -> list[Run]:
    """Read `["mlp=1,2"]` as `[("mlp", 1), ("mlp", 2)]`; a seed may be one of a fold, `1-fold2`.

    Raises:
        UserError: a word does not have that form, or a run is named twice.
    """
    runs = []
    for word in words:
        match = re.fullmatch(f"([^=/]+)=({seeds.PATTERN}(?:,{seeds.PATTERN})*)", word)
        if not match:
            raise UserError(f"--runs: {word!r} does not have the form EXPERIMENT=SEED,SEED")
        runs += [(match[1], seeds.parse(seed)) for seed in match[2].split(",")]
    if len(set(runs)) < len(runs):
        raise UserError(f"--runs names a run twice: {' '.join(words)}")
    return runs


def discover_runs(results: Path) -> list[Run]:
    """Return experiment and seed of each run folder in `results`, sorted.

    Raises:
        UserError: there is none.
    """
    files = Layout(results)
    runs = files.runs()
    if not runs:
        raise UserError(f"there are no runs: no folder matches {files.run('*', '*').folder}")
    return runs
