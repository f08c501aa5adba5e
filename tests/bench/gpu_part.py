"""The benchmark's part on a GPU: the networks, the CUDA graph's floor, packed runs, bf16."""

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import ROOT, run_job
from measure import DATA_DIR, PREPARED, history_of, in_process, measured, rows_of

from lib.core.plain import PLAIN

SEEDS = 8
WANTED = {"mlp": (20, 5), "cnn": (10, 3)}  # times faster: with the DataLoader, without it


def run(table, quick: bool) -> None:
    """Measure all of it."""
    for network in ("mlp", "cnn"):
        against_the_lesson(table, network, 1 if quick else 3)
        floor(table, network)
    packed(table)
    for network in ("mlp", "cnn"):
        without(table, network)
        if not quick:
            bf16(table, network)


def lesson(network: str, folder: Path, *options) -> tuple[float, list[dict]]:
    """Run the plain script on the GPU; return the seconds, and what it measured of each epoch."""
    command = ("tests/lesson.py", network, "--root", DATA_DIR, "--output", folder / "weights")
    used = measured(sys.executable, *command, "--device", "cuda", *options)
    lines = used.output.splitlines()  # with the warnings of torch, if any
    return used.wall, [json.loads(line) for line in lines if line.startswith("{")]


def ours(network: str, folder: Path, *settings, **environment) -> tuple[float, list[dict], dict]:
    """Run scripts/train.py on the GPU with some settings; return seconds, history and record."""
    used = measured(*train(network, folder, *settings), **environment)
    return used.wall, history_of(folder), json.loads((folder / "run.json").read_text())


def train(network: str, folder: Path, *settings) -> list:
    """Return the command that trains a network on the GPU with some settings."""
    options = ("--data", PREPARED, "--output", folder, "--set", "device=cuda")
    command = [sys.executable, "scripts/train.py", *options]
    return [*command, f"model.name={network.upper()}", *settings]


def epoch(rows: list[dict], *columns: str) -> float:
    """Return the median seconds of an epoch after the first, in which libraries get ready."""
    return statistics.median(sum(float(row[column]) for column in columns) for row in rows[1:])


def against_the_lesson(table, network: str, pairs: int) -> None:
    """Compare with the plain script: as it is, and with its batches on the GPU from the start."""
    columns = {"train": ["train_seconds"], "train and test": ["train_seconds", "eval_seconds"]}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        with_loader = lesson(network, Path(folder), "--epochs", 3)
        short = ours(network, Path(folder, "short"), "epochs=3")[0]
        for pair in range(pairs):
            preloaded = lesson(network, Path(folder), "--epochs", 4, "--preload")
            mine = ours(network, Path(folder, f"long{pair}"), "epochs=4")
            found.append((preloaded[1], mine[1:]))
    add = table.pairs
    with_target, without_target = (f">= {times}" for times in WANTED[network])
    for what, names in columns.items():
        mine = [epoch(rows, *names) for _, (rows, _) in found]
        theirs = [epoch(rows, *names) for rows, _ in found]
        loader = [epoch(with_loader[1], *names)]
        middle = [statistics.median(mine)]
        add("gpu", network, f"an epoch, {what}", "s", loader, middle, with_target)
        what = f"an epoch, {what}, batches on the GPU"
        add("gpu", network, what, "s", theirs, mine, without_target)
    add("gpu", network, "whole process, 3 epochs", "s", [with_loader[0]], [short])
    record = found[-1][1][1]
    seconds = statistics.median(epoch(rows, "train_seconds") for _, (rows, _) in found)
    table.single("gpu", network, "images", "1/s", record["train_size"] / seconds)
    table.single("gpu", network, "memory of the GPU", "MB", record["gpu_peak_memory_mb"])


