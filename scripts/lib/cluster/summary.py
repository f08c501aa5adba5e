"""What the terminal shows when a run of the workflow ends early, and what its jobs have used."""

from lib.cluster import usage
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.layout import STAGES
from lib.study.study import Study


def unfinished(study: Study) -> str:
    """Return a line for each run that lacks files, with its cause or the log to read."""
    lines, may_succeed = [], False
    for run in study.runs:
        files = study.layout.run(*run)
        missing = [stage for stage in STAGES if not files.is_complete(stage)]
        if not missing:
            continue
        failure = known_failure(study, *run) if missing[0] == "train" else None
        if failure:
            what = f"train failed: {failure}; change experiments.{run[0]} in the config"
        else:
            may_succeed = True
            log = study.layout.log(missing[0], *run)
            hint = f"see {log}" if log.is_file() else "it was not started"
            what = f"{missing[0]} is not done; {hint}"
        lines.append(f"  {run[0]}, seed {run[1]}: {what}")
    if not lines:
        return ""
    again = ["What is done is kept: the same command resumes from here."] if may_succeed else []
    return "\n".join(["Not finished:", *lines, *again])


def known_failure(study: Study, experiment: str, seed: int) -> str | None:
    """Return why a training fails whenever it is tried; None if it is not known to.

    What failed before its experiment was changed is tried again.
    """
    failure = Failure.read(study.layout.run(experiment, seed).failure)
    if failure is None:
        return None
    entry = study.experiments[experiment]
    now = {**entry.training, "model": entry.model, "device": entry.device, "seed": seed}
    return failure.message if failure.identity.get("settings") == now else None


def write_resources(study: Study) -> None:
    """Write `resources.csv`; a study of which nothing has run has none."""
    try:
        usage.write(study)
    except UserError as error:
        print(f"no resources.csv: {error}")
