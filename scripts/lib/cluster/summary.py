"""What the terminal shows when a run of the workflow ends early, and what its jobs have used."""

import sys
from collections.abc import Iterable
from pathlib import Path

from lib.cluster import usage
from lib.core import subprocesses
from lib.core.errors import UserError
from lib.core.layout import SEARCH_TABLE
from lib.core.seeds import Run, parts
from lib.study.run_states import RunStates
from lib.study.study import Study

REPORT_TIMEOUT = 1800.0  # seconds


def unfinished(study: Study) -> str:
    """Return a line for each run that is not done, with its cause or the log to read."""
    states = RunStates(study)
    lines, may_succeed = [], False
    for run in study.runs:
        state = states.of(*run)
        if not state.left:
            continue
        if state.failure:
            what = f"train failed: {state.failure}; change experiments.{run[0]} in the config"
        else:
            may_succeed = True
            log = study.layout.log(state.left, *run)
            hint = f"see {log}" if log.is_file() else "it was not started"
            what = f"{state.left} is not done; {hint}"
        lines.append(f"  {run[0]}, seed {run[1]}: {what}")
    if not lines:
        return ""
    again = ["What is done is kept: the same command resumes from here."] if may_succeed else []
    return "\n".join(["Not finished:", *lines, *again])


def report_what_is_done(study: Study, command: str) -> str:
    """Report on the runs that are done, if others are not; return what the report says.

    What is missing is in the report, and why. Nothing is reported where no run is done, or no seed
    in all of its folds.
    """
    states, runs = RunStates(study), study.evaluated_runs
    left = {run: state for run in runs if (state := states.of(*run)).left}
    if not left or seeds_of(study, left) == seeds_of(study, runs):
        return ""
    out_of_date = [f"{name}={seed}" for (name, seed), state in left.items() if state.why]
    options = ["--results", study.results_dir, "--data", study.layout.prepared(study.dataset)]
    options += ["--runs", *study.report_options, "--incomplete", f"--command={command}"]
    options += study.metric_options
    options += ["--search", study.layout.table(SEARCH_TABLE)] if study.chosen else []
    options += ["--out-of-date", *out_of_date] if out_of_date else []
    script = Path("scripts", "report.py")
    done = subprocesses.run([sys.executable, script, *options], timeout=REPORT_TIMEOUT)
    return f"\n{done.stdout if done.ok else f'No report on the runs that are done: {done.message}'}"


def seeds_of(study: Study, runs: Iterable[Run]) -> set[tuple[str, int]]:
    """Return experiment, or search, and seed of runs, whatever their folds."""
    return {(study.experiments[name].search or name, parts(seed)[0]) for name, seed in runs}


def write_resources(study: Study) -> None:
    """Write `resources.csv`; a study of which nothing has run has none."""
    try:
        missing = usage.write(study)
    except UserError as error:
        print(f"no resources.csv: {error}")
    else:
        print(missing, end="\n" if missing else "")
