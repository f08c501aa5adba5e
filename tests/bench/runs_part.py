"""The benchmark's part with a thousand runs: packed into Slurm jobs, planned, and reported."""

import json
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
    """A command that runs, and what its process used: seconds, and MiB at its peak."""

    def __init__(self, command, folder: Path):
        clock = time.perf_counter()
        with (folder / "log").open("w") as log:
            process = psutil.Popen(command, cwd=folder, stdout=log, stderr=log)
        self.peak, self.own, self.all = 0, 0.0, 0.0
        watch = threading.Thread(target=self._watch, args=(process,))
        watch.start()
        watch.join()
        self.wall = time.perf_counter() - clock
        if process.wait():
            sys.exit((folder / "log").read_text()[-3000:])

    def _watch(self, process) -> None:
        """Look at the process once in a while; what its children use counts in `all`."""
        while process.status() != psutil.STATUS_ZOMBIE:
            try:
                times = process.cpu_times()
                self.peak = max(self.peak, process.memory_info().rss / 2**20)
            except psutil.Error:
                return
            self.own = times.user + times.system
            self.all = self.own + times.children_user + times.children_system
            time.sleep(0.2)


def packed(folder: Path, **keys) -> tuple[Watched, list[str], float]:
    """Run a study on the cluster: what its driver used, its Slurm jobs, and their seconds."""
    command = slurm_part.prepare(folder, **keys)
    driver = Watched(command, folder)
    time.sleep(6)  # sacct is some seconds behind
    jobs = sorted({row["slurm_job_id"] for row in rows_of(Layout(folder / "results").submissions)})
    used = slurm_part.accounting("JobID,TotalCPU", jobs, "--duplicates")
    seconds = sum(slurm_part.slurm_seconds(text) for job, text in used if "." not in job)
    return driver, jobs, seconds


def tiny(table, folder: Path, runs: int) -> None:
    """A study of runs that take less than a second each, from the data to the report."""
    keys = TINY | study(runs)
    driver, jobs, seconds = packed(folder, **keys)
    add = lambda *values: table.single("runs", f"{runs} tiny runs", *values)  # noqa: E731
    add("data to report: wall", "min", driver.wall / 60, "<= 15")
    add("processor time of all, a run", "s", (driver.all + seconds) / runs, "<= 1.2")
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
    driver, _, seconds = packed(folder, **keys)
    loops = 0.0
    for seed in range(runs):
        files = Layout(folder / "results").run("mlp0", seed)
        rows = rows_of(files.folder / "history.csv")
        loops += sum(float(row["train_seconds"]) + float(row["eval_seconds"]) for row in rows)
        loops += float(rows[-1]["eval_seconds"])  # of the job that evaluates it
    beyond = 100 * (driver.all + seconds - loops) / loops
    case = f"{runs} MLPs on MNIST, 3 epochs"
    table.single("runs", case, "processor time beyond the loops", "%", beyond, "<= 15")
