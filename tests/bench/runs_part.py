"""The benchmark's part with a thousand runs: packed into Slurm jobs, planned, and reported."""

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import slurm_part
from conftest import BIN, ROOT, cluster, fresh_project
from measure import measured, rows_of

from lib.core.layout import Layout

RUNS_PER_JOB = 25
TINY = {
    "dataset": "MNIST-small",
    "datasets_file": "tests/data/datasets.yaml",
    "mirrors": ["tests/data"],
    "data_dir": "results/data",
    "training": {"epochs": 1},
    "runs_per_job": RUNS_PER_JOB,
}


def run(table, quick: bool) -> None:
    """Measure the plans anywhere, and the studies on the throw-away cluster."""
    with tempfile.TemporaryDirectory(dir=ROOT / "results") as folder:
        plans(table, fresh_project(Path(folder, "plans")).folder, (100,) if quick else (1000, 5000))
        was_up = cluster("status").returncode == 0
        done = cluster("up")
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        try:
            tiny(table, fresh_project(Path(folder, "tiny")).folder, 50 if quick else 1000)
            whole(table, fresh_project(Path(folder, "whole")).folder, 10 if quick else 100)
        finally:
            if not was_up:
                cluster("down")


def study(runs: int, networks: int = 10, **keys) -> dict:
    """Return the config of so many runs: of so many experiments, with the same seeds."""
    limits = {"mem_mb": 500, "runtime": 1}
    experiments = {f"mlp{n}": {"model": {"name": "MLP"}, **limits} for n in range(networks)}
    return {"experiments": experiments, "seeds": list(range(runs // networks))} | keys


def plans(table, folder: Path, sizes) -> None:
    """Time the dry runs of studies that have not begun."""
    for runs in sizes:
        (folder / "bench.json").write_text(json.dumps(TINY | study(runs)))
        command = (BIN / "snakemake", "--profile", "profiles/slurm", "--configfile", "bench.json")
        used = measured(*command, "-n", "--quiet", cwd=folder)
        target = {1000: "<= 8", 5000: "<= 40"}.get(runs, "")
        table.single("runs", f"{runs} runs", "snakemake -n: wall", "s", used.wall, target)


class Watched:
    """A command that runs, and what was used: by its process alone, and by this whole machine.

    Attributes:
        wall, own, machine: seconds; `own` and `machine` of processor time.
        peak: MiB of memory of its process.
    """

    def __init__(self, command, folder: Path):
        clock, before = time.perf_counter(), busy()
        with (folder / "log").open("w") as log:
            process = psutil.Popen(command, cwd=folder, stdout=log, stderr=log)
        self.peak, self.own = 0, 0.0
        watch = threading.Thread(target=self._watch, args=(process,))
        watch.start()
        watch.join()
        self.wall, self.machine = time.perf_counter() - clock, busy() - before
        if process.wait():
            sys.exit((folder / "log").read_text()[-3000:])

    def _watch(self, process) -> None:
        """Look at the process once in a while."""
        while process.status() != psutil.STATUS_ZOMBIE:
            try:
                times = process.cpu_times()
                self.peak = max(self.peak, process.memory_info().rss / 2**20)
            except psutil.Error:
                return
            self.own = times.user + times.system
            time.sleep(0.2)


def busy() -> float:
    """Return the seconds that the processors of this machine have worked, for whatever program.

    Slurm's accounting does not know all that a job used: not what a process has started that
    outlives it.
    """
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


def tiny(table, folder: Path, runs: int) -> None:
    """A study of runs that take less than a second each, from the data to the report."""
    keys = TINY | study(runs)
    driver = Watched(slurm_part.prepare(folder, **keys), folder)
    jobs = {row["slurm_job_id"] for row in rows_of(Layout(folder / "results").submissions)}
    add = lambda *values: table.single("runs", f"{runs} tiny runs", *values)  # noqa: E731
    add("data to report: wall", "min", driver.wall / 60, "<= 15")
    add("processor time of all, a run", "s", driver.machine / runs, "<= 1.2")
    add("Slurm jobs", "", len(jobs), "<= 45")
    add("Snakemake: memory", "MB", driver.peak, "<= 500")
    add("Snakemake: share of a core", "%", 100 * driver.own / driver.wall, "<= 10")
    add("files in results, a run", "", count(folder / "results") / runs, "<= 10")
    add("files in .snakemake, a run", "", count(folder / ".snakemake") / runs, "<= 4")
    report = (sys.executable, "scripts/report.py", "--results", "results")
    used = measured(*report, "--data", "results/data/MNIST-small.safetensors", cwd=folder)
    add("report: wall", "s", used.wall, "<= 25")
    add("report: memory", "MB", used.memory, "<= 500")
    page = (folder / "results" / "report.html").stat().st_size / 2**20
    add("report: size of the page", "MB", page, "<= 15")


def count(folder: Path) -> int:
    """Return how many files a folder has, at any depth."""
    return sum(path.is_file() for path in folder.rglob("*"))


def whole(table, folder: Path, runs: int) -> None:
    """The MLP on all of MNIST: what is spent beyond the loops of training and evaluation."""
    keys = study(runs, networks=1, runs_per_job=RUNS_PER_JOB, training={"epochs": 3})
    keys["experiments"]["mlp0"]["mem_mb"] = 1000
    # As many at once as there are cores: then a second of a loop is one of a processor.
    jobs = ("--jobs", str(os.cpu_count()))
    driver = Watched([*slurm_part.prepare(folder, **keys), *jobs], folder)
    loops = 0.0
    for seed in range(runs):
        files = Layout(folder / "results").run("mlp0", seed)
        rows = rows_of(files.folder / "history.csv")
        loops += sum(float(row["train_seconds"]) + float(row["eval_seconds"]) for row in rows)
        loops += float(rows[-1]["eval_seconds"])  # of the job that evaluates it
    beyond = 100 * (driver.machine - loops) / loops
    case = f"{runs} MLPs on MNIST, 3 epochs"
    table.single("runs", case, "processor time beyond the loops", "%", beyond, "<= 15")
