"""What a training and an evaluation leave in their run's folder."""

from pathlib import Path

import pandas as pd
import torch

from lib.core import records
from lib.core.files import atomic_path, write_csv
from lib.core.layout import RunFiles
from lib.core.settings import canonical
from lib.training.predictions import write_predictions, write_probabilities
from lib.training.weights import save_weights

HISTORY = "epoch,learning_rate,train_loss,split,loss,accuracy,train_seconds,eval_seconds".split(",")
METRIC = "metric"  # the last column, where the best epoch is kept


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
        validation: dict[str, torch.Tensor] | None,
    ) -> None:
        """Write the files of a run, `run.json` last: if it exists, so do the others.

        Args:
            model: with the trained weights.
            history: a row for each epoch.
            record: what run.json is to say.
            validation: of the validation images, if there are any, `probabilities` [N, classes],
                and `labels` [N].
        """
        with atomic_path(self.files.weights) as temporary:
            save_weights(model, temporary)
        more = [METRIC] if any(METRIC in row for row in history) else []
        write_csv(self.files.history, HISTORY + more, history)
        written = [self.files.weights, self.files.history]
        if validation is not None:
            write_probabilities(self.files.validation, **validation)
            written.append(self.files.validation)
        records.write(self.files.record, record, written)
        self.files.earlier_validation.unlink(missing_ok=True)
        if validation is None:  # those of an earlier training
            self.files.validation.unlink(missing_ok=True)


def write_evaluation(
    folder: Path,
    probabilities: torch.Tensor,
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    record: dict,
) -> None:
    """Write the files of an evaluation, its record last."""
    files = RunFiles(folder)
    write_probabilities(files.probabilities, probabilities)
    write_predictions(files.predictions, predictions)
    with atomic_path(files.accuracy) as temporary:
        table.to_csv(temporary, index=False)
    written = [files.probabilities, files.predictions, files.accuracy]
    records.write(files.evaluation, record, written)
