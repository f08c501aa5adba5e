"""Checkpoints: what a training needs to resume as if nothing had happened.

A checkpoint is one file of `torch.save` beside the run's outputs. It is loaded with `weights_only`,
which builds tensors and plain values and calls nothing else that a file names. It exists completely
or not at all, and stays until the run is evaluated.
"""

import io
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lib.core.errors import UserError
from lib.core.files import atomic_path


class Stopped(Exception):
    """The process was asked to end; what it had done is in the checkpoint."""


class Checkpoints:
    """The checkpoint of one run: when to save it, and whether an existing one may be used."""

    def __init__(
        self,
        path: Path,
        identity: dict,
        interval: float,
        ensure_held: Callable[[], None] = lambda: None,
    ):
        """Make an object that knows the run's checkpoint; nothing is read or written yet.

        Args:
            path: the file.
            identity: what must be equal for a checkpoint to be used: settings, data, code.
            interval: seconds after which a long epoch is saved.
            ensure_held: raises if another process has taken over the run's folder.
        """
        self.ensure_held = ensure_held
        self.path = path
        self.identity = identity
        self.interval = interval
        self.saved_at = time.monotonic()
        self.signal: int | None = None

    def install_signal_handlers(self) -> None:
        """From now on, take SIGTERM and SIGINT as a request to stop after the current step.

        Slurm sends SIGTERM before it kills. The handler only remembers it: saving within a handler
        could see tensors in the middle of a step.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _frame) -> None:
        self.signal = number

    @property
    def save_due(self) -> bool:
        """Whether to save now, in the middle of an epoch."""
        return self.signal is not None or time.monotonic() - self.saved_at >= self.interval

    def save(self, state: Any) -> None:
        """Save a state that `serialize` takes; then stop if asked to.

        A checkpoint that cannot be written is a warning: the previous one stays, and training goes
        on.

        Raises:
            Stopped: a signal has asked the process to end.
            UserError: the state cannot be saved.
        """
        content = serialize({"identity": self.identity, "state": state})
        self.ensure_held()
        try:
            with atomic_path(self.path) as temporary:
                temporary.write_bytes(content)
            saved = "the checkpoint is saved"
        except UserError as error:
            saved = f"{error}; the previous checkpoint stays"
            print(f"warning: {saved}", file=sys.stderr, flush=True)
        self.saved_at = time.monotonic()
        if self.signal is not None:
            raise Stopped(f"stopped by {signal.Signals(self.signal).name}; {saved}")

    def load(self) -> Any | None:
        """Return the saved state, or None if there is none that this run may use.

        A corrupt checkpoint, or one of other settings, data or code, is ignored with a warning; so
        is one of version 0.2, which had another form.
        """
        if not self.path.exists():
            old = self.path.with_suffix(".safetensors")
            return ignore(old, "was written by an older version") if old.exists() else None
        try:
            content = deserialize(self.path)
            state, identity = content["state"], content["identity"]
            other = [key for key in self.identity if identity.get(key) != self.identity[key]]
        except Exception as error:  # a damaged file can lead to nearly any
            # Without its text, which may be torch's advice to load the file unsafely.
            return ignore(self.path, f"cannot be read ({type(error).__name__})")
        if other:
            return ignore(self.path, f"is of another run: {', '.join(other)} differ")
        return state


def serialize(content: Any) -> memoryview:
    """Return tensors and plain values, in dicts, lists and tuples, as the bytes of a checkpoint.

    Raises:
        UserError: there is something else in it, which `deserialize` would refuse.
    """
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
        buffer.seek(0)
        refused = torch.serialization.get_unsafe_globals_in_checkpoint(buffer)
        if refused:
            raise TypeError(f"a checkpoint cannot contain {', '.join(sorted(refused))}")
    except (AttributeError, TypeError, pickle.PickleError) as error:
        raise UserError(f"the state of the training cannot be saved: {error}") from error
    return buffer.getbuffer()


def deserialize(file: Path | io.BytesIO) -> Any:
    """Return what `serialize` was given, its tensors on the CPU; no code from the file is run."""
    return torch.load(file, map_location="cpu", weights_only=True)


def ignore(path: Path, reason: str) -> None:
    """Warn of a checkpoint that is not used."""
    warning = f"warning: {path} {reason}; training starts from scratch"
    print(warning, file=sys.stderr, flush=True)
