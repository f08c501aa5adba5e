"""Train one classifier and write its weights, its history and its record into a folder.

It prints the lesson's lines: the training loss as it goes, and after each epoch the average loss
and the accuracy on held-out images (the test set, or the validation split where there is one).

    python scripts/train.py --model CNN --data results/data/MNIST.safetensors --output out/

OUTPUT/model.safetensors   the trained weights
OUTPUT/history.csv         one row an epoch
OUTPUT/run.json            settings, versions, machine, seconds: where the numbers come from

On SIGTERM or Ctrl-C it saves a checkpoint into OUTPUT and ends; the same command goes on from
there, with the same bits as if nothing had happened. Checkpoints are also saved after each epoch,
and in long ones every few minutes. The last one stays (the workflow removes it once the run is
evaluated): from there the same command, given again, ends at once.
"""

import argparse
import math
import socket
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

import cli
import data
import device as devices
import light_dynamo
import models
import provenance
from allocator import keep_freed_memory
from checkpoint import Checkpoints, Stopped
from cli import Failure
from data import Split
from inference import correct_count, measure
from lease import Lease
from progress import Diverged, Progress
from recipe import LOSSES, loss_function, make_optimizer, make_scheduler, misfit
from run_folder import HISTORY, RunFolder


def main() -> None:
    """Run the command line: one writer at a time, and nothing that has failed for good again."""
    light_dynamo.install()
    keep_freed_memory()
    settings, args = read_arguments()
    device = devices.choose(settings["device"])
    models.find(settings["model"]["name"])  # imported now, so that the code's digest knows it
    identity = {
        "settings": settings,
        "data_sha256": data.digest(args.data),
        "code_sha256": provenance.code_digest(),
    }
    folder = RunFolder(args.output, identity)
    with Lease(args.output) as lease:
        if lease.waited and folder.is_complete():
            print(f"{args.output} is complete: the other process has finished it")
            return
        folder.refuse_known_failure()
        checkpoints = Checkpoints(args.output, identity, 60 * args.checkpoint_minutes, lease.check)
        checkpoints.listen()
        try:
            run_training(settings, args, device, folder, checkpoints)
        except Diverged as failure:
            lease.check()
            folder.remember_failure(str(failure))
            raise
        except Stopped as stopped:
            print(f"{stopped}; the same command goes on from there", file=sys.stderr, flush=True)
            sys.exit(128 + checkpoints.signal)


def run_training(
    settings: dict,
    args: argparse.Namespace,
    device: torch.device,
    folder: RunFolder,
    checkpoints: Checkpoints,
) -> None:
    """Train, and write the run's files."""
    start, clock, code = provenance.now(), time.perf_counter(), provenance.code_digests()
    torch.set_num_threads(args.threads)

    # The order matters: the lesson seeds, reads the data, then makes the model. Every random
    # number comes from torch's global generator, in the lesson's order, so its bits are ours.
    torch.manual_seed(settings["seed"])
    dataset = data.load(args.data)
    training_set, validation = dataset.train_and_validation(settings["validation_size"])
    held_out = validation or dataset.test_split()
    classes, image_size = dataset.classes, dataset.image_size
    facts = {"classes": classes, "image_size": image_size, "mean": dataset.mean, "std": dataset.std}
    del dataset  # the raw images are not needed any more
    model = models.build(settings["model"], image_size, len(classes))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{settings['model']['name']}: {parameters:,} parameters, on {device}", flush=True)

    run = train(
        model.to(device),
        training_set.to(device),
        held_out.to(device),
        "validation" if validation else "test",
        loss_function(settings["loss"], len(classes)),
        settings,
        checkpoints,
        args.log_interval,
    )

    train_seconds = sum(row["train_seconds"] for row in run.history)
    record = {
        **folder.identity,
        "parameters": parameters,
        "data": str(args.data),
        "code": code,  # as it was at the start, when it was read
        **facts,
        "train_size": len(training_set),
        "validation_size": len(validation or ()),
        **devices.describe(settings["device"], device),
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "slurm": provenance.slurm_job(),
        **provenance.git_state(),
        "versions": provenance.versions(),
        "command": sys.argv,
        "start": start,
        "end": provenance.now(),
        "seconds": round(time.perf_counter() - clock, 3),
        "train_seconds": train_seconds,
        "images_per_second": len(training_set) * len(run.history) / train_seconds,
        "peak_memory_mb": provenance.peak_memory_mb(),
        "resumes": run.resumes,
    }
    checkpoints.check_writer()
    folder.write(model, run.history, record)


@dataclass
class Training:
    """A training and where it stands: all that a checkpoint must hold."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    history: list[dict] = field(default_factory=list)
    epoch: int = 1
    step: int = 0  # steps done in this epoch
    order_seed: int | None = None  # of this epoch's shuffled order
    losses: torch.Tensor | None = None  # [steps] of this epoch
    seconds: float = 0.0  # spent on this epoch's steps
    resumes: int = 0

    PLAIN = ("history", "epoch", "step", "order_seed", "losses", "seconds", "resumes")

    def state(self) -> dict:
        """Return the state, from which training goes on with the same bits."""
        cuda = torch.cuda.is_available()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if cuda else [],
            "plain": {name: getattr(self, name) for name in self.PLAIN},
        }

    def restore(self, state: dict) -> None:
        """Go back to a state, and count that we did."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        for name, value in state["plain"].items():
            setattr(self, name, value)
        # If the epoch's last step was saved, torch takes the scheduler's next one for a mistake.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        self.resumes += 1


