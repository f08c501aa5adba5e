"""How a training goes: the lines of its log, the progress file, and whether its losses are finite.

The lines are the lesson's: the training loss every so many steps, and after each epoch the average
loss and the accuracy on the held-out images.
"""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from lib.core.files import sweep
from lib.core.progress_file import Epoch, RunProgress
from lib.core.settings import Settings
from lib.training.state import Training

SECONDS_BETWEEN_WRITES = 5.0


class Progress:
    """Tell how a training goes: a bar on a terminal, lines in a log, and the progress file.

    Every `log_interval` steps it also checks that the losses so far are finite.
    """

    def __init__(
        self,
        settings: Settings,
        images: int,
        held_out: int,
        log_interval: int = 100,
        file: Path | None = None,
    ):
        """Make the reporter of one training.

        Args:
            settings: of the training.
            images: how many an epoch trains on.
            held_out: how many it is measured on.
            log_interval: steps between lines.
            file: the progress file; None writes none.
        """
        self.settings, self.images, self.held_out = settings, images, held_out
        self.log_interval, self.file = log_interval, file
        self.bar: tqdm | None = None
        self.began = self.written = time.monotonic()
        if file:
            sweep(file)

    def started(self, parameters: int, device: object) -> None:
        """Say what is trained: how many parameters, and where."""
        print(f"{self.settings.model['name']}: {parameters:,} parameters, on {device}", flush=True)

    def resumed(self, training: Training) -> None:
        """Say from where an earlier training goes on."""
        print(f"resuming at epoch {training.epoch}, after {training.step} steps", flush=True)

    def epoch_started(self, training: Training) -> None:
        """Start the bar of an epoch, or of what is left of it."""
        self.began = time.monotonic() - training.seconds
        self.bar = tqdm(
            total=self.images,
            initial=training.step * self.settings.images_per_step,
            desc=f"epoch {training.epoch}",
            unit="image",
            leave=False,
            disable=None,
        )
        self.write(training, training.seconds)

    def step_done(self, training: Training) -> None:
        """Tell of the step that was just done."""
        step, steps = training.step - 1, len(training.losses)
        seen = step * self.settings.images_per_step
        self.bar.update(min(self.settings.images_per_step, self.images - seen))
        last = training.step == steps
        if last:
            self.bar.close()
        if last or step % self.log_interval == 0:
            training.check_losses()
        if step % self.log_interval == 0:
            self.bar.write(
                f"Train Epoch: {training.epoch} [{seen}/{self.images} "
                f"({100 * step / steps:.0f}%)]\tLoss: {training.losses[step].item():.6f}"
            )
            sys.stdout.flush()
        if time.monotonic() - self.written > SECONDS_BETWEEN_WRITES:
            self.write(training, time.monotonic() - self.began)

    def epoch_done(self, training: Training) -> None:
        """Tell of the epoch that was just measured, the last of the history."""
        row = training.history[-1]
        correct = round(row["accuracy"] * self.held_out)
        print(
            f"\n{row['split'].capitalize()} set: Average loss: {row['loss']:.4f}, "
            f"Accuracy: {correct}/{self.held_out} ({100 * row['accuracy']:.2f}%)\n",
            flush=True,
        )
        self.write(training, 0.0)

    def write(self, training: Training, seconds: float) -> None:
        """Write the progress file; `seconds` were spent on the epoch at hand."""
        self.written = time.monotonic()
        if self.file:
            RunProgress(
                epochs=self.settings.epochs,
                steps=len(training.losses),
                epoch=training.epoch,
                step=training.step,
                seconds=seconds
                + sum(row["train_seconds"] + row["eval_seconds"] for row in training.history),
                done=[
                    Epoch(**{key: row[key] for key in ("epoch", "split", "loss", "accuracy")})
                    for row in training.history
                ],
            ).write(self.file)
