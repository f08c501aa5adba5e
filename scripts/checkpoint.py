"""Checkpoints: what a training needs to go on as if nothing had happened.

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

from cli import Failure
from files import atomic_path

NAME = "checkpoint.safetensors"


class Stopped(Exception):
    """The process was asked to end; what it had done is in the checkpoint."""


class Checkpoints:
    """The checkpoint of one run: when to save, and whether the one that is there may be used."""

    def __init__(
        self,
        folder: Path,
        identity: dict,
        interval: float,
        check_writer: Callable[[], None] = lambda: None,
    ):
        """Make an object that knows the run's checkpoint; nothing is read or written yet.

        Args:
            folder: the run's folder.
            identity: what must be equal for a checkpoint to be used: settings, data, code.
            interval: seconds after which a long epoch is saved.
            check_writer: raises if another process writes into the folder by now.
        """
        self.check_writer = check_writer
        self.path = folder / NAME
        self.identity = json.loads(json.dumps(identity))  # as it will be read back
        self.interval = interval
        self.saved_at = time.monotonic()
        self.signal: int | None = None

    def listen(self) -> None:
        """From now on, take SIGTERM and SIGINT as a wish to stop after the step at hand.

        Slurm sends SIGTERM before it kills. The handler only remembers it: to save within a
        handler could meet tensors half-way through a step.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _frame) -> None:
        self.signal = number

    @property
    def due(self) -> bool:
        """Whether to save now, in the midst of an epoch."""
        return self.signal is not None or time.monotonic() - self.saved_at >= self.interval

    def save(self, state: Any) -> None:
        """Save a tree of dicts, lists, tensors and plain values; then stop if asked to.

        A checkpoint that cannot be written is a warning: the one before stays, and training goes
        on.

        Raises:
            Stopped: a signal has asked the process to end.
        """
        tensors: dict[str, torch.Tensor] = {}
        skeleton = _take_out(state, tensors)
        content = {"identity": self.identity, "state": skeleton}
        self.check_writer()
        try:
            with atomic_path(self.path) as temporary:
                save_file(tensors, temporary, metadata={"checkpoint": json.dumps(content)})
            saved = "the checkpoint is saved"
        except Failure as failure:
            saved = f"{failure}; the checkpoint before stays"
            print(f"warning: {saved}", file=sys.stderr, flush=True)
        self.saved_at = time.monotonic()
        if self.signal is not None:
            raise Stopped(f"stopped by {signal.Signals(self.signal).name}; {saved}")

    def load(self) -> Any | None:
        """Return the state that was saved, or None if there is none that this run may use.

        A torn checkpoint, or one of other settings, data or code, is ignored with a warning.
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
        return _put_back(content["state"], tensors)

    def _ignore(self, reason: str) -> None:
        print(f"warning: {self.path} {reason}; training starts afresh", file=sys.stderr, flush=True)


def _take_out(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `value` as JSON can hold it, its tensors moved to `tensors`.

    A mapping becomes a list of pairs, since its keys may be numbers, as an optimizer's are.
    """
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # A copy: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"pairs": [[key, _take_out(each, tensors)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_out(each, tensors) for each in value]
    return value


def _put_back(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return what `_take_out` was given (tuples as lists)."""
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {key: _put_back(each, tensors) for key, each in value["pairs"]}
    if isinstance(value, list):
        return [_put_back(each, tensors) for each in value]
    return value
