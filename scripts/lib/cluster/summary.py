"""What the terminal shows when a run of the workflow ends early, and what its jobs have used."""

import sys
from pathlib import Path

from lib.cluster import usage
from lib.core import subprocesses
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.settings import difference
from lib.study.outdated import RunCheck
from lib.study.study import Study

REPORT_TIMEOUT = 1800.0  # seconds


def unfinished(study: Study) -> str:
    """Return a line for each run that is not done, with its cause or the log to read."""
    check = RunCheck(study)
    lines, may_succeed = [], False
    for run in study.runs:
        stage = stage_left(check, *run)
        if not stage:
            continue
        failure = known_failure(study, *run) if stage == "train" else None
        if failure:
            what = f"train failed: {failure}; change experiments.{run[0]} in the config"
        else:
            may_succeed = True
            log = study.layout.log(stage, *run)
            hint = f"see {log}" if log.is_file() else "it was not started"
            what = f"{stage} is not done; {hint}"
        lines.append(f"  {run[0]}, seed {run[1]}: {what}")
    if not lines:
        return ""
    again = ["What is done is kept: the same command resumes from here."] if may_succeed else []
    return "\n".join(["Not finished:", *lines, *again])


def stage_left(check: RunCheck, experiment: str, seed: int) -> str | None:
    """Return the first stage of a run that is not done, or is out of date; None if all are done."""
    files = check.study.layout.run(experiment, seed)
    stages = check.study.stages(experiment)
    missing = (stage for stage in stages if not files.is_complete(stage))
    stage, _ = check.problem(experiment, seed) or (next(missing, None), "")
    return stage


def known_failure(study: Study, experiment: str, seed: int) -> str | None:
    """Return why a training fails whenever it is tried; None if it is not known to.

    What failed before its experiment was changed is tried again.
    """
    failure = Failure.read(study.layout.run(experiment, seed).failure)
    settings = failure.identity.get("settings") if failure else None
    now = study.experiments[experiment].settings(seed)
    same = isinstance(settings, dict) and not difference(settings, now)
    return failure.message if same else None


def report_what_is_done(study: Study, command: str) -> str:
    """Report on the runs that are done, if others are not; return what the report says.

    What is missing is in the report, and why. Nothing is reported where no run is done.
    """
    check = RunCheck(study)
    runs = study.evaluated_runs
    left = {run: stage for run in runs if (stage := stage_left(check, *run))}
    if not 0 < len(left) < len(runs):
        return ""
    out_of_date = [f"{name}={seed}" for name, seed in left if check.problem(name, seed)]
    options = ["--results", study.results_dir, "--data", study.layout.prepared(study.dataset)]
    options += ["--runs", *study.report_options, "--incomplete", f"--command={command}"]
    options += ["--out-of-date", *out_of_date] if out_of_date else []
    script = Path("scripts", "report.py")
    done = subprocesses.run([sys.executable, script, *options], timeout=REPORT_TIMEOUT)
    return f"\n{done.stdout if done.ok else f'No report on the runs that are done: {done.message}'}"


def write_resources(study: Study) -> None:
    """Write `resources.csv`; a study of which nothing has run has none."""
    try:
        missing = usage.write(study)
    except UserError as error:
        print(f"no resources.csv: {error}")
    else:
        print(missing, end="\n" if missing else "")
