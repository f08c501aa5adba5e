"""Whether a run is done, and if not, what is left of it and why: the one place that says so.

The run's own records decide, not the times of its files, nor what Snakemake or Slurm says. They
name the settings, the data and the code that the results are of; whoever asks says what they should
be of.
"""

import csv
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from lib.core import adoptions, code_digests, provenance, records
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.layout import STAGES, RunFiles
from lib.core.progress_file import Epoch, RunProgress
from lib.core.settings import Settings, difference

# A training renews its lease every few seconds; a file server may show that a minute late.
SILENT_AFTER = 120.0  # seconds
# By the stage that is left, and whether it has to be run again.
_STATUS = {
    ("train", False): "waiting", ("train", True): "out of date", (None, False): "done",
    ("evaluate", False): "trained", ("evaluate", True): "trained",
}  # fmt: skip

OTHER_CODE = "other code"  # how `RunState.why` begins where that is it

Verify = Literal["all", "all but weights", "newer"]


@dataclass(frozen=True)
class Difference:
    """In what a run is not of what it should be of: settings, files of the code, packages."""

    settings: list[str]
    data: bool
    code: list[str]
    versions: list[str]

    @property
    def why(self) -> str | None:
        """Return the first of it in words, as `RunState.why`; None where there is none."""
        if self.settings:
            return f"other settings ({', '.join(self.settings)})"
        if self.data:
            return "other data"
        if self.code:
            shown = ", ".join([*self.code[:3], *(["..."] if len(self.code) > 3 else [])])
            return f"{OTHER_CODE} ({shown})"
        return f"other versions ({', '.join(self.versions)})" if self.versions else None


