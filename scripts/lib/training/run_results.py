"""What a training leaves in its run's folder: its results, or why it always fails."""

import pandas as pd
import torch

from lib.core import records
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.files import atomic_path, write_csv
from lib.core.layout import RunFiles
from lib.core.settings import canonical
from lib.training.predictions import write_predictions
from lib.training.weights import save_weights

HISTORY = "epoch,learning_rate,train_loss,split,loss,accuracy,train_seconds,eval_seconds".split(",")


class RunResults:
    """What is in the folder of a run of a given identity: settings, digests of data and code."""

    def __init__(self, files: RunFiles, identity: dict):
        self.files = files
        self.identity = identity | {"settings": canonical(identity["settings"])}

    def raise_if_known_failure(self) -> None:
        """Fail at once if this very training has failed in a way that no retry can cure.

        Raises:
            UserError: it has; the message is that of the first time.
        """
        path = self.files.failure
        known = Failure.read(path)
        if known and known.identity == self.identity:
            raise UserError(
                f"{known.message} (known from {path}; it is tried again once the config, the "
                "data, or the code has changed)"
            )
        path.unlink(missing_ok=True)

    def remember_failure(self, message: str) -> None:
        """Write down that this training fails whenever it is tried."""
        Failure(self.identity, message).write(self.files.failure)
        self.files.progress.unlink(missing_ok=True)

    def write(
        self,
        model: torch.nn.Module,
        history: list[dict],
        record: dict,
        validation: pd.DataFrame | None,
    ) -> None:
        """Write the files of a run, `run.json` last: if it exists, so do the others.

        Args:
            model: with the trained weights.
            history: a row for each epoch.
            record: what run.json is to say.
            validation: the predictions for the validation images, if there are any.
        """
        with atomic_path(self.files.weights) as temporary:
            save_weights(model, temporary)
        write_csv(self.files.history, HISTORY, history)
        written = [self.files.weights, self.files.history]
        if validation is not None:
            write_predictions(self.files.validation, validation)
            written.append(self.files.validation)
        records.write(self.files.record, record, written)
        if validation is None:  # those of an earlier training
            self.files.validation.unlink(missing_ok=True)
