"""The benchmark's part on the throw-away cluster: what the pipeline adds to a job and a study."""

import csv
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil
from conftest import BIN, ROOT, cluster, fresh_project

from lib.cluster.submissions import slurm_seconds

NETWORKS = ("mlp", "cnn")
WAITING = 100  # jobs


def run(table, quick: bool) -> None:
    """Start the cluster if it is down, measure, and leave it as it was."""
    was_up = cluster("status").returncode == 0
    done = cluster("up")
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    try:
        with tempfile.TemporaryDirectory(dir=ROOT / "results") as folder:
            overhead(table, fresh_project(Path(folder, "overhead")).folder, 1 if quick else 5)
            waiting(table, fresh_project(Path(folder, "waiting")).folder, 2 if quick else 10)
            if not quick:
                studies(table, fresh_project(Path(folder, "study")).folder)
    finally:
        if not was_up:
            cluster("down")


def prepare(folder: Path, **keys) -> list[str]:
    """Write a config whose data is prepared; return the command that runs it on the cluster."""
    config = {"data_dir": str(ROOT / "results" / "data")} | keys
    (folder / "bench.json").write_text(json.dumps(config))
    local = ("--profile", "profiles/local", "--configfile", "bench.json", "--until", "prepare")
    subprocess.run([BIN / "snakemake", *local], cwd=folder, check=True, capture_output=True)
    return [str(BIN / "snakemake"), "--profile", "profiles/slurm", "--configfile", "bench.json"]


