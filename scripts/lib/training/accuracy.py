"""What an evaluation finds: the accuracy table, which counts the predictions."""

import pandas as pd


def accuracy_table(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return the accuracy table: one row per class, and a last row `all`.

    What cannot be computed is NaN, and empty in the file: accuracy, recall and F1 of a class that
    has no images, precision of one that is never predicted. The means leave it out. Accuracy and
    recall of a class are the same number.
    """
    numbers = range(len(classes))
    right = predictions["label"] == predictions["prediction"]
    total = predictions["label"].value_counts().reindex(numbers, fill_value=0)
    predicted = predictions["prediction"].value_counts().reindex(numbers, fill_value=0)
    correct = predictions["label"][right].value_counts().reindex(numbers, fill_value=0)
    recall, precision = correct / total, correct / predicted
    f1 = (2 * correct / (total + predicted)).where(total > 0)
    table = pd.DataFrame(
        {
            "class": classes,
            "correct": correct.to_numpy(),
            "total": total.to_numpy(),
            "accuracy": recall.to_numpy(),
            "precision": precision.to_numpy(),
            "recall": recall.to_numpy(),
            "f1": f1.to_numpy(),
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
