"""What a network says of each image of a split, as tables and as files."""

import gzip
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file

from lib.core.files import atomic_path

ARCHIVED_NAME = ".predictions.csv.gz.part"


def prediction_table(probabilities: torch.Tensor, labels: torch.Tensor) -> pd.DataFrame:
    """Return one row per image, in the order of the labels.

    Args:
        probabilities: of each class, [N, classes].
        labels: int64 [N].
    """
    confidence, prediction = probabilities.max(dim=1)
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


def write_probabilities(path: Path, probabilities: torch.Tensor, **others: torch.Tensor) -> None:
    """Write probabilities [N, classes] as float32, and other tensors by their names."""
    tensors = {"probabilities": probabilities.float(), **others}
    with atomic_path(path) as temporary:
        save_file({name: each.contiguous() for name, each in tensors.items()}, temporary)
