"""How a training goes: what it prints, and whether its losses are still numbers."""

import sys

import torch
from tqdm import tqdm

from cli import Failure


class Diverged(Failure):
    """A loss is not finite, and would not be if one tried again."""

    def __init__(self, what: str):
        super().__init__(
            f"{what}: training has diverged; a smaller learning rate (optimizer: lr) is the usual "
            "cure"
        )


class Progress:
    """Tell how an epoch goes: a bar on a terminal, in a log file a line now and then.

    Every `log_interval` steps it also looks whether the losses so far are finite.
    """

    def __init__(self, run, images: int, batch_size: int, log_interval: int):
        self.run, self.images = run, images
        self.batch_size, self.log_interval = batch_size, log_interval
        self.bar = tqdm(
            total=images,
            initial=run.step * batch_size,
            desc=f"epoch {run.epoch}",
            unit="image",
            leave=False,
            disable=None,
        )

    def __call__(self) -> None:
        """Tell of the step that is done."""
        run, step = self.run, self.run.step - 1
        seen = step * self.batch_size
        self.bar.update(min(self.batch_size, self.images - seen))
        last = run.step == len(run.losses)
        if last:
            self.bar.close()
        if last or step % self.log_interval == 0:
            check_finite(run)
        if step % self.log_interval == 0:
            percent = 100 * step / len(run.losses)
            self.bar.write(
                f"Train Epoch: {run.epoch} [{seen}/{self.images} ({percent:.0f}%)]"
                f"\tLoss: {run.losses[step].item():.6f}"
            )
            sys.stdout.flush()


def check_finite(run) -> None:
    """Raise `Diverged`, naming the first step of the epoch whose loss is not finite."""
    wrong = torch.nonzero(~torch.isfinite(run.losses[: run.step])).flatten()
    if len(wrong):
        step = int(wrong[0])
        value = run.losses[step].item()
        raise Diverged(f"the training loss is {value} at epoch {run.epoch}, step {step + 1}")