def submit(folder: Path, memory: str, *command) -> str:
    """Submit a command as a student does; return the job's id."""
    words = " ".join(map(str, command))
    options = ("--parsable", "--output=/dev/null", "--cpus-per-task=1", f"--mem={memory}")
    sbatch = ["sbatch", *options, "--time=60", "--wrap", words]
    done = subprocess.run(sbatch, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def wait(jobs: list[str]) -> float:
    """Wait until jobs have left the queue; return when. Stop if one did not end well."""
    listed = ["squeue", "--noheader", f"--jobs={','.join(jobs)}"]
    while subprocess.run(listed, capture_output=True, text=True).stdout.strip():
        time.sleep(0.5)
    end = time.perf_counter()
    time.sleep(6)  # sacct is some seconds behind
    for row in accounting("State", jobs):
        if row[0] != "COMPLETED":
            sys.exit(f"a bare job ended as {row[0]}")
    return end


def accounting(fields: str, jobs: list[str], option: str = "-X") -> list[list[str]]:
    """Return a row of sacct's fields for each job."""
    command = ["sacct", option, "--noheader", "--parsable2", f"--jobs={','.join(jobs)}"]
    text = subprocess.run([*command, f"--format={fields}"], capture_output=True, text=True).stdout
    return [line.split("|") for line in text.splitlines()]


def script_seconds(jobs: list[str]) -> float:
    """Return the processor time of a job's script, but for what it starts with srun: the median."""
    rows = accounting("JobID,TotalCPU", jobs, "--duplicates")
    return statistics.median(slurm_seconds(text) for job, text in rows if job.endswith(".batch"))


def overhead(table, folder: Path, seeds: int) -> None:
    """Train the MLP by the workflow, one seed at a time: nothing else is to be measured."""
    experiments = {"mlp": {"model": {"name": "MLP"}, "mem_mb": 2000}}
    command = prepare(folder, experiments=experiments, seeds=list(range(1, seeds + 1)))
    said = subprocess.run([*command, "--jobs", "1"], cwd=folder, capture_output=True, text=True)
    if said.returncode:
        sys.exit((said.stdout + said.stderr)[-3000:])
    time.sleep(6)
    runs = [Path(folder, f"results/runs/mlp/seed{seed}/run.json") for seed in range(1, seeds + 1)]
    records = [json.loads(path.read_text()) for path in runs]
    jobs = [record["slurm"]["job_id"] for record in records]
    value = script_seconds(jobs)
    table.single("slurm", "a job of the MLP", "cpu besides the training", "s", value, "<= 0.2")
    before = [
        seconds(record["start"]) - seconds(accounting("Submit", [job])[0][0])
        for record, job in zip(records, jobs, strict=True)
    ]
    value = statistics.median(before)
    table.single("slurm", "a job of the MLP", "submission to start of training", "s", value)
    ends = finished(said.stdout + said.stderr, jobs)
    after = [end - seconds(record["end"]) for record, end in zip(records, ends, strict=True)]
    value = statistics.median(after)
    table.single("slurm", "a job of the MLP", "end of training to end seen", "s", value)


def waiting(table, folder: Path, minutes: int) -> None:
    """Measure the Snakemake that looks after 100 jobs in the queue, and what it asks of Slurm."""
    experiments = {"mlp": {"model": {"name": "MLP"}, "mem_mb": 100}}
    command = prepare(folder, experiments=experiments, seeds=list(range(1, WAITING + 1)))
    begin = ("--set-resources", "train:slurm_extra='--begin=now+5hours'")
    with (folder / "log").open("w") as log:
        driver = subprocess.Popen([*command, *begin], cwd=folder, stdout=log, stderr=log)
    try:
        while (folder / "log").read_text().count(" is Slurm job ") < WAITING:
            if driver.poll() is not None:
                sys.exit((folder / "log").read_text()[-3000:])
            time.sleep(1)
        time.sleep(120)  # until the steady state
        process, before = psutil.Process(driver.pid), questions()
        used, peak, clock = sum(process.cpu_times()), 0, time.perf_counter()
        while time.perf_counter() - clock < 60 * minutes:
            peak = max(peak, process.memory_info().rss)
            time.sleep(1)
        elapsed = time.perf_counter() - clock
        share = (sum(process.cpu_times()) - used) / elapsed
        asked = {name: count - before.get(name, 0) for name, count in questions().items()}
    finally:
        driver.send_signal(signal.SIGINT)
        driver.wait()
    case = f"{WAITING} jobs in the queue"
    table.single("slurm", case, "Snakemake: share of a core", "%", 100 * share, "<= 2")
    table.single("slurm", case, "Snakemake: memory", "MB", peak / 2**20, "<= 300")
    for name, count in asked.items():
        if count:
            table.single("slurm", case, f"{name} a minute", "", 60 * count / elapsed)


def questions() -> dict[str, int]:
    """Return how often slurmctld (`sdiag`) and slurmdbd have been asked, by kind of question."""
    counts = {}
    for command in (["sdiag"], ["sacctmgr", "show", "stats"]):
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        of_kinds = text.split("by message type")[1].split("by user")[0]
        for name, count in re.findall(r"^\s*([A-Z]+_\w+)\s+\(.*?\)\s*count:(\d+)", of_kinds, re.M):
            counts[name] = int(count)
    return counts


def seconds(iso: str) -> float:
    """Return the time that run.json or sacct names, in seconds."""
    return datetime.fromisoformat(iso).timestamp()


def finished(log: str, slurm_jobs: list[str]) -> list[float]:
    """Return when Snakemake saw each Slurm job end, read out of what it printed."""
    submitted = dict(re.findall(r"Job (\d+) is Slurm job (\d+)", log))
    stamps = re.findall(r"\[(.+?)\]\nFinished jobid: (\d+)", log)
    seen = {
        submitted.get(job): datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y").timestamp()
        for stamp, job in stamps
    }
    return [seen[job] for job in slurm_jobs]


def studies(table, folder: Path) -> None:
    """Set the workflow, from prepared data to the report, against two bare jobs of the lesson."""
    command = prepare(folder)
    clock = time.perf_counter()
    bare = [
        submit(
            ROOT, "3G", sys.executable, "tests/lesson.py", network,
            "--root", "results/data", "--output", folder / f"{network}.safetensors",
        )
        for network in NETWORKS
    ]  # fmt: skip
    plain = wait(bare) - clock
    clock = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    ours = time.perf_counter() - clock
    if done.returncode:
        sys.exit((done.stdout + done.stderr)[-3000:])
    case = "both networks, 3 epochs"
    table.pairs("slurm", case, "first submission to the end", "s", [plain], [ours], ">= 1.33")
    with (folder / "results" / "resources.csv").open() as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file) if row["rule"] == "train"}
    for network in NETWORKS:
        used = float(rows[network]["mem_used_mb"])
        table.single("slurm", f"training job of the {network}", "memory, all steps", "MB", used)
