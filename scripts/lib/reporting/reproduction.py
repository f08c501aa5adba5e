"""Make a run again from its record, away from the results, and compare it with what is stored."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.core import code_digests, provenance, records, snapshot
from lib.core.errors import TemporaryError, UserError
from lib.core.layout import Layout, RunFiles
from lib.core.run_state import Expected, read_trained
from lib.core.settings import difference
from lib.data import prepared_record
from lib.reporting.finished_runs import PREDICTIONS, read_table

REPRODUCED, ROUNDING, DIFFERS = "reproduced bit for bit", "agrees to rounding", "differs"
SECONDS = ("train_seconds", "eval_seconds")  # columns of the history that differ each time
# What a record says of the machine, by its key.
MACHINE = {
    "processor": "processor", "cpu_capability": "instructions of the processor",
    "threads": "threads", "gpu": "GPU", "device": "device", "cuda_version": "CUDA",
    "tf32": "TF32", "cuda_graph": "CUDA graph", "variables": "environment variables",
}  # fmt: skip
# Of the training loss of the first epoch, the most that rounding is taken to change. Without
# another seed to compare with, nothing else says how large a difference is.
LARGEST = 0.01


@dataclass(frozen=True)
class Reproduction:
    """What came of it.

    Attributes:
        outcome: one of `REPRODUCED`, `ROUNDING` and `DIFFERS`.
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
            within = f"another seed differs in {other} or more" if other else "there is no other"
            found.append(f"predictions that differ: {self.predictions_differ} ({within} seed)")
        return [*found, *([self.why] if self.why else [])]


@dataclass(frozen=True)
class Stored:
    """A run as it is stored: its files, and its record, which describes them."""

    files: RunFiles
    record: dict
    history: pd.DataFrame
    predictions: pd.DataFrame

    @classmethod
    def read(cls, files: RunFiles) -> "Stored":
        """Read a run.

        Raises:
            UserError: it is not complete, or a file is not what its record describes.
        """
        record, evaluation = read_trained(files, verify="all"), records.read(files.evaluation)
        if not records.is_evaluation_of(evaluation, record):
            raise UserError(f"{files.evaluation} is not of the training in {files.record}")
        records.check_files(files.evaluation, evaluation)
        history = read_table(files.history, {"epoch": int})
        return cls(files, record, history, read_table(files.predictions, PREDICTIONS))

    @property
    def weights_sha256(self) -> str:
        """The digest of the weights."""
        return self.record["files"][self.files.weights.name]


def reproduce(
    files: RunFiles, data: Path, layout: Layout, folder: Path, threads: int | None = None
) -> Reproduction:
    """Repeat a run and compare.

    Args:
        files: of the run.
        data: the prepared data.
        layout: where the code of the study is kept.
        folder: for what is written meanwhile. An earlier try goes on from there; it is removed in
            the end.
        threads: of the processor; by default, as many as the record names.

    Raises:
        UserError: the training fails.
        TemporaryError: it was interrupted.
    """
    try:
        stored = Stored.read(files)
        check_data(stored.record, data)
        code = unpacked_code(stored.record, layout, folder / "code")
    except UserError as error:
        return Reproduction(DIFFERS, str(error))
    again = RunFiles(folder / "run")
    train(stored.record, code, data, again, threads or stored.record["threads"])
    outcome = compare(stored, Stored.read(again))
    shutil.rmtree(folder)
    return outcome


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


def unpacked_code(record: dict, layout: Layout, folder: Path) -> Path:
    """Return the folder of the code of a run: unpacked, or the project's where none was kept.

    Raises:
        UserError: it is not there any more, or is not what the record names.
    """
    digest = record.get("snapshot")
    if digest is None:
        changed = Expected().changed_code(record)
        if changed:
            raise UserError(
                "its code was not kept, as it was trained by hand or by an earlier version, and "
                f"that of now is another: {', '.join(f'scripts/{name}' for name in changed)}"
            )
        return snapshot.ROOT
    snapshot.Snapshot.read(layout.code(digest), digest).unpack(folder)
    is_same = lambda name, each: code_digests.is_same(name, each, folder / "scripts")  # noqa: E731
    if changed := code_digests.changed(record["code"], is_same):
        raise UserError(f"other code than in {layout.code(digest)}: {', '.join(changed)}")
    return folder


