"""Show the runs by experiment and seed: their Slurm state, and how far each is.

It reads what Slurm and the runs' own files say, while jobs run and after. With --why RUN, such as
cnn/seed1, it explains one run: how its jobs ended, the end of its log, and what to type next.
"""

import math
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import pandas as pd

from lib.cluster import driver
from lib.cluster.job_end import Cause
from lib.cluster.submissions import ACTIVE, COMPLETED, UNKNOWN, Job, ask
from lib.core import records
from lib.core.run_state import RunState
from lib.core.seeds import Run, Seed
from lib.study.config import add_argument, read_study
from lib.study.run_states import RunStates
from lib.study.study import Study

LOG_LINES = 15


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    add = parser.add_argument
    add("--why", metavar="RUN", help="explain one run (default: show all)")
    args = parser.parse_args()

    study = read_study(args.configfile, {})
    answer = ask(study.layout)
    if args.why is None:
        if line := driver.line(study.layout):
            print(line)
        print(table(study, answer.jobs))
    else:
        print(explain(study, answer.jobs, args.why, args.configfile))
    if answer.no_accounting:
        print(
            f"\nNo accounting ({answer.no_accounting}). Of a job that squeue has forgotten, "
            "only what its own files say is shown; partition, node, elapsed, and limit are empty."
        )


def table(study: Study, jobs: list[Job]) -> str:
    """Return the table of all runs."""
    states = RunStates(study)
    rows = [row(study, run, states.of(*run), of_run(jobs, *run)) for run in study.runs]
    return pd.DataFrame(rows).to_string(index=False)


def row(study: Study, run: Run, now: RunState, jobs: list[Job]) -> dict[str, str]:
    """Return one run's row: what the latest of its jobs does, and how far the training is."""
    latest = jobs[-1] if jobs else None
    if now.status == "done":
        state = "done"
    elif latest and latest.succeeded and latest.state != COMPLETED:
        state = now.status  # another run, or the evaluation, has failed in the same Slurm job
    elif latest and latest.state != UNKNOWN:
        state = f"{latest.rule} {latest.state}"
    elif latest and (now.status, latest.rule) in (("waiting", "train"), ("trained", "evaluate")):
        failed = latest.end is not None and latest.end.status
        state = f"{latest.rule} {'failed' if failed else 'not finished'}"
    else:
        state = "not started" if now.status == "waiting" else now.status
    kept = records.kept_row(now.record or {})
    pending = latest and latest.state == "PENDING" and state != "done"
    return {
        "experiment": run[0],
        "seed": str(run[1]),
        "state": state,
        "job": latest.job_id if latest else "",
        "partition": latest.partition if latest else "",
        "node": latest.node if latest else "",
        "elapsed": _clock(latest.elapsed_seconds) if latest else "",
        "limit": _clock(60 * latest.limit_minutes) if latest and latest.limit_minutes else "",
        "epoch": f"{len(now.epochs)}/{study.experiments[run[0]].settings(run[1]).epochs}",
        "accuracy": f"{now.epochs[kept].accuracy:.4f}" if now.epochs else "",
        "reason": latest.reason if pending else "",
    }


def of_run(jobs: list[Job], experiment: str, seed: Seed) -> list[Job]:
    """Return the jobs of one run, oldest first."""
    return [job for job in jobs if (job.experiment, job.seed) == (experiment, seed)]


def explain(study: Study, jobs: list[Job], name: str, configs: Sequence[Path] = ()) -> str:
    """Return what is known of one run, and what to do about it.

    Args:
        study: the study.
        jobs: those that Slurm knows.
        name: of the run, such as `cnn/seed1`.
        configs: the config files that were named, for the command to type next.

    Raises:
        UserError: the config has no such run.
    """
    run = study.run_named(name)
    now, mine = RunStates(study).of(*run), of_run(jobs, *run)
    lines = [f"{name}: {row(study, run, now, mine)['state']}"]
    if now.left and now.why:
        lines.append(f"  to {now.left} again: {now.why}")
    lines += [line for job in mine for line in described(job)]
    trained = now.status in ("trained", "done")
    logs = [study.layout.log("evaluate" if trained else "train", *run)]
    if mine and mine[-1].state not in (*ACTIVE, COMPLETED):
        # Slurm says there why it has ended a job. The logs of successful jobs are removed.
        logs += study.layout.slurm_logs.rglob(f"{mine[-1].job_id}.log")
    for log in filter(Path.is_file, logs):
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines += ["", f"The end of {log}:", *(f"  {line}" for line in text[-LOG_LINES:])]
    return "\n".join([*lines, "", advice(study, run, now, mine, configs)])


