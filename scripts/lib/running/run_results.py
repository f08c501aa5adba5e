"""What a training and an evaluation leave in their run's folder."""

from pathlib import Path

import pandas as pd
import torch

from lib.core import records
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


def write_evaluation(
    folder: Path, predictions: pd.DataFrame, table: pd.DataFrame, record: dict
) -> None:
    """Write the three files of an evaluation."""
    files = RunFiles(folder)
    write_predictions(files.predictions, predictions)
    with atomic_path(files.accuracy) as temporary:
        table.to_csv(temporary, index=False)
    records.write(files.evaluation, record, [files.predictions, files.accuracy])