def train(record: dict, code: Path, data: Path, files: RunFiles, threads: int) -> None:
    """Train and evaluate by the command of a record, into another folder.

    Raises:
        UserError: it fails.
        TemporaryError: it was interrupted.
    """
    where = ["--data", data, "--threads", str(threads)]
    others = provenance.variables()
    environment = {name: each for name, each in os.environ.items() if name not in others}
    commands = [
        # Of an option that is given twice, the last one counts.
        ["train.py", *record["command"][1:], *where, "--output", files.folder],
        ["evaluate.py", "--run", files.folder, *where],
    ]
    for script, *options in commands:
        words = [sys.executable, code / "scripts" / script, *options]
        done = subprocess.run(words, env=environment | record.get("variables", {}), check=False)
        if done.returncode:
            status = done.returncode
            kind = TemporaryError if status < 0 or status > 128 or status == 75 else UserError
            raise kind(f"{script} ends with status {status}: see above. Nothing was compared")


def compare(stored: Stored, again: Stored) -> Reproduction:
    """Compare a run with its repetition."""
    settings = difference(stored.record["settings"], again.record["settings"])
    if settings:
        return Reproduction(DIFFERS, f"other settings in its command: {', '.join(settings)}")
    first = first_difference(stored.history, again.history)
    differ = int((stored.predictions["prediction"] != again.predictions["prediction"]).sum())
    same = stored.predictions.equals(again.predictions) and not first
    if same and stored.weights_sha256 == again.weights_sha256:
        return Reproduction(REPRODUCED)
    first, other = first or "the weights", another_seed(stored)
    found = (first, differ, other)
    causes = differing_machine(stored.record, again.record)
    if not causes:
        why = "the machine, the versions, and all else are as in the record: so the stored weights "
        return Reproduction(DIFFERS, f"{why}are not what the record's code gives", *found)
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
            if one[name] != other[name]:
                by = f", {one[name] - other[name]:+.2g}" if name != "split" else ""
                return f"epoch {one['epoch']}: {name} {other[name]} was {one[name]}{by}"
    return ""


def is_close(history: pd.DataFrame, again: pd.DataFrame) -> bool:
    """Return whether the first epoch's training loss differs by no more than rounding may cause."""
    one, other = history["train_loss"].iloc[0], again["train_loss"].iloc[0]
    return bool(np.isclose(one, other, rtol=LARGEST, atol=0))


def another_seed(stored: Stored) -> int | None:
    """Return in how many predictions another seed of the experiment differs, at least."""
    found = []
    for path in sorted(stored.files.folder.parent.glob("seed*/")):
        files = RunFiles(path)
        if path != stored.files.folder and files.has_all("evaluate"):
            others = read_table(files.predictions, PREDICTIONS)["prediction"]
            if len(others) == len(stored.predictions):
                found.append(int((others != stored.predictions["prediction"]).sum()))
    return min(found, default=None)


def differing_machine(record: dict, again: dict) -> list[str]:
    """Say in what the machine and the versions differ from those of a record."""
    pairs = [
        (text, record.get(key), again.get(key), key in record) for key, text in MACHINE.items()
    ]
    versions = provenance.computing(record["versions"])
    pairs += [(name, each, again["versions"].get(name), True) for name, each in versions.items()]
    found = [
        f"{text} {'unknown' if not known else _shown(one)}, here {_shown(other)}"
        for text, one, other, known in pairs
        if one != other
    ]
    if not record["deterministic"]:
        found.append("the GPU's algorithms are not deterministic")
    return found


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in value.items()) or "none"
    return "none" if value is None else str(value)


def row(run: str, outcome: Reproduction) -> dict:
    """Return the row of a run in `reproduction.csv`."""
    return {"run": run, **{name: getattr(outcome, name) for name in COLUMNS[1:]}}


COLUMNS = ["run", *Reproduction.__annotations__]


def status(outcomes: Iterable[Reproduction], exact: bool) -> int:
    """Return the exit status that says the worst of some outcomes."""
    found = {each.outcome for each in outcomes}
    return 1 if DIFFERS in found else 3 if exact and ROUNDING in found else 0