def described(job: Job) -> list[str]:
    """Return the lines on one job: how it ended, what it asked for and used."""
    where = f", {job.partition} {job.node}" if job.partition else ""
    others = f", with {job.runs - 1} others" if job.runs > 1 else ""
    title = f"Slurm job {job.job_id} ({job.rule}{others}{where}): {job.state}"
    return [title, f"  {job.what}", *([] if job.state == UNKNOWN else [f"  {used(job)}"])]


def command(configs: Sequence[Path]) -> str:
    """Return the command that goes on with the study."""
    profile = "slurm" if shutil.which("sbatch") else "local"
    options = ["--configfile", *map(str, configs)] if configs else []
    return shlex.join(["snakemake", "--profile", f"profiles/{profile}", *options])


def watch_command(configs: Sequence[Path]) -> str:
    """Return the command that shows how far the runs are."""
    option = [f"CONFIGFILE={' '.join(map(str, configs))}"] if configs else []
    return shlex.join(["make", "watch", *option])


def used(job: Job) -> str:
    """Say what a job asked for and used."""
    limit = f"of {_clock(60 * job.limit_minutes)}" if job.limit_minutes else "without a limit"
    memory = f"{job.mem_used_mb:.0f}" if job.mem_used_mb else "unknown"
    asked = f"of {job.mem_asked_mb:.0f} MB" if job.mem_asked_mb else "without a limit"
    cores = f"{job.cpus or 'unknown'} cores"
    if (job.cpus_allocated or 0) > (job.cpus or math.inf):
        cores += f" ({job.cpus_allocated} allocated)"
    return f"time {_clock(job.elapsed_seconds)} {limit}, memory {memory} {asked}, {cores}"


def advice(study: Study, run: Run, now: RunState, jobs: list[Job], configs: Sequence[Path]) -> str:
    """Say what to type next; `configs` are the config files that were named."""
    if now.status == "done":
        return "This run is done. Nothing is left to do."
    jobs = [job for job in jobs if job.state != UNKNOWN or job.cause]
    if jobs and jobs[-1].state in ACTIVE:
        return (
            f"Wait, or stop it: scancel {jobs[-1].job_id}\n"
            "(While Snakemake is running, it submits the job again. Press Ctrl-C there instead.)"
        )
    if now.status == "training" and not jobs:
        return f"It is training. To see how far it is: {watch_command(configs)}"
    return f"{cure(study, run, now, jobs)}\n  {command(configs)}"


def cure(study: Study, run: Run, now: RunState, jobs: list[Job]) -> str:
    """Say what to do about a run that is not done, and that nothing works on.

    `jobs` are those that Slurm knows.
    """
    key = f"experiments.{run[0]}"
    if now.failure:
        return f"{now.failure}.\nIt fails whenever it is tried: change {key} in the config, then"
    cause = jobs[-1].cause if jobs else None
    if cause is Cause.MEMORY:
        return f"Raise {key}.mem_mb in the config, then"
    if cause is Cause.TIME and jobs[-1].rule == "evaluate":
        return "Raise set-resources: evaluate: runtime in the profile, then"
    if cause is Cause.TIME:
        return f"Raise {key}.runtime in the config, then"
    if cause is Cause.EXTERNAL or (cause and jobs[-1].state == "BOOT_FAIL"):
        return "Nothing has to be changed. To go on:"
    if now.status == "out of date" and not jobs:
        return "It will be trained again. If the log ends with an error, fix that first:"
    trained = now.status == "trained"
    stage = "evaluate" if trained else "train"
    if jobs or study.layout.log(stage, *run).is_file():
        return "Fix what the log says, then"
    if trained:
        return "It is trained, and its evaluation was not started. To start it:"
    return "It was not started. To start it:"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


if __name__ == "__main__":
    command_line.run(main)
