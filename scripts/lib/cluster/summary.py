"""What the terminal shows when a run of the workflow ends early, and what its jobs have used."""

from lib.cluster import usage
from lib.core.errors import UserError
from lib.core.layout import STAGES
from lib.study.study import Study


def unfinished(study: Study) -> str:
    """Return a line for each run that lacks files, with the log to read."""
    files = study.layout
    lines = []
    for run in study.runs:
        missing = [stage for stage in STAGES if not files.run(*run).is_complete(stage)]
        if missing:
            log = files.log(missing[0], *run)
            hint = f"see {log}" if log.is_file() else "it was not started"
            lines.append(f"  {run[0]}, seed {run[1]}: {missing[0]} is not done; {hint}")
    if not lines:
        return ""
    again = "What is done is kept: the same command resumes from here."
    return "\n".join(["Not finished:", *lines, again])


def write_resources(study: Study) -> None:
    """Write `resources.csv`; a study of which nothing has run has none."""
    try:
        usage.write(study)
    except UserError as error:
        print(f"no resources.csv: {error}")
