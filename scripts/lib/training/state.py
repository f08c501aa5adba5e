"""The state of a training: all that a checkpoint must hold to resume with the same bits."""

import copy
import random
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from lib.core.errors import UserError
from lib.core.settings import Settings
from lib.training.selection import Selection
from lib.training.weights import load_state

LOWER_RATE = "training has diverged; a smaller learning rate (optimizer: lr) usually helps"
# The part of the state that is numbers, lists and one tensor, rather than torch's own objects.
SCALARS = (
    "history", "epoch", "step", "learning_rate", "order_seed", "losses", "seconds", "resumes",
    "order_seeds", "begin", "first_losses", "fingerprint",
)  # fmt: skip


class Diverged(UserError):
    """A loss is not finite, and would not be if one tried again."""

    def __init__(self, what: str, advice: str = LOWER_RATE):
        super().__init__(f"{what}: {advice}")


@dataclass
class Best:
    """The best epoch so far: its number, the metric of the validation images, its `state_dict`."""

    epoch: int
    value: float
    weights: dict[str, Any]


@dataclass
class Training:
    """A training, and where it is."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    averaged: AveragedModel | None = None  # of its weights, if they are averaged
    best: Best | None = None  # if the best epoch is kept
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per epoch done
    epoch: int = 1
    step: int = 0  # steps done in this epoch
    learning_rate: float = 0.0  # at the begin of this epoch
    order_seed: int | None = None  # of this epoch's shuffled order
    losses: torch.Tensor | None = None  # [steps] of this epoch
    seconds: float = 0.0  # spent on this epoch's steps
    resumes: int = 0
    order_seeds: list[int] = field(default_factory=list)  # of all epochs so far, if shuffled
    begin: dict[str, Any] = field(default_factory=dict)  # of the fingerprint, what is known first
    first_losses: list[str] = field(default_factory=list)  # of it, those of earlier epochs
    fingerprint: dict[str, Any] | None = None  # see fingerprint.py; None until it is complete
    cuda_graph: bool = False  # whether its steps are captured; no part of the state

    @property
    def network(self) -> torch.nn.Module:
        """What is evaluated, and kept: the model, or the one of its averaged weights."""
        return self.averaged.module if self.averaged else self.model

    def keep_if_better(self, selection: Selection, value: float) -> None:
        """Keep the weights of the epoch that was just measured, if no earlier one is as good."""
        if self.best is None or selection.metric.better(value, self.best.value):
            weights = copy.deepcopy(self.network.state_dict())
            self.best = Best(self.epoch, value, weights)

    def is_over(self, settings: Settings) -> bool:
        """Return whether all epochs are done, or the patience for a better one has ended."""
        done = len(self.history)
        if settings.patience and self.best and done - self.best.epoch >= settings.patience:
            return True
        return done >= settings.epochs

    def state(self) -> dict[str, Any]:
        """Return the state as a tree of dicts, lists, tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "averaged": self.averaged and self.averaged.state_dict(),
            "best": self.best and vars(self.best),
            "random": random_state(),
            "plain": {name: getattr(self, name) for name in SCALARS},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a state, and count that as a resume."""
        load_state(self.model, state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.averaged:
            load_state(self.averaged, state["averaged"])
        self.best = state["best"] and Best(**state["best"])
        restore_random_state(state["random"])
        for name, value in state["plain"].items():
            setattr(self, name, value)
        # If the epoch's last step was saved, torch takes the scheduler's next one for a mistake.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        self.resumes += 1

    def check_losses(self) -> None:
        """Raise `Diverged`, naming the first step of the epoch whose loss is not finite."""
        wrong = torch.nonzero(~torch.isfinite(self.losses[: self.step])).flatten()
        if len(wrong):
            step = int(wrong[0])
            what = f"the training loss is {self.losses[step].item()} at epoch {self.epoch}"
            raise Diverged(f"{what}, step {step + 1}")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state, which may come from another device.

    Whether an optimizer counts its steps on the GPU (`capturable`) is a matter of the device.
    """
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        if "capturable" in own:
            saved["capturable"] = own["capturable"]
    optimizer.load_state_dict(state)


def seed_everything(seed: int) -> None:
    """Seed torch, and for the models that use them, numpy and `random`.

    Raises:
        UserError: the seed has more than 64 bits.
    """
    if seed >> 64:
        raise UserError(f"seed: an integer of {seed.bit_length()} bits is too large")
    torch.manual_seed(seed)
    random.seed(seed)
    # numpy takes 32 bits, or a list of such words.
    np.random.seed(seed if seed < 1 << 32 else [seed & 0xFFFFFFFF, seed >> 32])


def random_state() -> dict[str, Any]:
    """Return the state of all global random generators, in a form that a checkpoint can hold."""
    name, words, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "python": random.getstate(),
        "numpy": (name, words.tolist(), *rest),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Return the global random generators to a state."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():  # else it is of another machine
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
