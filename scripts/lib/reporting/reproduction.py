"""Make a run again from its record, away from the results, and compare it with what is stored."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.core import code_digests, provenance, seeds, snapshot, subprocesses
from lib.core.errors import NodeError, TemporaryError, UserError
from lib.core.layout import Layout, RunFiles
from lib.core.run_state import Expected, read_evaluation, read_trained
from lib.core.settings import Settings, difference
from lib.data import prepared_record
from lib.reporting.finished_runs import PREDICTIONS, read_table

REPRODUCED, ROUNDING, DIFFERS = "reproduced bit for bit", "agrees to rounding", "differs"
NOT_REPEATED = "cannot be repeated"
SECONDS = ("train_seconds", "eval_seconds")  # columns of the history that differ each time
# What a record says of the machine, by its key.
MACHINE = {
    "processor": "processor", "cpu_capability": "instructions of the processor",
    "threads": "threads", "gpu": "GPU", "device": "device", "cuda_version": "CUDA",
    "tf32": "TF32", "cuda_graph": "CUDA graph", "variables": "environment variables",
}  # fmt: skip
# Instructions of x86 processors as torch names them, each with those before it, and the variable
# that says which it uses. https://docs.pytorch.org/docs/stable/cpu.html
INSTRUCTIONS = ("DEFAULT", "AVX2", "AVX512")
USE_INSTRUCTIONS = "ATEN_CPU_CAPABILITY"
# Of the training loss of the first epoch, the most that rounding is taken to change. Without
# another seed to compare with, nothing else says how large a difference is.
LARGEST = 0.01


def valid_evaluation(files: RunFiles, record: dict) -> dict | None:
    """Return the record of the evaluation of a training; None if there is no valid one.

    That of an earlier version, which did not keep all that an evaluation keeps, is none.
    """
    with suppress(UserError):
        return read_evaluation(files, record) if files.has_all("evaluate") else None
    return None


class CannotRepeat(UserError):
    """Something that is needed to repeat a run is not there."""


@dataclass(frozen=True)
class Reproduction:
    """How a repetition compares with the run.

    Attributes:
        outcome: one of `REPRODUCED`, `ROUNDING`, `DIFFERS` and `NOT_REPEATED`.
        why: what differs, or what the likely cause is.
        first_difference: in the history: epoch, column, and by how much.
        predictions_differ: how many predictions for the test images do.
        another_seed_differs: how many of them another seed of the experiment has otherwise, at
            least; None if there is no other seed.
    """

    outcome: str
    why: str = ""
    first_difference: str = ""
    predictions_differ: int | None = None
    another_seed_differs: int | None = None

    def lines(self) -> list[str]:
        """Say it in words."""
        found = [self.outcome]
        if self.first_difference:
            found.append(f"the first difference: {self.first_difference}")
        if self.predictions_differ is not None:
            other = self.another_seed_differs
            within = "there is no other seed" if other is None else f"another seed: {other} or more"
            found.append(f"predictions that differ: {self.predictions_differ} ({within})")
        return [*found, *([self.why] if self.why else [])]


@dataclass(frozen=True)
class Stored:
    """A run as it is stored: its files, and its record, which describes them."""

    files: RunFiles
    record: dict
    history: pd.DataFrame
    predictions: pd.DataFrame | None  # of a point of a search, there are none
    evaluation: dict | None  # the record of how they were made
    table: str  # the accuracy table

    @classmethod
    def read(cls, files: RunFiles, stale: bool = False) -> "Stored":
        """Read a run.

        Args:
            files: of the run.
            stale: whether it may have an evaluation that is not of this training, which then does
                not count.

        Raises:
            UserError: it is not complete, or a file is not what its record describes.
        """
        record = read_trained(files, verify="all")
        history = read_table(files.history, {"epoch": int})
        if not files.evaluation.exists() or (stale and valid_evaluation(files, record) is None):
            return cls(files, record, history, None, None, "")
        evaluation = read_evaluation(files, record)
        predictions = read_table(files.predictions, PREDICTIONS)
        table = files.accuracy.read_text(encoding="utf-8")
        return cls(files, record, history, predictions, evaluation, table)

    @property
    def trained(self) -> dict[str, str]:
        """The digests of the weights, and of what they say of the validation images."""
        files = (self.files.weights, self.files.validation, self.files.earlier_validation)
        digests = self.record["files"]
        return {file.name: digests[file.name] for file in files if file.name in digests}

    @property
    def evaluated(self) -> tuple[str, float] | None:
        """The accuracy table and the test loss."""
        return self.evaluation and (self.table, self.evaluation["test_loss"])


COLUMNS = ["run", *Reproduction.__annotations__]  # of `reproduction.csv`


def reproduce(
    files: RunFiles, data: Path, layout: Layout, threads: int | None = None
) -> Reproduction:
    """Repeat a run with the code that was kept for it, and compare.

    Args:
        files: of the run.
        data: the prepared data.
        layout: where the code of the study is kept.
        threads: of the processor; by default, as many as the record names.

    Raises:
        UserError: the training fails.
        TemporaryError: it was interrupted.
    """
    folder = working_folder(files, "reproduce")
    try:
        check_files(files, data)
        stored = Stored.read(files)
        check_data(stored.record, data)
        code = unpacked_code(stored, layout, folder / "code")
    except CannotRepeat as error:
        return Reproduction(NOT_REPEATED, str(error))
    except TemporaryError:
        raise
    except UserError as error:
        return Reproduction(DIFFERS, str(error))
    return repeat(stored, data, code, folder, stored.record.get("cpu_capability"), threads)


def repeat(
    stored: Stored,
    data: Path,
    code: Path,
    folder: Path,
    instructions: str | None,
    threads: int | None = None,
) -> Reproduction:
    """Repeat a run and compare.

    Args:
        stored: the run.
        data: the prepared data.
        code: the folder of the code.
        folder: for what is written meanwhile. An earlier try goes on from there; it is removed in
            the end.
        instructions: those of the processor that torch uses, where the processor has them.
        threads: of the processor; by default, as many as the record names.

    Raises:
        UserError: the training fails.
        TemporaryError: it was interrupted.
    """
    again = RunFiles(folder / "run")
    train(stored, code, data, again, threads or stored.record["threads"], instructions)
    outcome = compare(stored, Stored.read(again))
    shutil.rmtree(folder)
    return outcome


def working_folder(files: RunFiles, what: str) -> Path:
    """Return the folder for what is written while a run is repeated: one for each run."""
    digest = hashlib.sha256(os.fsencode(files.folder.resolve())).hexdigest()[:12]
    return Path(".snakemake", what, f"{'-'.join(files.folder.parts[-2:])}-{digest}").absolute()


def check_files(files: RunFiles, data: Path) -> None:
    """Check that there is something to repeat.

    Raises:
        CannotRepeat: there is not.
    """
    if not files.has_all("train"):
        raise CannotRepeat(f"it is not trained: files are missing in {files.folder}")
    if not data.is_file():
        raise CannotRepeat(f"there is no {data}")


def check_data(record: dict, data: Path) -> None:
    """Check that data is what a run was trained on.

    Raises:
        UserError: it is not.
    """
    found = prepared_record.verified(data)
    if record["data_sha256"] not in found.names:
        raise UserError(
            f"other data: the record names {record['data_sha256'][:12]}, {data} is "
            f"{found.sha256[:12]}"
        )


def unpacked_code(stored: Stored, layout: Layout, folder: Path) -> Path:
    """Return the folder of the code of a run: unpacked, or the project's where none was kept.

    Raises:
        CannotRepeat: it is not there.
        UserError: it is not what the record names.
        TemporaryError: it cannot be unpacked.
    """
    record = stored.record
    digest = record.get("snapshot")
    if digest is None:
        changed = Expected().changed_code(record, stored.files)
        if changed:
            raise CannotRepeat(
                "its code was not kept, as it was trained by hand or by an earlier version, and "
                f"the current one is another: {', '.join(f'scripts/{name}' for name in changed)}"
            )
        return snapshot.ROOT
    if not layout.code(digest).is_file():
        raise CannotRepeat(f"its code is not there: {layout.code(digest)}")
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier try
    snapshot.Snapshot.read(layout.code(digest), digest).unpack(folder)
    is_same = lambda name, each: code_digests.is_same(name, each, folder / "scripts")  # noqa: E731
    if changed := code_digests.changed(record["code"], is_same):
        raise UserError(f"other code than in {layout.code(digest)}: {', '.join(changed)}")
    return folder


def instructions_here() -> str:
    """Return the instructions of the processor that torch uses, one of `INSTRUCTIONS` on x86."""
    import torch  # only where something is repeated: it takes seconds

    return torch.backends.cpu.get_cpu_capability()


def with_instructions(wanted: str | None, here: str) -> dict[str, str]:
    """Return the variable that lets torch use fewer instructions than the processor has.

    Each rounds sums in its own way. With fewer, a processor can do what an older one did.
    """
    known = wanted in INSTRUCTIONS and here in INSTRUCTIONS
    if known and INSTRUCTIONS.index(wanted) < INSTRUCTIONS.index(here):
        return {USE_INSTRUCTIONS: wanted.lower()}
    return {}


def train(
    stored: Stored, code: Path, data: Path, files: RunFiles, threads: int, instructions: str | None
) -> None:
    """Train as a record says, into another folder; evaluate, if the run is evaluated.

    Args:
        stored: the run.
        code: the folder of the code. Kept code gets the command of the record, which is of its
            time; the project itself gets the settings.
        data: the prepared data.
        files: what is written.
        threads: of the processor.
        instructions: see `repeat`.

    Raises:
        UserError: it fails.
        TemporaryError: it was interrupted.
    """
    record = stored.record
    where = ["--data", data, "--threads", str(threads)]
    others = {*provenance.variables(), USE_INSTRUCTIONS}
    environment = {name: each for name, each in os.environ.items() if name not in others}
    environment |= record.get("variables", {}) | with_instructions(
        instructions, instructions_here()
    )
    options = record["command"][1:]
    if code == snapshot.ROOT:
        options = Settings.of(record["settings"]).options()
        options += ["--keep-diverged"] if record["diverged"] else []
    commands = [
        # Of an option that is given twice, the last one counts.
        ["train.py", *options, *where, "--output", files.folder],
        ["evaluate.py", "--run", files.folder, *where],
    ]
    if stored.predictions is None:
        del commands[1]
    for script, *options in commands:
        words = [sys.executable, code / "scripts" / script, *options]
        status = subprocesses.run_to_the_end(words, environment)
        if status:
            kinds = {each.status: each for each in (TemporaryError, NodeError)}
            kind = TemporaryError if status > 128 else kinds.get(status, UserError)
            raise kind(f"{script} ends with status {status}: see above. Nothing was compared")


def compare(stored: Stored, again: Stored) -> Reproduction:
    """Compare a run with its repetition."""
    settings = difference(stored.record["settings"], again.record["settings"])
    if settings:
        return Reproduction(DIFFERS, f"other settings in its command: {', '.join(settings)}")
    first = first_difference(stored.history, again.history)
    both = stored.trained.keys() & again.trained.keys()  # versions differ in what they keep
    trained = all(stored.trained[name] == again.trained[name] for name in both)
    differ, other, same = None, None, True
    if stored.predictions is not None:
        differ = int((stored.predictions["prediction"] != again.predictions["prediction"]).sum())
        other, same = another_seed(stored), stored.predictions.equals(again.predictions)
        same = same and stored.evaluated == again.evaluated
    if same and not first and trained:
        return Reproduction(REPRODUCED)
    if first or not trained:
        found, what = (first or "the weights", differ, other), "weights"
        causes = differing_machine(stored.record, again.record)
        causes += resumed(stored.record)
    else:
        found, what = ("the predictions", differ, other), "predictions"
        causes = differing_machine(stored.evaluation, again.evaluation)
        if stored.evaluation["host"] != again.evaluation["host"]:
            causes.append(f"it was evaluated on {stored.evaluation['host']}")
    if not causes:
        why = f"the machine, the versions, and all else are as in the record: so the stored {what}"
        return Reproduction(DIFFERS, f"{why} are not what the record's code gives", *found)
    if (differ > other) if other is not None else not is_close(stored.history, again.history):
        why = "that is more than rounding explains; the machine differs from the record in: "
        return Reproduction(DIFFERS, why + "; ".join(causes), *found)
    return Reproduction(ROUNDING, f"the likely cause: {'; '.join(causes)}", *found)


def first_difference(history: pd.DataFrame, again: pd.DataFrame) -> str:
    """Say where two histories differ first; nothing if they do not, but for seconds."""
    columns = [name for name in history if name not in SECONDS]
    if len(history) != len(again):
        return f"{len(again)} epochs instead of {len(history)}"
    for (_, one), (_, other) in zip(history.iterrows(), again.iterrows(), strict=True):
        for name in columns:
            both_nan = pd.isna(one[name]) and pd.isna(other[name])
            if one[name] != other[name] and not both_nan:
                by = f", {one[name] - other[name]:+.2g}" if name != "split" else ""
                return f"epoch {one['epoch']}: {name} {other[name]} was {one[name]}{by}"
    return ""


def is_close(history: pd.DataFrame, again: pd.DataFrame) -> bool:
    """Return whether the first epoch's training loss differs by no more than rounding may cause."""
    one, other = history["train_loss"].iloc[0], again["train_loss"].iloc[0]
    return bool(np.isclose(one, other, rtol=LARGEST, atol=0))


