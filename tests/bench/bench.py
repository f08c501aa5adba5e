"""Measure this project against the lesson's plain script, on this machine, in turn.

    make bench          all of it, under an hour on two cores; make bench-quick: some minutes

Each ratio is the median over pairs, plain script then ours, with the smallest and the largest. It
writes results/bench.csv and prints it as a table. The parts `slurm` and `runs` start the throw-away
cluster, so they need root on Debian or Ubuntu; `gpu` needs a GPU. What is not available is skipped
with a line that says so.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import gpu_part  # noqa: E402
import runs_part  # noqa: E402
import slurm_part  # noqa: E402
from conftest import BIN  # noqa: E402
from measure import DATA_DIR, PREPARED, Usage, history_of, in_process, measured  # noqa: E402

COLUMNS = "part,case,what,unit,plain,ours,ratio,ratio_low,ratio_high,pairs,target".split(",")
MNIST_STEPS = 938  # of 64 images, an epoch
TRAINING = ("data", "forward", "backward", "optimizer")  # the phases of a step


class Table:
    """The rows measured so far; each is printed as it comes."""

    def __init__(self):
        self.rows = []

    def pairs(self, part, case, what, unit, plain, ours, target=""):
        """Add values of the plain script and of ours, measured in turn; more is worse."""
        ratios = [theirs / mine for theirs, mine in zip(plain, ours, strict=True)]
        self._add(
            part, case, what, unit, statistics.median(plain), statistics.median(ours),
            statistics.median(ratios), min(ratios), max(ratios), len(ratios), target,
        )  # fmt: skip

    def single(self, part, case, what, unit, value, target=""):
        """Add what has no counterpart in the plain script."""
        self._add(part, case, what, unit, "", value, "", "", "", "", target)

    def _add(self, *values):
        row = [f"{value:.4g}" if isinstance(value, float) else value for value in values]
        self.rows.append(dict(zip(COLUMNS, row, strict=True)))
        print("  ".join(str(value) for value in row if value != ""), flush=True)

    def write(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def markdown(self) -> str:
        head = "| part | case | what | plain | ours | ratio (from to) | pairs | target |"
        lines = [head, "|---|---|---|---|---|---|---|---|"]
        for row in self.rows:
            spread = f"{row['ratio']} ({row['ratio_low']} {row['ratio_high']})"
            plain = f"{row['plain']} {row['unit']}" if row["plain"] else ""
            cells = [row["part"], row["case"], row["what"], plain, f"{row['ours']} {row['unit']}"]
            cells += [spread if row["ratio"] else "", row["pairs"], row["target"]]
            lines.append(f"| {' | '.join(str(cell).strip() for cell in cells)} |")
        return "\n".join(lines)


def whole_process(table, part, threads, network, epochs, pairs, targets):
    """Compare `tests/lesson.py` with `scripts/train.py`, from start to exit."""
    usages, rows, agree = [], [], True
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            plain = measured(
                sys.executable, "tests/lesson.py", network, "--root", DATA_DIR,
                "--output", f"{folder}/weights", "--epochs", epochs, "--threads", threads,
            )  # fmt: skip
            ours = measured(
                sys.executable, "scripts/train.py", "--data", PREPARED, "--output", folder,
                "--threads", threads, "--set", f"model.name={network.upper()}", f"epochs={epochs}",
            )  # fmt: skip
            history = history_of(folder)
        lesson = [json.loads(line) for line in plain.output.splitlines()]
        agree &= [(row["loss"], row["correct"]) for row in lesson] == [
            (float(row["loss"]), round(float(row["accuracy"]) * lesson[0]["size"]))
            for row in history
        ]
        usages.append((plain, ours))
        rows += zip(lesson, history, strict=True)
    case = f"{network}, {epochs} epoch{'s' * (epochs > 1)}"
    for what, unit in (("wall", "s"), ("cpu", "s"), ("memory", "MB")):
        plain, ours = ([getattr(pair[i], what) for pair in usages] for i in (0, 1))
        table.pairs(part, case, f"whole process: {what}", unit, plain, ours, targets.get(what, ""))
    seconds = [
        [float(row["train_seconds"]) + float(row["eval_seconds"]) for row in column]
        for column in zip(*rows, strict=True)
    ]
    table.pairs(part, case, "an epoch, train and test", "s", *seconds, targets.get("epoch", ""))
    equal = "equal" if agree else "DIFFERENT"
    table.single(part, case, "losses and correct counts, epoch by epoch", "", equal, "equal")


def total(phases: dict) -> float:
    """Return the milliseconds of a training step, all its phases."""
    return sum(phases[phase] for phase in TRAINING)


def phases(table, part, threads, network, pairs):
    """Split a step into its phases."""
    where = ("--threads", threads, "--root", DATA_DIR, "--data", PREPARED)
    found = [
        [in_process("phases", whose, network, *where) for whose in ("plain", "ours")]
        for _ in range(pairs)
    ]
    for phase in (*TRAINING, "evaluation"):
        what = f"a batch: {phase}"
        plain, ours = ([pair[i][phase] for pair in found] for i in (0, 1))
        table.pairs(part, network, what, "ms", plain, ours)


def cores(table, quick, part, threads):
    """Compare one run on so many cores as a whole process, then by epoch and phase."""
    mlp = {"wall": ">= 5", "epoch": ">= 8", "memory": ">= 1"} if threads == 1 else {}
    cnn = {"wall": ">= 1.6", "memory": "> 1"} if threads == 1 else {"wall": "as on one core"}
    whole_process(table, part, threads, "mlp", 1 if quick else 3, 1 if quick else 3, mlp)
    if not quick:
        whole_process(table, part, threads, "cnn", 1, 2, cnn)
    if quick and threads > 1:
        return
    for network in ("mlp", "cnn"):
        phases(table, part, threads, network, 1 if quick else 2)


def floor(table, quick):
    """Set a step's time against what the processor can do."""
    found = in_process("floor")
    table.single("floor", "one core", "fp32 matrix product", "GFLOP/s", found["gflops"])
    work = found["step_gflop"] * MNIST_STEPS
    table.single("floor", "cnn", "work of an epoch, forward and backward", "GFLOP", work)
    step_ms = total(in_process("phases", "ours", "cnn", "--threads", 1, "--data", PREPARED))
    share = found["step_gflop"] / (step_ms / 1000) / found["gflops"]
    table.single("floor", "cnn", "share of that rate which a step reaches", "", share)

    bare = found["bare_step_ms"]
    table.single("floor", "mlp", "bare step on one batch in memory", "ms", bare)
    with tempfile.TemporaryDirectory() as folder:
        train = ("scripts/train.py", "--data", PREPARED, "--output", folder)
        measured(sys.executable, *train, "--set", "model.name=MLP", "epochs=2")
        loop = 1000 * float(history_of(folder)[-1]["train_seconds"]) / MNIST_STEPS
    table.single("floor", "mlp", "step in the loop, against the bare one", "", loop / bare)


