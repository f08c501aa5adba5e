"""What the benchmark measures inside a process of its own: it prints one line of JSON.

python tests/bench/in_process.py phases ours cnn --threads 1 ...   seconds a step, by phase
python tests/bench/in_process.py floor                             what the processor can do
python tests/bench/in_process.py replay ours cnn --data FILE       what the GPU can do
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

import lesson  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import models  # noqa: E402
from lib.core.settings import Settings  # noqa: E402
from lib.data import prepared  # noqa: E402
from lib.running import process  # noqa: E402
from lib.training import device as devices  # noqa: E402
from lib.training import graph as graphs  # noqa: E402
from lib.training.loop import train_step as train_step_of  # noqa: E402
from lib.training.recipe import TrainingLoss  # noqa: E402
from lib.training.state import Training  # noqa: E402

PHASES = ("data", "forward", "backward", "optimizer")
BATCH_SIZE, WARM_UP = 64, 10
MATRIX = 2048


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("phases", "floor", "replay"))
    parser.add_argument("whose", nargs="?", choices=("plain", "ours"))
    parser.add_argument("network", nargs="?", choices=("mlp", "cnn"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--root", help="the folder with MNIST as torchvision has it")
    parser.add_argument("--data", type=Path, help="the prepared data set")
    parser.add_argument("--without", choices=("allocator", "in-place", "layout"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    print(json.dumps({"phases": phases, "floor": floor, "replay": replay}[args.what](args)))


def replay(args) -> dict:
    """Return the seconds that the GPU takes for an epoch's full batches, as nothing but replays."""
    device = devices.choose("cuda")
    model, dataset = ours(args)
    training_set = dataset.train_and_validation(0)[0].to(device)
    model.to(device).train()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    settings = Settings(batch_size=BATCH_SIZE)
    assert graphs.allowed(model, optimizer, settings)
    loss = TrainingLoss(settings.loss, len(dataset.classes), training_set.labels)
    training = Training(model, optimizer, None)
    step = partial(train_step_of, training, training_set, loss, settings)
    graph = graphs.StepGraph(step, training_set, BATCH_SIZE)
    step([slice(BATCH_SIZE)])
    graph.warm = True
    graph.start_epoch(None, torch.zeros(graph.full_batches, device=device))
    seconds = []
    for _ in range(7):
        graph.number.zero_()
        if not seconds:
            graph.replay(0)
            graph.number.zero_()
        torch.cuda.synchronize()
        clock = time.perf_counter()
        for _ in range(graph.full_batches):
            graph.graph.replay()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - clock)
    return {"epoch_seconds": statistics.median(seconds)}


def phases(args) -> dict:
    """Return the median milliseconds of a training step's phases, and of an evaluation batch."""
    if args.whose == "plain":
        model = {"mlp": lesson.Perceptron, "cnn": lesson.Convolutional}[args.network]()
        train_set, test_set = lesson.read(args.root)
        batches = iter(DataLoader(train_set, batch_size=BATCH_SIZE))
        test_batches = iter(DataLoader(test_set, batch_size=1000))
    else:
        model, dataset = ours(args)
        train_set, test_set = dataset.train_and_validation(0)[0], dataset.test_split()
        batches = slices(train_set, BATCH_SIZE)
        test_batches = slices(test_set, 1000)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    steps = [train_step(model, optimizer, batches) for _ in range(WARM_UP + args.steps)]
    times = dict(zip(PHASES, zip(*steps[WARM_UP:], strict=True), strict=True))
    times["evaluation"] = [evaluation_step(model, test_batches) for _ in range(5)][1:]
    return {phase: 1000 * statistics.median(values) for phase, values in times.items()}


def ours(args):
    """Return our model and data set, prepared as scripts/train.py does, except for one trick."""
    if args.without != "allocator":
        process.keep_freed_memory()
    dataset = prepared.load(args.data)
    model = models.build({"name": args.network.upper()}, dataset.input_shape, len(dataset.classes))
    if args.without == "in-place":
        model.activation.inplace = False
    if args.without == "layout":
        model.activation = InPlaceReLU()  # which the model does not know
    return model, dataset


class InPlaceReLU(torch.nn.Module):
    """ReLU by another name."""

    def forward(self, x):
        return x.relu_()


def slices(split, size):
    """Yield batches as scripts/train.py takes them."""
    for start in range(0, len(split), size):
        batch = slice(start, start + size)
        yield split.batch(batch), split.labels[batch]


def train_step(model, optimizer, batches) -> list[float]:
    """Do one step of training; return the seconds of its phases."""
    clock = [time.perf_counter()]
    images, labels = next(batches)
    clock.append(time.perf_counter())
    optimizer.zero_grad()
    loss = F.nll_loss(model(images), labels)
    clock.append(time.perf_counter())
    loss.backward()
    clock.append(time.perf_counter())
    optimizer.step()
    clock.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(clock)]


@torch.no_grad()
def evaluation_step(model, batches) -> float:
    """Measure one batch of the test set; return its seconds."""
    clock = time.perf_counter()
    images, labels = next(batches)
    model.eval()
    F.nll_loss(model(images), labels, reduction="sum").item()
    return time.perf_counter() - clock


def floor(args) -> dict:
    """Return the matrix-product rate, the CNN's work, and the bare MLP step.

    `gflops`: fp32 matrix product, 1e9 operations a second, the best of some. `step_gflop`: 1e9
    operations of the CNN's forward and backward pass on one batch. `bare_step_ms`: the MLP's
    forward, backward and optimizer step on one batch in memory, median.
    """
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    rates = []
    for _ in range(15):
        clock = time.perf_counter()
        a @ b
        rates.append(2 * MATRIX**3 / (time.perf_counter() - clock) / 1e9)
    images, labels = torch.randn(BATCH_SIZE, 1, 28, 28), torch.zeros(BATCH_SIZE, dtype=torch.int64)
    cnn = lesson.Convolutional()
    with FlopCounterMode(display=False) as counter:
        F.nll_loss(cnn(images), labels).backward()
    mlp = lesson.Perceptron()
    optimizer = torch.optim.Adadelta(mlp.parameters(), lr=1.0)
    same = iter(lambda: (images, labels), None)
    steps = [sum(train_step(mlp, optimizer, same)) for _ in range(1000)]
    return {
        "gflops": max(rates),
        "step_gflop": counter.get_total_flops() / 1e9,
        "bare_step_ms": 1000 * statistics.median(steps),
    }


if __name__ == "__main__":
    main()
