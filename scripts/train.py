"""Train one classifier and write its weights, its history and its record into a folder.

It prints the lesson's lines: the training loss as it goes, and after each epoch the average loss
and the accuracy on held-out images (the test set, or the validation split where there is one).

    python scripts/train.py --model CNN --data results/data/MNIST.safetensors --output out/

OUTPUT/model.safetensors   the trained weights
OUTPUT/history.csv         one row an epoch
OUTPUT/run.json            settings, versions, machine, seconds: where the numbers come from
"""

import argparse
import csv
import math
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

import cli
import data
import device as devices
import models
import provenance
from cli import Failure
from data import Split
from files import atomic_path, sha256, write_json
from inference import correct_count, measure
from recipe import LOSSES, loss_function, make_optimizer, make_scheduler, misfit

HISTORY = "epoch,learning_rate,train_loss,split,loss,accuracy,train_seconds,eval_seconds".split(",")


def main() -> None:
    """Run the command line."""
    start, clock = provenance.now(), time.perf_counter()
    settings, args = read_arguments()
    device = devices.choose(settings["device"])
    torch.set_num_threads(args.threads)

    # The order matters: the lesson seeds, reads the data, then makes the model. Every random
    # number comes from torch's global generator, in the lesson's order, so its bits are ours.
    torch.manual_seed(settings["seed"])
    dataset = data.load(args.data)
    training, validation = dataset.train_and_validation(settings["validation_size"])
    held_out = validation or dataset.test_split()
    model = models.build(settings["model"], dataset.image_size, len(dataset.classes))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{settings['model']['name']}: {parameters:,} parameters, on {device}", flush=True)

    history = train(
        model.to(device),
        training.to(device),
        held_out.to(device),
        "validation" if validation else "test",
        loss_function(settings["loss"], len(dataset.classes)),
        settings,
        args.log_interval,
    )

    train_seconds = sum(row["train_seconds"] for row in history)
    record = {
        "settings": settings,
        "parameters": parameters,
        "data": str(args.data),
        "data_sha256": sha256(args.data),
        "classes": dataset.classes,
        "train_size": len(training),
        "validation_size": len(validation or ()),
        **devices.describe(settings["device"], device),
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "slurm": provenance.slurm_job(),
        **provenance.git_state(),
        "code_sha256": provenance.code_digest(),
        "versions": provenance.versions(),
        "command": sys.argv,
        "start": start,
        "end": provenance.now(),
        "seconds": round(time.perf_counter() - clock, 3),
        "train_seconds": train_seconds,
        "images_per_second": len(training) * len(history) / train_seconds,
        "peak_memory_mb": provenance.peak_memory_mb(),
        "resumes": 0,
    }
    write_run(args.output, model, history, record)


def train(
    model: torch.nn.Module,
    training: Split,
    held_out: Split,
    held_out_name: str,
    loss: Callable,
    settings: dict,
    log_interval: int,
) -> list[dict]:
    """Train `model` in place and return its history, one row an epoch.

    Raises:
        Failure: a loss is not finite; the message says at which epoch and step.
    """
    optimizer = make_optimizer(settings["optimizer"], model.parameters())
    scheduler = make_scheduler(settings["scheduler"], optimizer)
    history = []
    for epoch in range(1, settings["epochs"] + 1):
        learning_rate = optimizer.param_groups[0]["lr"]
        clock = time.perf_counter()
        train_loss = train_epoch(
            model,
            training,
            loss,
            optimizer,
            settings,
            Progress(epoch, len(training), settings["batch_size"], log_interval),
        )
        train_seconds = time.perf_counter() - clock

        draw_seed()
        clock = time.perf_counter()
        mean_loss, output = measure(model, held_out, loss, settings["evaluation_batch_size"])
        eval_seconds = time.perf_counter() - clock
        if not math.isfinite(mean_loss):
            raise Failure(
                f"the {held_out_name} loss is {mean_loss} after epoch {epoch}: {DIVERGED}"
            )
        correct = correct_count(output, held_out.labels)
        print(
            f"\n{held_out_name.capitalize()} set: Average loss: {mean_loss:.4f}, "
            f"Accuracy: {correct}/{len(held_out)} ({100 * correct / len(held_out):.2f}%)\n",
            flush=True,
        )
        row = (epoch, learning_rate, train_loss, held_out_name, mean_loss)
        row += (correct / len(held_out), train_seconds, eval_seconds)
        history.append(dict(zip(HISTORY, row, strict=True)))
        if scheduler:
            scheduler.step()
    return history


DIVERGED = "training has diverged; a smaller learning rate (optimizer: lr) is the usual cure"


def train_epoch(
    model: torch.nn.Module,
    training: Split,
    loss: Callable,
    optimizer: torch.optim.Optimizer,
    settings: dict,
    report: "Progress",
) -> float:
    """Train one epoch and return the mean of the training losses over its images."""
    model.train()
    batches = list(epoch_batches(len(training), settings["batch_size"], settings["shuffle"]))
    # Losses stay on the device until they are reported: to read one waits for the GPU.
    losses = torch.zeros(len(batches), device=training.images.device)
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        batch_loss = loss(model(training.images[batch]), training.labels[batch])
        batch_loss.backward()
        optimizer.step()
        losses[step] = batch_loss.detach()
        report(step, losses)
    sizes = torch.full((len(batches),), settings["batch_size"], dtype=torch.float64)
    sizes[-1] = len(training) - settings["batch_size"] * (len(batches) - 1)
    return float((losses.cpu().to(torch.float64) * sizes).sum() / len(training))