@dataclass(frozen=True)
class Expected:
    """What a run should be of.

    Attributes:
        settings: those of its training; None if any will do.
        data: the digests by which its data may be named; None if any will do.
        is_same: returns whether a file of the code means what a digest says.
        versions: whether the packages that compute have to be those installed.
    """

    settings: Settings | None = None
    data: Collection[str] | None = None
    is_same: Callable[[str, str], bool] = code_digests.is_same
    versions: bool = False

    def difference(self, record: dict, files: RunFiles) -> Difference:
        """Compare the record of a training of a run, or of one that failed."""
        return Difference(
            difference(record["settings"], self.settings.as_dict()) if self.settings else [],
            self.data is not None and record["data_sha256"] not in self.data,
            self.changed_code(record, files),
            self.changed_versions(record),
        )

    def changed_code(self, record: dict, files: RunFiles) -> list[str]:
        """Return the files of the code that mean something else now.

        There are none if the record is valid for the current code; else those of the latest code
        for which it is. Earlier versions have also recorded files that compute nothing.

        Raises:
            UserError: the study's list of adoptions is damaged.
        """
        changed: list[str] = []
        for code in reversed(adoptions.codes_of(files, record)):
            computing = {name: each for name, each in code.items() if code_digests.computes(name)}
            found = code_digests.changed(computing, self.is_same)
            if not found:
                return []
            changed = changed or found
        return changed

    def changed_versions(self, record: dict) -> list[str]:
        """Return the packages of a record that are installed in other versions, where they count.

        What is known of a failure names no versions.
        """
        return provenance.other_versions(record.get("versions", {})) if self.versions else []


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        files: of the run.
        status: waiting, training, trained, done, failed (it fails whenever it is tried), or out of
            date (what is there is not what it should be).
        done: the stages of the workflow that are done, whether or not the run needs them.
        why: why the first stage that is not done must be run again; empty if it never was.
        left: the first stage that the run needs and that is not done; None if nothing is left.
        failure: why the training fails whenever it is tried as it is now; else empty.
        training: how far a training has come that is not complete.
        record: of its training; None if there is none, or it is being trained.
    """

    files: RunFiles
    status: str
    done: tuple[str, ...]
    why: str
    left: str | None
    failure: str
    training: RunProgress | None
    record: dict | None

    @property
    def results(self) -> str | None:
        """The seal of the record."""
        return self.record and self.record[records.SEAL]

    @cached_property
    def epochs(self) -> list[Epoch]:
        """The epochs that were trained and measured."""
        if self.training:
            return self.training.done
        return _history(self.files.history) if "train" in self.done else []


def run_state(
    files: RunFiles,
    expected: Expected,
    stages: Sequence[str] = tuple(STAGES),
    verify: Verify = "newer",
) -> RunState:
    """Return how far a run is.

    Args:
        files: of the run.
        expected: what it should be of.
        stages: those that it needs.
        verify: see `read_trained`.
    """
    training = RunProgress.read(files.progress)
    alive = training is not None and is_alive(files.lease)
    done = ()
    record, why = _training(files, expected, verify)
    if why is None:
        done, why = ("train",), _evaluation(files, expected, record)
        if why is None:
            done = ("train", "evaluate")
    left = next((stage for stage in stages if stage not in done), None)
    failure = _known_failure(files, expected) if left == "train" else ""
    return RunState(
        files,
        "training" if alive else "failed" if failure else _STATUS[left, bool(left and why)],
        done,
        why or "",
        left,
        failure,
        training if alive or record is None else None,
        None if alive else record,
    )


def _training(
    files: RunFiles, expected: Expected, verify: Verify
) -> tuple[dict | None, str | None]:
    """Return the record of a training, and why it is left: `RunState.why`, or None if it is not."""
    if not files.has_all("train"):
        was_there = files.record.exists() or files.has_all("evaluate")
        return None, "files of its training are missing" if was_there else ""
    try:
        record = read_trained(files, verify)
    except UserError as error:
        return None, str(error)
    return record, expected.difference(record, files).why


def _evaluation(files: RunFiles, expected: Expected, trained: dict) -> str | None:
    """Return why the evaluation of a training is left: `RunState.why`, or None if it is not."""
    if not files.has_all("evaluate"):
        return "files of its evaluation are missing" if files.evaluation.exists() else ""
    try:
        evaluation = records.read(files.evaluation)
    except UserError as error:
        return str(error)
    if not records.is_evaluation_of(evaluation, trained):
        return "it was trained since"
    try:
        records.check_files(files.evaluation, evaluation, newer=True)
    except UserError as error:
        return str(error)
    versions = expected.changed_versions(evaluation)
    return Difference([], False, expected.changed_code(evaluation, files), versions).why


def read_trained(files: RunFiles, verify: Verify) -> dict:
    """Return the record of a trained run.

    Args:
        files: of the run.
        verify: which of the files that it describes are read, and their digests compared; with
            `newer`, those that are newer than the record.

    Raises:
        UserError: the run is not trained, or one of its files is not what was written, or the
            folder is that of another seed; the message names the file.
    """
    record = records.read(files.record)
    records.check_seed(files, record)
    but = files.weights.name if verify == "all but weights" else ""
    records.check_files(files.record, record, newer=verify == "newer", but=but)
    return record


def read_evaluation(files: RunFiles, trained: dict) -> dict:
    """Return the record of the evaluation of a training, whose files are as it describes.

    Args:
        files: of the run.
        trained: the record of its training.

    Raises:
        UserError: there is none, or it is of an earlier training, or one of its files is not what
            was written; the message names the file.
    """
    evaluation = records.read(files.evaluation)
    if not records.is_evaluation_of(evaluation, trained):
        raise UserError(
            f"{files.evaluation} is not of the training in {files.record}: the run was evaluated "
            "before it was last trained; run snakemake again, or evaluate it"
        )
    records.check_files(files.evaluation, evaluation)
    return evaluation


def _known_failure(files: RunFiles, expected: Expected) -> str:
    """Return why this very training fails whenever it is tried, if it is known to."""
    failure = Failure.read(files.failure)
    if failure and expected.difference(asdict(failure), files).why is None:
        return failure.message
    return ""


def is_alive(lease: Path) -> bool:
    """Return whether a training has renewed its lease lately."""
    try:
        return time.time() - lease.stat().st_mtime < SILENT_AFTER
    except OSError:
        return False


def _history(path: Path) -> list[Epoch]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Epoch(int(row["epoch"]), row["split"], float(row["loss"]), float(row["accuracy"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []
