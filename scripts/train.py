"""Train one classifier and write its weights, its history and its record into a folder.

It prints the lesson's lines: the training loss every so many steps, and after each epoch the
average loss and the accuracy on held-out images (the test set, or the validation split if there is
one).

    python scripts/train.py --data results/data/MNIST.safetensors --set model.name=CNN --output out/

OUTPUT/model.safetensors        the trained weights
OUTPUT/history.csv              one row per epoch; with keep=best, with the metric
OUTPUT/run.json                 settings, versions, machine, seconds: where the numbers come from
OUTPUT/validation.safetensors   probabilities and labels of the validation images, if there are any
OUTPUT/progress.json            how far the training is

On SIGTERM or Ctrl-C it saves a checkpoint into OUTPUT and ends; the same command resumes from
there, with the same bits as if nothing had happened. Checkpoints are also saved after each epoch,
and every few minutes in long ones. The last one stays (the workflow removes it once the run is
evaluated): the same command, given again, then ends at once.

A run that is complete is left as it is. The results of another training in OUTPUT, with other
settings, data or code, are replaced when this one is complete, and not before.
"""

import argparse
import socket
import sys
import time
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import torch

import models
from lib.core import checked_settings, code_digests, provenance
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.layout import RunFiles
from lib.core.metric import ACCURACY, Metric
from lib.core.run_state import Expected, run_state
from lib.core.settings import Settings
from lib.data import prepared, prepared_record, staging
from lib.running import process
from lib.running.dry_step import dry_step
from lib.running.lease import Lease
from lib.running.progress import Progress
from lib.running.run_results import RunResults
from lib.training import device as devices
from lib.training import network
from lib.training.checkpoint import Checkpoints, Stopped
from lib.training.state import Diverged

COMPLETE = (
    "trained with these settings, this data and this code. To train it again all the same, remove "
    "the folder"
)
TRIED_AGAIN = "it is tried again once the config, the data, or the code has changed"


def main() -> None:
    """Run the command line: one writer at a time, and no second try of what always fails."""
    process.prepare()
    settings, args = read_arguments()
    device = devices.choose(settings.device)
    name = settings.model["name"]
    models.find(name)  # imported now, so that the code's digest includes it
    code = code_digests.computing_files(models.file_of(name))
    data = prepared_record.verified(args.data)
    identity = {
        "settings": settings.as_dict(),
        "data_sha256": data.sha256,
        "code_sha256": code_digests.combined_digest(code),
    }
    # Git is asked now: the commit may be another one in the end. And while a large process starts a
    # program, Slurm may count its memory twice.
    own_code = code_digests.file_digests(code)
    origin = {
        "dataset": data.dataset,
        "form": data.form,
        "code": own_code,
        "versions": provenance.versions(models.file_of(name), settings.packages),
        **provenance.code_state(own_code),
    }
    files = RunFiles(args.output)
    results = RunResults(files, identity)
    with Lease(args.output) as lease:
        expected = Expected(settings, data.names, versions=args.strict_versions)
        state = run_state(files, expected, verify="all")
        if "train" in state.done:
            how = "the other process has finished it" if lease.had_to_wait else COMPLETE
            print(f"{args.output} is complete: {how}")
            return
        if state.failure:
            raise UserError(f"{state.failure} (known from {files.failure}; {TRIED_AGAIN})")
        files.failure.unlink(missing_ok=True)
        interval = 60 * args.checkpoint_minutes
        same = results.identity
        if args.strict_versions:  # then a training is of one version from its begin to its end
            same = same | {"versions": provenance.computing(origin["versions"])}
        checkpoints = Checkpoints(files.checkpoint, same, interval, lease.ensure_held)
        checkpoints.install_signal_handlers()
        try:
            with devices.errors_of_the_gpu():
                train_and_write(settings, args, device, results, checkpoints, origin)
        except Diverged as error:
            lease.ensure_held()
            Failure(settings.as_dict(), data.sha256, own_code, str(error)).write(files.failure)
            files.progress.unlink(missing_ok=True)
            raise
        except Stopped as stopped:
            print(f"{stopped}; the same command resumes from there", file=sys.stderr, flush=True)
            sys.exit(128 + checkpoints.signal)


