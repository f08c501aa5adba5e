"""What an evaluation finds: the predictions, and the accuracy table that counts them."""

import gzip
from pathlib import Path

import pandas as pd
import torch

from lib.core import records
from lib.core.files import atomic_path
from lib.core.layout import RunFiles
from lib.training.metrics import probabilities

ARCHIVED_NAME = ".predictions.csv.gz.part"


def prediction_table(output: torch.Tensor, labels: torch.Tensor, kind: str | None) -> pd.DataFrame:
    """Return one row per test image, in the test set's order.

    Args:
        output: of the model, [N, classes].
        labels: int64 [N].
        kind: what the output is, as `probabilities` takes it.
    """
    confidence, prediction = probabilities(output, kind).max(dim=1)
    return pd.DataFrame(
        {
            "index": range(len(labels)),
            "label": labels.numpy(),
            "prediction": prediction.numpy(),
            "confidence": confidence.numpy(),
        }
    )


def accuracy_table(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return the accuracy table: one row per class, and a last row `all`.

    A class that is never predicted has precision 0, as has F1 where precision and recall are 0;
    accuracy and recall of a class are the same number.
    """
    numbers = range(len(classes))
    right = predictions["label"] == predictions["prediction"]
    total = predictions["label"].value_counts().reindex(numbers, fill_value=0)
    predicted = predictions["prediction"].value_counts().reindex(numbers, fill_value=0)
    correct = predictions["label"][right].value_counts().reindex(numbers, fill_value=0)
    recall = (correct / total).fillna(0.0)
    precision = (correct / predicted).fillna(0.0)
    table = pd.DataFrame(
        {
            "class": classes,
            "correct": correct.to_numpy(),
            "total": total.to_numpy(),
            "accuracy": recall.to_numpy(),
            "precision": precision.to_numpy(),
            "recall": recall.to_numpy(),
            "f1": (2 * precision * recall / (precision + recall)).fillna(0.0).to_numpy(),
        }
    )
    means = table[["precision", "recall", "f1"]].mean()
    everything = pd.DataFrame(
        {
            "class": ["all"],
            "correct": [right.sum()],
            "total": [len(predictions)],
            "accuracy": [right.mean()],
            **{name: [value] for name, value in means.items()},
        }
    )
    return pd.concat([table, everything], ignore_index=True)


def write_evaluation(
    folder: Path, predictions: pd.DataFrame, table: pd.DataFrame, record: dict
) -> None:
    """Write the three files of an evaluation."""
    files = RunFiles(folder)
    with (
        atomic_path(files.predictions) as temporary,
        temporary.open("wb") as file,
        # Name and time are in the archive's header: equal predictions are to be equal bytes.
        gzip.GzipFile(ARCHIVED_NAME, "wb", fileobj=file, mtime=0) as archive,
    ):
        predictions.to_csv(archive, index=False, mode="wb")
    with atomic_path(files.accuracy) as temporary:
        table.to_csv(temporary, index=False)
    records.write(files.evaluation, record, [files.predictions, files.accuracy])
