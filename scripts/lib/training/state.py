"""The state of a training: all that a checkpoint must hold to resume with the same bits."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

# The part of the state that is numbers, lists and one tensor, rather than torch's own objects.
SCALARS = ("history", "epoch", "step", "order_seed", "losses", "seconds", "resumes")


@dataclass
class Training:
    """A training, and where it is."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per epoch done
    epoch: int = 1
    step: int = 0  # steps done in this epoch
    order_seed: int | None = None  # of this epoch's shuffled order
    losses: torch.Tensor | None = None  # [steps] of this epoch
    seconds: float = 0.0  # spent on this epoch's steps
    resumes: int = 0

    def state(self) -> dict[str, Any]:
        """Return the state as a tree of dicts, lists, tensors and plain values."""
        cuda = torch.cuda.is_available()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if cuda else [],
            "plain": {name: getattr(self, name) for name in SCALARS},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a state, and count that as a resume."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        for name, value in state["plain"].items():
            setattr(self, name, value)
        # If the epoch's last step was saved, torch takes the scheduler's next one for a mistake.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        self.resumes += 1