def train_and_write(
    settings: Settings,
    args: argparse.Namespace,
    device: torch.device,
    results: RunResults,
    checkpoints: Checkpoints,
    origin: dict,
) -> None:
    """Train, and write the run's files; `origin` says of which data set and code they are."""
    start, clock = provenance.now(), time.perf_counter()
    torch.set_num_threads(args.threads)

    dataset = prepared.load(staging.staged(args.data), settings.fold)
    training_set, held_out = network.splits(dataset, settings)
    classes, (channels, *image_size) = dataset.classes, dataset.input_shape
    facts = {
        "classes": classes,
        "channels": channels,
        "image_size": image_size,
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
    }
    test_sizes = (len(held_out), len(dataset.test_labels))
    dry_step(settings, dataset.input_shape, len(classes), len(training_set), test_sizes, device)
    del dataset  # what was copied is not needed any more
    training_set, held_out = training_set.to(device), held_out.to(device)
    progress = Progress(
        settings, len(training_set), len(held_out), args.log_interval, results.files.progress
    )
    trained = network.train(
        settings, training_set, held_out, classes, device, checkpoints, progress,
        args.keep_diverged,
    )  # fmt: skip
    if trained.diverged:
        print(f"{trained.diverged} (--keep-diverged: its results are written)")
    training = trained.training
    best = training.best and {
        "epoch": training.best.epoch,
        "metric": settings.metric or ACCURACY.name,
        "value": training.best.value,
    }
    if best:
        metric = Metric(best["metric"])
        print(
            f"kept: the weights of epoch {best['epoch']} of {len(training.history)}, the best on "
            f"the validation images ({metric.words} {metric.text(best['value'])})"
        )
    train_seconds = sum(row["train_seconds"] for row in training.history)
    record = {
        **results.identity,
        "settings": settings.as_dict(),
        "parameters": trained.parameters,
        "data": str(args.data),
        **origin,
        **facts,
        "train_size": len(training_set),
        "validation_size": len(held_out) if held_out.name == "validation" else 0,
        **devices.describe(settings.device, device, training.cuda_graph),
        "threads": torch.get_num_threads(),
        "processor": provenance.processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "variables": provenance.variables(),
        "host": socket.gethostname(),
        "slurm": provenance.slurm_job(),
        "command": ["scripts/train.py", *sys.argv[1:]],
        "start": start,
        "end": provenance.now(),
        "seconds": round(time.perf_counter() - clock, 3),
        "train_seconds": train_seconds,
        "images_per_second": len(training_set) * len(training.history) / (train_seconds or 1),
        "peak_memory_mb": provenance.peak_memory_mb(),
        "resumes": training.resumes,
        "order_seeds": training.order_seeds,
        "fingerprint": training.fingerprint,
        "best": best,
        "diverged": trained.diverged,
    }
    checkpoints.ensure_held()
    code_digests.ensure_unchanged(origin["code"], "training")
    validation = None
    if trained.probabilities is not None:
        validation = {"probabilities": trained.probabilities, "labels": held_out.labels.cpu()}
    results.write(training.network, training.history, record, validation)


def read_arguments() -> tuple[Settings, argparse.Namespace]:
    """Return the settings, which decide the result, and the other arguments, which do not."""
    parser = command_line.parser(__doc__)
    checked_settings.add_arguments(parser)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="a .safetensors from prepare.py")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the run's files")
    add(
        "--threads",
        type=command_line.at_least(1, 1024),
        default=1,
        help="CPU threads (default: %(default)s)",
    )
    add(
        "--keep-diverged",
        action="store_true",
        help="write the results of a training that diverges, too, for a search, in which others "
        "are better (default: it is an error)",
    )
    add(
        "--strict-versions",
        action="store_true",
        help="train again what another version of torch, or of another package that computes, has "
        "trained (default: it counts)",
    )
    add(
        "--log-interval",
        type=command_line.at_least(1),
        default=100,
        help="steps between lines of the log (default: %(default)s)",
    )
    add(
        "--checkpoint-minutes",
        type=command_line.duration,
        default=5,
        metavar="MINUTES",
        help="in an epoch longer than this, how often to save a checkpoint (default: %(default)s)",
    )
    args = parser.parse_args()
    return checked_settings.from_arguments(args), args


if __name__ == "__main__":
    command_line.run(main)
    process.exit_without_teardown()
