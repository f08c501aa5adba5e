"""Evaluate a trained run on the test set: load its weights from disk, predict, count.

RUN/predictions.csv.gz          one row per test image: index, label, prediction, confidence, and
                                file, where the images have names
RUN/probabilities.safetensors   the probability of each class for each test image
RUN/accuracy.csv                the accuracy table: one row per class and a last row `all`
RUN/evaluation.json             test loss, and with which weights, data and versions

Confidence is the probability that the model assigns to its prediction. Precision, recall and F1 of
the last row are means over the classes (macro averages).

With --settings or --set, it is an error if the run was trained with other settings than these.
"""

import socket
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import torch

import models
from lib.core import checked_settings, code_digests, provenance, records
from lib.core.errors import UserError
from lib.core.layout import RunFiles
from lib.core.run_state import Expected, read_trained
from lib.core.settings import Settings
from lib.data import image_list, prepared, prepared_record, staging
from lib.running import process
from lib.running.run_results import write_evaluation
from lib.training import network
from lib.training.accuracy import accuracy_table
from lib.training.predictions import prediction_table, with_names


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="a run's folder, from train.py")
    add("--data", type=Path, required=True, metavar="FILE", help="the file that it trained on")
    add(
        "--threads",
        type=command_line.at_least(1, 1024),
        default=1,
        help="CPU threads (default: %(default)s)",
    )
    checked_settings.add_arguments(parser)
    args = parser.parse_args()
    given = args.settings or args.set
    expected_settings = checked_settings.from_arguments(args) if given else None

    torch.set_num_threads(args.threads)
    files = RunFiles(args.run)
    record = read_trained(files, verify="all")
    settings = Settings.of(record["settings"])
    name = settings.model["name"]
    models.find(name)  # imported now, so that the code's digest includes it
    code = code_digests.computing_files(models.file_of(name))
    code_sha256, own_code = code_digests.combined_digest(code), code_digests.file_digests(code)
    data = prepared_record.verified(args.data)
    check_origin(files, record, Expected(expected_settings, data.names))
    # As in train.py, now.
    origin = {"slurm": provenance.slurm_job(), **provenance.code_state(own_code)}
    dataset = prepared.load(staging.staged(args.data), settings.fold)
    names = image_list.names_of_test(args.data, settings.fold)
    test_loss, probabilities = network.evaluate(settings, dataset, files.weights)
    predictions = with_names(prediction_table(probabilities, dataset.test_labels), names)
    table = accuracy_table(predictions, dataset.classes)
    overall = table.iloc[-1]
    print(
        f"{args.run}: {overall['correct']} of {overall['total']} test images correct "
        f"({100 * overall['accuracy']:.2f}%), average loss {test_loss:.4f}"
    )
    code_digests.ensure_unchanged(own_code, "evaluation")
    write_evaluation(
        args.run,
        probabilities,
        predictions,
        table,
        {
            "test_loss": test_loss,
            "run_sha256": record[records.SEAL],
            "data_sha256": data.sha256,
            "weights_sha256": record["files"][files.weights.name],
            "threads": torch.get_num_threads(),
            "host": socket.gethostname(),
            **origin,
            "code_sha256": code_sha256,
            "code": own_code,
            "versions": provenance.versions(models.file_of(name)),
            "end": provenance.now(),
            "peak_memory_mb": provenance.peak_memory_mb(),
        },
    )


def check_origin(files: RunFiles, record: dict, expected: Expected) -> None:
    """Check that a run was trained by the code, on the data, and with the settings of now.

    Raises:
        UserError: it was not; the message says in what they differ.
    """
    found = expected.difference(record, files)
    differing = [f"the setting {name}" for name in found.settings]
    differing += [f"the data (the digests of {record['data']} differ)"] if found.data else []
    differing += [f"scripts/{name}" for name in found.code]
    if differing:
        raise UserError(
            f"{files.folder} was trained with other settings, data or code than those of now: "
            f"{', '.join(differing)}. The next start of snakemake trains it again"
        )


if __name__ == "__main__":
    command_line.run(main)
    process.exit_without_teardown()
