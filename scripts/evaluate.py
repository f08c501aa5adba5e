"""Evaluate a trained run on the test set: load its weights from disk, predict, count.

RUN/predictions.csv.gz   one row per test image: index, label, prediction, confidence
RUN/accuracy.csv         the accuracy table: one row per class and a last row `all`
RUN/evaluation.json      test loss, and with which weights, data and versions

Confidence is the probability that the model assigns to its prediction. Precision, recall and F1 of
the last row are means over the classes (macro averages).
"""

import socket
from pathlib import Path

import torch

import models
from lib.core import code_digests, command_line, provenance, records
from lib.core.errors import UserError
from lib.core.files import sha256
from lib.core.layout import RunFiles
from lib.data import prepared
from lib.training import metrics, process
from lib.training.accuracy import accuracy_table, prediction_table, write_evaluation
from lib.training.recipe import loss_function
from lib.training.weights import load_weights


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="a run's folder, from train.py")
    add("--data", type=Path, required=True, metavar="FILE", help="the file that it trained on")
    add(
        "--threads",
        type=command_line.at_least(1),
        default=1,
        help="CPU threads (default: %(default)s)",
    )
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    files = RunFiles(args.run)
    record = records.read(files.record)
    records.check_files(files.record, record)
    settings, digest = record["settings"], prepared.digest(args.data)
    if digest != record["data_sha256"]:
        raise UserError(
            f"{args.run} was trained on a different file than {args.data}: digests differ"
        )
    dataset = prepared.load(args.data)
    test = dataset.test_split()
    model = models.build(settings["model"], dataset.image_size, len(dataset.classes))
    load_weights(model, files.weights)

    loss = loss_function(settings["loss"], len(dataset.classes))
    test_loss, output = metrics.evaluate(model, test, loss, settings["evaluation_batch_size"])
    predictions = prediction_table(output, test.labels, models.output_of(settings["model"]))
    table = accuracy_table(predictions, dataset.classes)
    overall = table.iloc[-1]
    print(
        f"{args.run}: {overall['correct']} of {overall['total']} test images correct "
        f"({100 * overall['accuracy']:.2f}%), average loss {test_loss:.4f}"
    )
    code = code_digests.imported_files()
    write_evaluation(
        args.run,
        predictions,
        table,
        {
            "test_loss": test_loss,
            "run_sha256": record[records.SEAL],
            "data_sha256": digest,
            "weights_sha256": sha256(files.weights),
            "threads": torch.get_num_threads(),
            "host": socket.gethostname(),
            "slurm": provenance.slurm_job(),
            **provenance.git_state(),
            "code_sha256": code_digests.combined_digest(code),
            "code": code_digests.file_digests(code),
            "versions": provenance.versions(),
            "end": provenance.now(),
            "peak_memory_mb": provenance.peak_memory_mb(),
        },
    )


if __name__ == "__main__":
    command_line.run(main)
    process.exit_without_teardown()