def epoch_batches(size: int, batch_size: int, shuffle: bool) -> Iterator[slice | torch.Tensor]:
    """Yield what selects each batch of an epoch: a slice, or the indices of a shuffled order.

    It draws from torch's global generator what a `torch.utils.data.DataLoader` draws (2.14:
    `_BaseDataLoaderIter` a seed for its workers, `RandomSampler` one for its order), so that the
    batches and the dropout masks are those of a DataLoader with the same `shuffle`.
    """
    draw_seed()
    order = None
    if shuffle:
        order = torch.randperm(size, generator=torch.Generator().manual_seed(draw_seed()))
    for start in range(0, size, batch_size):
        batch = slice(start, start + batch_size)
        yield batch if order is None else order[batch]


def draw_seed() -> int:
    """Draw a seed from torch's global generator, as making a DataLoader's iterator does."""
    return int(torch.empty((), dtype=torch.int64).random_().item())


class Progress:
    """Tell how an epoch goes: a bar on a terminal, in a log file a line now and then.

    Every `log_interval` steps it also looks whether the losses since are finite.
    """

    def __init__(self, epoch: int, images: int, batch_size: int, log_interval: int):
        self.epoch, self.images = epoch, images
        self.batch_size, self.log_interval = batch_size, log_interval
        self.bar = tqdm(
            total=images, desc=f"epoch {epoch}", unit="image", leave=False, disable=None
        )

    def __call__(self, step: int, losses: torch.Tensor) -> None:
        """Tell of a step, counted from 0; `losses` [steps] holds those up to it."""
        seen = step * self.batch_size
        self.bar.update(min(self.batch_size, self.images - seen))
        last = step == len(losses) - 1
        if last:
            self.bar.close()
        if last or step % self.log_interval == 0:
            check_finite(losses[: step + 1], self.epoch)
        if step % self.log_interval == 0:
            percent = 100 * step / len(losses)
            self.bar.write(
                f"Train Epoch: {self.epoch} [{seen}/{self.images} ({percent:.0f}%)]"
                f"\tLoss: {losses[step].item():.6f}"
            )
            sys.stdout.flush()


def check_finite(losses: torch.Tensor, epoch: int) -> None:
    """Raise a Failure that names the first step of the epoch whose loss is not finite."""
    wrong = torch.nonzero(~torch.isfinite(losses)).flatten()
    if len(wrong):
        step = int(wrong[0])
        value = losses[step].item()
        raise Failure(f"the training loss is {value} at epoch {epoch}, step {step + 1}: {DIVERGED}")


def write_run(folder: Path, model: torch.nn.Module, history: list[dict], record: dict) -> None:
    """Write the files of a run, `run.json` last: where it stands, the others do."""
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file({name: value.cpu() for name, value in model.state_dict().items()}, temporary)
    with atomic_path(folder / "history.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    write_json(folder / "run.json", record)


def read_arguments() -> tuple[dict, argparse.Namespace]:
    """Return the settings, which decide the result, and the other arguments, which do not."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="a .safetensors from prepare.py")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the run's files")
    named = {"nargs": "+", "metavar": ("NAME", "KEY=VALUE")}
    add(
        "--model",
        required=True,
        **named,
        help="a class in scripts/models and its arguments, such as MLP hidden=64 activation=tanh",
    )
    add("--seed", type=cli.at_least(0), default=1, help="of all random numbers (default: 1)")
    positive = cli.at_least(1)
    add("--epochs", type=positive, default=3, help="passes over the training set (default: 3)")
    add("--batch-size", type=positive, default=64, help="images a step (default: 64)")
    add(
        "--evaluation-batch-size",
        type=positive,
        default=1000,
        help="images at once when evaluating (default: 1000)",
    )
    add("--shuffle", action="store_true", help="a new order each epoch (default: as in the file)")
    add(
        "--optimizer",
        default=["Adadelta", "lr=1.0"],
        **named,
        help="a class in torch.optim and its arguments (default: Adadelta lr=1.0)",
    )
    add(
        "--scheduler",
        default=["StepLR", "step_size=1", "gamma=0.7"],
        **named,
        help="a class in torch.optim.lr_scheduler and its arguments, stepped once an epoch, or "
        "'none' (default: StepLR step_size=1 gamma=0.7)",
    )
    add(
        "--loss",
        choices=LOSSES,
        default="nll_loss",
        help="a function in torch.nn.functional that fits the model's output (default: nll_loss)",
    )
    add(
        "--validation-size",
        type=cli.at_least(0),
        default=0,
        help="training images held out, the same for every run, and measured after each epoch "
        "instead of the test set (default: 0)",
    )
    add(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="cpu",
        help="cuda fails where there is no GPU, auto falls back to the CPU (default: cpu)",
    )
    add("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    add("--log-interval", type=positive, default=100, help="steps between lines (default: 100)")
    args = parser.parse_args()

    model = cli.name_and_arguments(args.model)
    scheduler = None if args.scheduler == ["none"] else cli.name_and_arguments(args.scheduler)
    settings = {
        "model": model,
        "seed": args.seed,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "evaluation_batch_size": args.evaluation_batch_size,
        "shuffle": args.shuffle,
        "optimizer": cli.name_and_arguments(args.optimizer),
        "scheduler": scheduler,
        "loss": args.loss,
        "validation_size": args.validation_size,
        "device": args.device,
    }
    if model["name"] in models.available():
        output = models.output_of(model)
        problem = misfit(args.loss, output) if output else None
        if problem:
            raise Failure(problem)
    return settings, args


if __name__ == "__main__":
    cli.run(main)
