"""How far a training is: a small file that it writes, and that anybody may read meanwhile."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from lib.core.files import read_object, replace_text, select

EPOCH = {"epoch": int, "split": str, "loss": int | float, "accuracy": int | float}
PROGRESS = {
    "epochs": int, "steps": int, "epoch": int, "step": int, "seconds": int | float, "done": list,
}  # fmt: skip


@dataclass(frozen=True)
class Epoch:
    """The result of an epoch: loss and accuracy on the held-out split."""

    epoch: int
    split: str
    loss: float
    accuracy: float


@dataclass
class RunProgress:
    """How far a training is."""

    epochs: int  # in all
    steps: int  # per epoch
    epoch: int = 1  # that is being trained
    step: int = 0  # steps done in it
    seconds: float = 0.0  # spent on training and testing so far
    done: list[Epoch] = field(default_factory=list)

    @property
    def fraction(self) -> float:
        """Share of all steps that are done, 0 to 1."""
        return max(0.0, min(1.0, (self.epoch - 1 + self.step / self.steps) / self.epochs))

    @property
    def remaining_seconds(self) -> float | None:
        """Estimate of the seconds that are left, from the pace so far; None at the start."""
        if not self.fraction:
            return None
        return self.seconds * (1 - self.fraction) / self.fraction

    def write(self, path: Path) -> None:
        """Write the file. A failure is not the training's: it goes unreported."""
        replace_text(path, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a file says; None if there is none, or it is not readable as one."""
        content = read_object(path, PROGRESS)
        done = [select(each, EPOCH) for each in content["done"]] if content else []
        if content is None or None in done:
            return None
        if min(content["epochs"], content["steps"]) < 1 or not 0 <= content["seconds"] < 2**63:
            return None
        return cls(**content | {"done": [Epoch(**each) for each in done]})