def another_seed(stored: Stored) -> int | None:
    """Return in how many predictions another seed of the experiment differs, at least.

    Where there are folds, of the same one: the others are tested on other images.
    """
    found, fold = [], stored.record["settings"].get("fold")
    for path in sorted(stored.files.folder.parent.glob("seed*/")):
        files = RunFiles(path)
        same_images = files.seed is not None and seeds.parts(files.seed)[1] == fold
        if path != stored.files.folder and same_images and files.has_all("evaluate"):
            others = read_table(files.predictions, PREDICTIONS)["prediction"]
            if len(others) == len(stored.predictions):
                found.append(int((others != stored.predictions["prediction"]).sum()))
    return min(found, default=None)


def differing_machine(record: dict, again: dict) -> list[str]:
    """Say in what the machine and the versions differ from those of a record."""
    keys = [key for key in MACHINE if key in again]
    pairs = [(MACHINE[key], record.get(key), again[key], key in record) for key in keys]
    versions = provenance.computing(record["versions"])
    pairs += [(name, each, again["versions"].get(name), True) for name, each in versions.items()]
    found = [
        f"{text} {'unknown' if not known else _shown(one)}, here {_shown(other)}"
        for text, one, other, known in pairs
        if one != other
    ]
    if not record.get("deterministic", True):
        found.append("the GPU's algorithms are not deterministic")
    return found


def resumed(record: dict) -> list[str]:
    """Say that a training was resumed, which the record of its last part does not show."""
    count = record["resumes"]
    return [f"it was resumed {count} times, maybe on another machine"] if count else []


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in value.items()) or "none"
    return "none" if value is None else str(value)


def row(run: str, outcome: Reproduction) -> dict:
    """Return the row of a run in `reproduction.csv`."""
    return {"run": run, **{name: getattr(outcome, name) for name in COLUMNS[1:]}}


def status(outcomes: Iterable[Reproduction], exact: bool) -> int:
    """Return the exit status that says the worst of some outcomes."""
    found = {each.outcome for each in outcomes}
    return 1 if found & {DIFFERS, NOT_REPEATED} else 3 if exact and ROUNDING in found else 0
