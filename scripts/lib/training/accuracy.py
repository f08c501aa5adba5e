"""What an evaluation finds: the accuracy table, which counts the predictions."""

from pathlib import Path

import pandas as pd

from lib.core import records
from lib.core.files import atomic_path
from lib.core.layout import RunFiles
from lib.training.predictions import write_predictions


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
    write_predictions(files.predictions, predictions)
    with atomic_path(files.accuracy) as temporary:
        table.to_csv(temporary, index=False)
    records.write(files.evaluation, record, [files.predictions, files.accuracy])