def train(
    model: torch.nn.Module,
    training_set: Split,
    held_out: Split,
    held_out_name: str,
    loss: Callable,
    settings: dict,
    checkpoints: Checkpoints,
    log_interval: int = 100,
) -> Training:
    """Train `model` in place, from its checkpoint if there is one.

    Raises:
        Failure: a loss is not finite; the message says at which epoch and step.
        Stopped: a signal asked for it; the checkpoint is saved.
    """
    optimizer = make_optimizer(settings["optimizer"], model.parameters())
    run = Training(model, optimizer, make_scheduler(settings["scheduler"], optimizer))
    saved = checkpoints.load()
    if saved:
        run.restore(saved)
        print(f"resuming at epoch {run.epoch}, after {run.step} steps", flush=True)
    while run.epoch <= settings["epochs"]:
        learning_rate = optimizer.param_groups[0]["lr"]
        train_loss = train_epoch(run, training_set, loss, settings, checkpoints, log_interval)

        draw_seed()
        clock = time.perf_counter()
        mean_loss, output = measure(model, held_out, loss, settings["evaluation_batch_size"])
        eval_seconds = time.perf_counter() - clock
        if not math.isfinite(mean_loss):
            raise Diverged(f"the {held_out_name} loss is {mean_loss} after epoch {run.epoch}")
        correct = correct_count(output, held_out.labels)
        print(
            f"\n{held_out_name.capitalize()} set: Average loss: {mean_loss:.4f}, "
            f"Accuracy: {correct}/{len(held_out)} ({100 * correct / len(held_out):.2f}%)\n",
            flush=True,
        )
        row = (run.epoch, learning_rate, train_loss, held_out_name, mean_loss)
        row += (correct / len(held_out), run.seconds, eval_seconds)
        run.history.append(dict(zip(HISTORY, row, strict=True)))
        if run.scheduler:
            run.scheduler.step()
        run.epoch, run.step = run.epoch + 1, 0
        checkpoints.save(run.state())
    return run


def train_epoch(
    run: Training,
    training_set: Split,
    loss: Callable,
    settings: dict,
    checkpoints: Checkpoints,
    log_interval: int,
) -> float:
    """Train one epoch, or what is left of it; return the mean training loss over its images."""
    images, labels = training_set.images, training_set.labels
    size, batch_size = len(training_set), settings["batch_size"]
    if run.step == 0:
        begin_epoch(run, math.ceil(size / batch_size), settings["shuffle"])
    # Losses stay on the device until they are reported: to read one waits for the GPU.
    run.losses = run.losses.to(images.device)
    report = Progress(run, size, batch_size, log_interval)
    clock = time.perf_counter() - run.seconds
    run.model.train()
    for batch in epoch_batches(size, batch_size, run.order_seed)[run.step :]:
        run.optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, settings["precision"] == "bf16"):
            output = run.model(images[batch])
        batch_loss = loss(output.float(), labels[batch])
        batch_loss.backward()
        run.optimizer.step()
        run.losses[run.step] = batch_loss.detach()
        run.step += 1
        report()
        if checkpoints.due:
            run.seconds = time.perf_counter() - clock
            checkpoints.save(run.state())
    run.seconds = time.perf_counter() - clock
    sizes = torch.full((run.step,), batch_size, dtype=torch.float64)
    sizes[-1] = size - batch_size * (run.step - 1)
    return float((run.losses.cpu().to(torch.float64) * sizes).sum() / size)


def begin_epoch(run: Training, steps: int, shuffle: bool) -> None:
    """Draw from torch's global generator what a `torch.utils.data.DataLoader` draws.

    In torch 2.14, `_BaseDataLoaderIter` draws a seed for its workers and `RandomSampler` one for
    its order. So the batches and the dropout masks are those of a DataLoader of the same `shuffle`.
    """
    draw_seed()
    run.order_seed = draw_seed() if shuffle else None
    run.losses, run.seconds = torch.zeros(steps), 0.0


def epoch_batches(size: int, batch_size: int, order_seed: int | None) -> list:
    """Return what selects each batch of an epoch: slices, or the indices of a shuffled order."""
    batches = [slice(start, start + batch_size) for start in range(0, size, batch_size)]
    if order_seed is None:
        return batches
    order = torch.randperm(size, generator=torch.Generator().manual_seed(order_seed))
    return [order[batch] for batch in batches]


def draw_seed() -> int:
    """Draw a seed from torch's global generator, as making a DataLoader's iterator does."""
    return int(torch.empty((), dtype=torch.int64).random_().item())


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
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="bf16: forward and backward pass by torch.autocast, which changes the numbers "
        "(default: fp32)",
    )
    add(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="cpu",
        help="cuda fails where there is no GPU, auto falls back to the CPU (default: cpu)",
    )
    add("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    add("--log-interval", type=positive, default=100, help="steps between lines (default: 100)")
    add(
        "--checkpoint-minutes",
        type=float,
        default=5,
        metavar="MINUTES",
        help="in an epoch longer than this, save a checkpoint so often (default: 5)",
    )
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
        "precision": args.precision,
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
    cli.leave()
