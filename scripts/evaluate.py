"""Evaluate a trained run on the test set: load its weights afresh, predict, count.

RUN/predictions.csv.gz   one row a test image: index, label, prediction, confidence
RUN/accuracy.csv         the accuracy table: one row a class and a last row `all`
RUN/evaluation.json      test loss, and with which weights, data and versions

Confidence is the probability that the model gives its prediction. Precision, recall and F1 of the
last row are means over the classes (macro averages).
"""

import socket
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import cli
import data
import models
import provenance
from cli import Failure
from files import atomic_path, read_json, sha256, write_json
from inference import measure
from recipe import loss_function


def main() -> None:
    """Run the command line."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="a run's folder, from train.py")
    add("--data", type=Path, required=True, metavar="FILE", help="the file that it trained on")
    add("--threads", type=cli.at_least(1), default=1, help="CPU threads (default: 1)")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    record = read_json(args.run / "run.json")
    settings, digest = record["settings"], data.digest(args.data)
    if digest != record["data_sha256"]:
        raise Failure(f"{args.run} was trained on another file than {args.data}: digests differ")
    dataset = data.load(args.data)
    test = dataset.test_split()
    model = models.build(settings["model"], dataset.image_size, len(dataset.classes))
    weights = args.run / "model.safetensors"
    load_weights(model, weights)

    loss = loss_function(settings["loss"], len(dataset.classes))
    test_loss, output = measure(model, test, loss, settings["evaluation_batch_size"])
    predictions = prediction_table(output, test.labels, models.output_of(settings["model"]))
    table = accuracy_table(predictions, dataset.classes)
    overall = table.iloc[-1]
    print(
        f"{args.run}: {overall['correct']} of {overall['total']} test images right "
        f"({100 * overall['accuracy']:.2f} %), average loss {test_loss:.4f}"
    )
    write_evaluation(
        args.run,
        predictions,
        table,
        {
            "test_loss": test_loss,
            "data_sha256": digest,
            "weights_sha256": sha256(weights),
            "threads": torch.get_num_threads(),
            "host": socket.gethostname(),
            "slurm": provenance.slurm_job(),
            **provenance.git_state(),
            "code_sha256": provenance.code_digest(),
            "code": provenance.code_digests(),
            "versions": provenance.versions(),
            "end": provenance.now(),
            "peak_memory_mb": provenance.peak_memory_mb(),
        },
    )


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load weights into a model.

    Raises:
        Failure: the file is missing or torn, or holds the weights of another model.
    """
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise Failure(f"cannot read {path}: {error}") from error
    except RuntimeError as error:
        raise Failure(
            f"{path} holds the weights of another model than {type(model).__name__}: {error}"
        ) from error


def probabilities(output: torch.Tensor, kind: str | None) -> torch.Tensor:
    """Return the probabilities [N, classes] that a model's output stands for.

    Args:
        output: of the model, [N, classes].
        kind: what it is: `log_softmax`, `softmax` or `logits` (None is taken for logits).
    """
    # softmax(log_softmax(x)) is softmax(x), so it serves logits and log-softmax alike.
    return output if kind == "softmax" else output.softmax(dim=1)


def prediction_table(output: torch.Tensor, labels: torch.Tensor, kind: str | None) -> pd.DataFrame:
    """Return one row a test image, in the test set's order.

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
    """Return the accuracy table: one row a class, and a last row `all`.

    A class that is never predicted has precision 0, as has F1 where precision and recall are 0;
    accuracy and recall of a class are the same figure.
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
    run: Path, predictions: pd.DataFrame, table: pd.DataFrame, record: dict
) -> None:
    """Write the three files of an evaluation."""
    with atomic_path(run / "predictions.csv.gz") as temporary:
        # Without a fixed time in the archive, equal predictions would differ in their bytes.
        predictions.to_csv(temporary, index=False, compression={"method": "gzip", "mtime": 0})
    with atomic_path(run / "accuracy.csv") as temporary:
        table.to_csv(temporary, index=False)
    write_json(run / "evaluation.json", record)


if __name__ == "__main__":
    cli.run(main)
    cli.leave()
