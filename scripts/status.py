"""Show the runs by experiment and seed: their Slurm state, and how far each is.

It reads what Slurm and the runs' own files say, while jobs run and after. With --why RUN, such as
cnn/seed1, it explains one run: how its jobs ended, the end of its log, and what to type next.
"""

import pandas as pd

from lib.cluster.jobs import Job, jobs
from lib.core import command_line
from lib.core.errors import UserError
from lib.core.layout import RunFiles
from lib.study.config import add_argument, read_study
from lib.study.outdated import RunCheck
from lib.study.run_states import run_state
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
    known = jobs(study.layout)
    print(explain(study, known, args.why) if args.why else table(study, known))


def table(study: Study, jobs: list[Job]) -> str:
    """Return the table of all runs."""
    check = RunCheck(study)
    rows = [row(check, jobs, experiment, seed) for experiment, seed in study.runs]
    return pd.DataFrame(rows).to_string(index=False)


def row(check: RunCheck, jobs: list[Job], experiment: str, seed: int) -> dict[str, str]:
    """Return one run's row: what its latest job does, and how far the training is."""
    run = run_state(check, experiment, seed)
    mine = of_run(jobs, experiment, seed)
    latest = mine[-1] if mine else None
    if run.stage == "done":
        state = "done"
    elif latest:
        state = f"{latest.rule} {latest.state}"
    else:
        state = "not started" if run.stage == "waiting" else run.stage
    pending = latest and latest.state == "PENDING" and state != "done"
    return {
        "experiment": experiment,
        "seed": str(seed),
        "state": state,
        "job": latest.job_id if latest else "",
        "partition": latest.partition if latest else "",
        "node": latest.node if latest else "",
        "elapsed": _clock(latest.elapsed_seconds) if latest else "",
        "limit": _clock(60 * latest.limit_minutes) if latest and latest.limit_minutes else "",
        "epoch": f"{len(run.done)}/{run.epochs}",
        "accuracy": f"{run.accuracy:.4f}" if run.done else "",
        "reason": latest.reason if pending else "",
    }


def of_run(jobs: list[Job], experiment: str, seed: int) -> list[Job]:
    """Return the jobs of one run, oldest first."""
    return [job for job in jobs if (job.experiment, job.seed) == (experiment, seed)]


def explain(study: Study, jobs: list[Job], name: str) -> str:
    """Return what is known of one run, and what to do about it.

    Raises:
        UserError: the config has no such run.
    """
    runs = {f"{experiment}/seed{seed}": (experiment, seed) for experiment, seed in study.runs}
    if name not in runs:
        raise UserError(f"there is no run {name!r}; there are: {', '.join(runs)}")
    run = runs[name]
    files, mine = study.layout.run(*run), of_run(jobs, *run)
    check = RunCheck(study)
    problem, state = check.problem(*run), row(check, jobs, *run)["state"]
    lines = [f"{name}: {state}" + (f": {problem[1]}" if problem else "")]
    for job in mine:
        lines.append(
            f"Slurm job {job.job_id} ({job.rule}, {job.partition} {job.node}): {job.state}"
        )
        lines.append(f"  exit code {job.exit_code}; {job.cause}")
        lines.append(f"  {used(job)}")
    log = study.layout.log("evaluate" if files.record.is_file() else "train", *run)
    if log.is_file():
        text = log.read_text(errors="replace").splitlines()
        lines += ["", f"The end of {log}:", *(f"  {line}" for line in text[-LOG_LINES:])]
    return "\n".join([*lines, "", advice(files, mine, run[0], state)])


def used(job: Job) -> str:
    """Say what a job asked for and used."""
    limit = f"of {_clock(60 * job.limit_minutes)}" if job.limit_minutes else "without a limit"
    memory = f"{job.mem_used_mb:.0f}" if job.mem_used_mb else "unknown"
    return (
        f"time {_clock(job.elapsed_seconds)} {limit}, memory {memory} of "
        f"{job.mem_asked_mb or 0:.0f} MB, {job.cpus} cores"
    )


def advice(files: RunFiles, jobs: list[Job], experiment: str, state: str) -> str:
    """Say what to type next."""
    if state == "done":
        return "This run is done. Nothing is left to do."
    again = "snakemake --profile profiles/slurm"
    last = jobs[-1].state if jobs else ""
    if last in ("PENDING", "RUNNING"):
        return (
            f"Wait, or stop it: scancel {jobs[-1].job_id}\n"
            "(While Snakemake is running, it submits the job again. Press Ctrl-C there instead.)"
        )
    if state == "out of date":
        return f"It will be trained again:\n  {again}"
    if files.failure.is_file():
        change = f"change experiments.{experiment} in the config"
        return f"It fails whenever it is tried: {change}, then\n  {again}"
    if jobs and jobs[-1].out_of_memory:
        return f"Raise experiments.{experiment}.mem_mb in the config, then\n  {again}"
    if last == "TIMEOUT":
        return f"Raise experiments.{experiment}.runtime in the config, then\n  {again}"
    return f"Fix what the log says, then\n  {again}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


if __name__ == "__main__":
    command_line.run(main)