HAS_GPU = "import sys, torch; sys.exit(not torch.cuda.is_available())"
STEP_TRICKS = ("layout", "allocator", "in-place")
START = """
import sys
sys.path.insert(0, "scripts")
from lib.running import process
{begin}
import torch
optimizer = torch.optim.Adadelta([torch.ones(1, requires_grad=True)])
optimizer.step()
{end}
"""
POSTPONE, EXIT = "process.postpone_compiler()", "process.exit_without_teardown()"
# A trick, and what of `START` a process is without it and with it.
START_TRICKS = (
    ("compiler not imported", ("", ""), (POSTPONE, "")),
    ("torch not unloaded", (POSTPONE, ""), (POSTPONE, EXIT)),
)


def tricks(table, quick):
    """Measure what each trick gains by leaving it out: `plain` is without, `ours` with it."""
    for threads in (1,) if quick else (1, 2):
        step = ("phases", "ours", "cnn", "--data", PREPARED, "--threads", threads)
        case = f"cnn, {threads} core{'s' * (threads > 1)}"
        for trick in STEP_TRICKS:
            found = [
                [in_process(*step, "--without", trick), in_process(*step)]
                for _ in range(1 if quick else 2)
            ]
            without, with_it = ([total(pair[i]) for pair in found] for i in (0, 1))
            table.pairs("tricks", case, f"{trick}: a step", "ms", without, with_it)
            without, with_it = ([pair[i]["memory"] for pair in found] for i in (0, 1))
            table.pairs("tricks", case, f"{trick}: memory", "MB", without, with_it)
    for trick, *variants in START_TRICKS:
        codes = [START.format(begin=begin, end=end) for begin, end in variants]
        found = [[measured(sys.executable, "-c", code) for code in codes] for _ in range(3)]
        for what, unit in (("wall", "s"), ("memory", "MB")):
            without, with_it = ([getattr(pair[i], what) for pair in found] for i in (0, 1))
            table.pairs("tricks", "start and end", f"{trick}: {what}", unit, without, with_it)


