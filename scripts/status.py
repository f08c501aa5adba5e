"""Show the runs by experiment and seed: their Slurm state, and how far each has come.

It reads what Slurm and the runs' own files say, while jobs run and after. With --why RUN, such as
cnn/seed1, it explains one run: how its jobs ended, the end of its log, and what to type next.
"""

import json
import re
from pathlib import Path

import pandas as pd
from safetensors import SafetensorError, safe_open

import cli
import slurm_jobs
from cli import Failure
from configuration import Study, add_argument, read_study
from slurm_jobs import Job

LOG_LINES = 15


def main() -> None:
    """Run the command line."""
    parser = cli.parser(__doc__)
    add_argument(parser)
    add = parser.add_argument
    add("--why", metavar="RUN", help="explain one run (default: show all)")
    args = parser.parse_args()

    study = read_study(args.configfile, {})
    jobs = slurm_jobs.jobs(Path.cwd())
    print(explain(study, jobs, args.why) if args.why else table(study, jobs))


def table(study: Study, jobs: list[Job]) -> str:
    """Return the table of all runs."""
    rows = [row(study, jobs, experiment, seed) for experiment, seed in study.runs]
    return pd.DataFrame(rows).to_string(index=False)


def row(study: Study, jobs: list[Job], experiment: str, seed: int) -> dict[str, str]:
    """Return one run's row: what its latest job does, and how far the training is."""
    folder = Path(study.results_dir, "runs", experiment, f"seed{seed}")
    epochs = study.experiments[experiment].training["epochs"]
    epoch, accuracy = progress(folder)
    mine = of_run(jobs, experiment, seed)
    latest = mine[-1] if mine else None
    if (folder / "evaluation.json").is_file():
        state = "done"
    elif latest:
        state = f"{latest.rule} {latest.state}"
    else:
        state = "trained" if (folder / "run.json").is_file() else "not started"
    waiting = latest and latest.state == "PENDING" and state != "done"
    return {
        "experiment": experiment,
        "seed": str(seed),
        "state": state,
        "job": latest.job_id if latest else "",
        "partition": latest.partition if latest else "",
        "node": latest.node if latest else "",
        "elapsed": _clock(latest.elapsed_seconds) if latest else "",
        "limit": _clock(60 * latest.limit_minutes) if latest and latest.limit_minutes else "",
        "epoch": f"{epoch}/{epochs}",
        "accuracy": f"{accuracy:.4f}" if accuracy is not None else "",
        "reason": latest.reason if waiting else "",
    }


def of_run(jobs: list[Job], experiment: str, seed: int) -> list[Job]:
    """Return the jobs of one run, oldest first."""
    return [job for job in jobs if (job.experiment, job.seed) == (experiment, seed)]


def progress(folder: Path) -> tuple[int, float | None]:
    """Return the epochs that a run has done and the last held-out accuracy, None before the first.

    They stand in `history.csv` of a trained run, else in its checkpoint.
    """
    if (folder / "run.json").is_file():
        history = pd.read_csv(folder / "history.csv").to_dict("records")
    else:
        history = checkpoint_history(folder / "checkpoint.safetensors")
    return len(history), history[-1]["accuracy"] if history else None


def checkpoint_history(path: Path) -> list[dict]:
    """Return the history in a checkpoint; empty if there is none, or it is torn."""
    try:
        with safe_open(path, framework="numpy") as file:
            content = json.loads(file.metadata()["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return []
    plain = dict(dict(content["state"]["pairs"])["plain"]["pairs"])
    return [dict(row["pairs"]) for row in plain["history"]]


def explain(study: Study, jobs: list[Job], run: str) -> str:
    """Return what is known of one run that is not done.

    Raises:
        Failure: the config has no such run.
    """
    match = re.fullmatch(r"(.+)/seed(\d+)", run)
    names = [f"{experiment}/seed{seed}" for experiment, seed in study.runs]
    if not match or run not in names:
        raise Failure(f"there is no run {run!r}; there are: {', '.join(names)}")
    experiment, seed = match[1], int(match[2])
    folder = Path(study.results_dir, "runs", experiment, f"seed{seed}")
    lines = [f"{run}: {row(study, jobs, experiment, seed)['state']}"]
    for job in of_run(jobs, experiment, seed):
        lines.append(
            f"Slurm job {job.job_id} ({job.rule}, {job.partition} {job.node}): {job.state}"
        )
        lines.append(f"  exit code {job.exit_code}; {job.cause}")
        lines.append(f"  {used(job)}")
    stage = "evaluate" if (folder / "run.json").is_file() else "train"
    log = Path(study.results_dir, "logs", f"{stage}-{experiment}-seed{seed}.log")
    if log.is_file():
        text = log.read_text(errors="replace").splitlines()
        lines += ["", f"The end of {log}:", *(f"  {line}" for line in text[-LOG_LINES:])]
    return "\n".join([*lines, "", advice(folder, of_run(jobs, experiment, seed), experiment)])


def used(job: Job) -> str:
    """Say what a job asked for and used."""
    limit = f"of {_clock(60 * job.limit_minutes)}" if job.limit_minutes else "without a limit"
    memory = f"{job.mem_used_mb:.0f}" if job.mem_used_mb else "unknown"
    return (
        f"time {_clock(job.elapsed_seconds)} {limit}, memory {memory} of "
        f"{job.mem_asked_mb or 0:.0f} MB, {job.cpus} cores"
    )


def advice(folder: Path, jobs: list[Job], experiment: str) -> str:
    """Say what to type next."""
    if (folder / "evaluation.json").is_file():
        return "It is done: nothing is to be typed."
    again = "snakemake --profile profiles/slurm"
    last = jobs[-1].state if jobs else ""
    if last in ("PENDING", "RUNNING"):
        return f"Wait, or stop it: scancel {jobs[-1].job_id}"
    if (folder / "failure.json").is_file():
        change = f"change experiments.{experiment} in the config"
        return f"It fails whenever it is tried: {change}, then\n  {again}"
    if jobs and jobs[-1].out_of_memory:
        return f"Raise experiments.{experiment}.mem_mb in the config, then\n  {again}"
    if last == "TIMEOUT":
        return f"Raise experiments.{experiment}.runtime in the config, then\n  {again}"
    return f"Mend what the log says, then\n  {again}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


if __name__ == "__main__":
    cli.run(main)