def floor(table, network: str) -> None:
    """Set a long training against the bare replay of its graph; sample how busy the GPU is."""
    bare = in_process("replay", "ours", network, "--data", PREPARED)["epoch_seconds"]
    table.single("gpu", network, "bare replay of an epoch's full batches", "s", bare)
    with tempfile.TemporaryDirectory() as folder:
        epochs = 30 if network == "mlp" else 8
        command = [str(word) for word in train(network, Path(folder), f"epochs={epochs}")]
        training = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for line in training.stdout:
            if line.startswith("Train Epoch: 2 "):
                break
        query = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100")
        watch = subprocess.Popen(["nvidia-smi", *query], stdout=subprocess.PIPE, text=True)
        training.stdout.read()
        watch.terminate()
        if training.wait():
            sys.exit(f"failed: {' '.join(command)}")
        seconds = epoch(history_of(folder), "train_seconds")
        samples = [int(word) for word in watch.communicate()[0].split() if word.isdigit()]
    share = bare / seconds
    table.single("gpu", network, "share of an epoch that is bare replay", "", share, ">= 0.9")
    # The first sample looks back at the start, the last ones at the end of the process.
    middle = samples[len(samples) // 4 : -len(samples) // 4] or samples
    table.single("gpu", network, "GPU busy", "%", float(statistics.median(middle)))


def without(table, network: str) -> None:
    """Measure what the graph gains by leaving it out, and then what bf16 gains."""
    variants = {
        "plain": ((), {PLAIN: "1"}),
        "ours": ((), {}),
        "bf16": (("precision=bf16",), {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        plain, mine, half = (
            [epoch(ours(network, Path(folder, name), "epochs=4", *settings, **environment)[1],
                   "train_seconds")]
            for name, (settings, environment) in variants.items()
        )  # fmt: skip
    table.pairs("gpu", network, "an epoch, train, without and with the graph", "s", plain, mine)
    table.pairs("gpu", network, "an epoch, train, fp32 and bf16", "s", mine, half)


def packed(table) -> None:
    """Train eight seeds of the MLP in jobs of their own, one after the other, and in one job."""
    with tempfile.TemporaryDirectory() as folder:
        clock = time.perf_counter()
        for seed in range(SEEDS):
            measured(*train("mlp", Path(folder, str(seed)), f"seed={seed}"))
        in_turn = time.perf_counter() - clock
    at_once, _ = in_one_job(SEEDS, 3, "--share-gpu")
    what = f"{SEEDS} seeds, in turn or in one job"
    table.pairs("gpu", "mlp", what, "s", [in_turn], [at_once], ">= 3")
    alone = in_one_job(1, 10)[1]
    table.single("gpu", "mlp", "an epoch of a run alone", "s", alone)
    for what, options in (("in turns", ()), ("with MPS, if it is there", ("--share-gpu",))):
        each = in_one_job(SEEDS, 10, *options)[1]
        table.single("gpu", "mlp", f"an epoch of each of {SEEDS} at once, {what}", "s", each)


def in_one_job(seeds: int, epochs: int, *options) -> tuple[float, float]:
    """Train some seeds of the MLP at once; return seconds: of all, and of an epoch of the first."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for seed in range(seeds):
            words = train("mlp", Path(folder, str(seed)), f"seed={seed}", f"epochs={epochs}")
            runs[str(seed)] = shlex.join(["python", *map(str, words[1:])])
        clock = time.perf_counter()
        done = run_job(runs, "--at-once", seeds, *options)
        seconds = time.perf_counter() - clock
        if done.returncode:
            sys.exit(done.stdout[-3000:] + done.stderr)
        return seconds, epoch(history_of(Path(folder, "0")), "train_seconds")


def bf16(table, network: str) -> None:
    """Compare the accuracies of fp32 and bf16 with the report's verdict on five seeds each."""
    with tempfile.TemporaryDirectory() as results, ThreadPoolExecutor(5) as pool:

        def do(precision: str, seed: int) -> None:
            folder = Path(results, "runs", precision, f"seed{seed}")
            measured(*train(network, folder, f"seed={seed}", f"precision={precision}"))
            measured(sys.executable, "scripts/evaluate.py", "--run", folder, "--data", PREPARED)

        runs = [(precision, seed) for precision in ("fp32", "bf16") for seed in range(1, 6)]
        list(pool.map(do, *zip(*runs, strict=True)))
        measured(sys.executable, "scripts/report.py", "--results", results, "--data", PREPARED)
        row = rows_of(Path(results, "comparisons.csv"))[0]
    low, middle, high = (
        100 * float(row[key]) for key in ("difference_low", "difference", "difference_high")
    )
    found = f"{middle:.3f} ({low:.3f} to {high:.3f}), {row['verdict']}"
    table.single(
        "gpu", network, f"accuracy, {row['a']} minus {row['b']}", "percentage points", found
    )