def study(folder: Path, **keys) -> Path:
    """Write a config of the MLP alone, whose data is there, and prepare it."""
    keys = {"results_dir": str(folder), "data_dir": str(DATA_DIR)} | keys
    keys.setdefault("experiments", {"mlp": {"model": {"name": "MLP"}}})
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(keys))
    workflow(path, "--until", "prepare")
    return path


def workflow(config: Path, *arguments) -> Usage:
    """Run the workflow with the local profile on a config."""
    profile = ("--profile", "profiles/local", "--configfile", config, "--nolock")
    return measured(BIN / "snakemake", *profile, *arguments)


def growth(table, quick):
    """Time more seeds, and more runs in the plan and in the report."""
    with tempfile.TemporaryDirectory(dir=ROOT / "results") as scratch:
        scratch = Path(scratch)
        for seeds in (1, 2) if quick else (1, 2, 4, 8):
            used = workflow(study(scratch / f"seeds{seeds}", seeds=list(range(1, seeds + 1))))
            for what in ("wall", "cpu"):
                value = getattr(used, what) / seeds
                table.single("growth", f"{seeds} seeds of the MLP", f"{what} a run", "s", value)
        first = scratch / "seeds1"
        evaluate = ("scripts/evaluate.py", "--run", first / "runs/mlp/seed1", "--data", PREPARED)
        used = measured(sys.executable, *evaluate)
        table.single("growth", "1 run", "evaluate: wall", "s", used.wall, "< 5")
        for runs in (10, 100) if quick else (10, 100, 1000):
            plan = study(scratch / f"plan{runs}", seeds=list(range(runs)))
            used, target = workflow(plan, "-n", "--quiet"), "< 10" if runs == 1000 else ""
            table.single("growth", f"{runs} runs", "snakemake -n: wall", "s", used.wall, target)
            results = scratch / f"report{runs}"
            # In a process of its own: torch's memory here would count as that of those started.
            measured(sys.executable, "tests/made_up.py", results, first / "runs/mlp/seed1", runs)
            report = ("scripts/report.py", "--results", results, "--data", PREPARED)
            used = measured(sys.executable, *report)
            limits = {10: {"wall": "< 5"}, 1000: {"wall": "< 60", "memory": "< 1000"}}.get(runs, {})
            for what, unit in (("wall", "s"), ("memory", "MB")):
                value = getattr(used, what)
                target = limits.get(what, "")
                table.single("growth", f"{runs} runs", f"report: {what}", unit, value, target)


def gpu(table, quick):
    """Measure on a GPU, if there is one."""
    if subprocess.run([sys.executable, "-c", HAS_GPU]).returncode:
        print("gpu: skipped, torch sees none here", flush=True)
        return
    gpu_part.run(table, quick)


def slurm(table, quick):
    """Measure what the pipeline adds to jobs on the throw-away cluster."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print("slurm: skipped, it needs root on Debian or Ubuntu", flush=True)
        return
    slurm_part.run(table, quick)


def runs(table, quick):
    """Measure a thousand runs that share Slurm jobs."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print("runs: skipped, it needs root on Debian or Ubuntu", flush=True)
        return
    runs_part.run(table, quick)


PARTS = {
    "one_core": partial(cores, part="one core", threads=1),
    "two_cores": partial(cores, part="two cores", threads=2),
} | {part.__name__: part for part in (floor, tricks, slurm, runs, growth, gpu)}


def machine() -> str:
    """Describe the machine in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{datetime.date.today()}, {model}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"torch {version('torch')}"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer pairs, shorter trainings")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these (default: all)"
    )
    args = parser.parse_args()
    begin = time.perf_counter()
    if not PREPARED.is_file():
        print("downloading and preparing MNIST", flush=True)
        measured(BIN / "snakemake", "--profile", "profiles/local", "--until", "prepare")
    table = Table()
    for part in args.parts:
        PARTS[part](table, args.quick)
        table.write(ROOT / "results" / "bench.csv")
    print(f"\n{machine()}\n\n{table.markdown()}\n")
    print(f"results/bench.csv, after {(time.perf_counter() - begin) / 60:.0f} min")


if __name__ == "__main__":
    main()
