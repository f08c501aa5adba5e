"""Checkpoints: what a training needs to resume as if nothing had happened.

A checkpoint is one safetensors file beside the run's outputs: tensors as tensors, and all else as
JSON in the file's metadata. No pickle, so that a file from elsewhere can do no harm. It exists
completely or not at all, and stays until the run is evaluated.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lib.core.errors import UserError
from lib.core.files import atomic_path
from lib.training.weights import flatten, unflatten


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
        self.identity = json.loads(json.dumps(identity))  # as it will be read back
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
        """Save a tree of dicts, lists, tensors and plain values; then stop if asked to.

        A checkpoint that cannot be written is a warning: the previous one stays, and training goes
        on.

        Raises:
            Stopped: a signal has asked the process to end.
            UserError: something in the state cannot be saved.
        """
        tensors: dict[str, torch.Tensor] = {}
        try:
            content = {"identity": self.identity, "state": flatten(state, tensors)}
        except TypeError as error:
            raise UserError(f"the state of the training cannot be saved: {error}") from error
        self.ensure_held()
        try:
            with atomic_path(self.path) as temporary:
                save_file(tensors, temporary, metadata={"checkpoint": json.dumps(content)})
            saved = "the checkpoint is saved"
        except UserError as error:
            saved = f"{error}; the previous checkpoint stays"
            print(f"warning: {saved}", file=sys.stderr, flush=True)
        self.saved_at = time.monotonic()
        if self.signal is not None:
            raise Stopped(f"stopped by {signal.Signals(self.signal).name}; {saved}")

    def load(self) -> Any | None:
        """Return the saved state, or None if there is none that this run may use.

        A corrupt checkpoint, or one of other settings, data or code, is ignored with a warning.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                content = json.loads(file.metadata()["checkpoint"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            return self._ignore(f"cannot be read ({error})")
        other = [key for key in self.identity if content["identity"].get(key) != self.identity[key]]
        if other:
            return self._ignore(f"is of another run: {', '.join(other)} differ")
        return unflatten(content["state"], tensors)

    def _ignore(self, reason: str) -> None:
        warning = f"warning: {self.path} {reason}; training starts from scratch"
        print(warning, file=sys.stderr, flush=True)
