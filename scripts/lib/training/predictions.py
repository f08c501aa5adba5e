"""What a network says of each image of a split, as a table and as a file."""

import gzip
from pathlib import Path

import pandas as pd
import torch

from lib.core.files import atomic_path
from lib.training.metrics import probabilities

ARCHIVED_NAME = ".predictions.csv.gz.part"


def prediction_table(output: torch.Tensor, labels: torch.Tensor, kind: str | None) -> pd.DataFrame:
    """Return one row per image, in the order of the labels.

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


def with_names(predictions: pd.DataFrame, names: list[str] | None) -> pd.DataFrame:
    """Return predictions with a last column `file`, where the images have names."""
    return predictions if names is None else predictions.assign(file=names)


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Write a table as `prediction_table` returns it, compressed."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        # Name and time are in the archive's header: equal predictions are to be equal bytes.
        gzip.GzipFile(ARCHIVED_NAME, "wb", fileobj=file, mtime=0) as archive,
    ):
        predictions.to_csv(archive, index=False, mode="wb")
