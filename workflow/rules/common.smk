# What the rules share. It is included first; the order of the rules' own files does not matter.

import functools
import json
import shlex
import sys
from datetime import datetime
from pathlib import Path

from lib.core import code_digests, seeds
from lib.core.layout import FIGURES, REPORT_TABLES, SEARCH_TABLE
from lib.data import catalog, readers
from lib.reporting.verdict import reports_on
from lib.study import choice, forecast
from lib.study.run_states import RunStates, other_versions

FILES = STUDY.layout


# A file of the time of this start, if there is anything out of date. See `rerun_if`.
RERUN_STAMP = Path(".snakemake", "out-of-date")
# A report of other runs, or one that was made while runs were missing, or from files that are not
# there any more.
OLD_REPORT = workflow.is_main_process and (
    OUTDATED.incomplete or not reports_on(FILES, STUDY.evaluated_runs)
)
if workflow.is_main_process and (OUTDATED or OLD_REPORT or not RERUN_STAMP.exists()):
    RERUN_STAMP.parent.mkdir(exist_ok=True)
    RERUN_STAMP.write_text(datetime.now().isoformat())
for line in OUTDATED.lines():
    logger.info(f"Out of date: {line}")
if workflow.is_main_process and (VERSIONS := other_versions(OUTDATED.states.values())):
    logger.info(f"{VERSIONS}. They count as they are: see `versions` in config/README.md")
for line in forecast.lines(STUDY, OUTDATED.states) if workflow.is_main_process else ():
    logger.info(line)

# Where a job that fails had no earlier output to keep, there is none to bring back.
logger.addFilter(lambda record: not str(record.msg).startswith("Cannot restore "))


wildcard_constraints:
    experiment="[A-Za-z0-9_.-]+",
    seed=seeds.PATTERN,


# The files of one run, for the rules that have a run's wildcards.
TRAINED = FILES.outputs("train", "{experiment}", "{seed}")
EVALUATED = FILES.outputs("evaluate", "{experiment}", "{seed}")
# The data, whose content decides what depends on it, not its time: see lib/study/run_states.py.
PREPARED = FILES.prepared(STUDY.dataset).as_posix()
PREPARED_RECORD = FILES.prepared_record(STUDY.dataset).as_posix()
READER = readers.module_file(readers.kind_of(STUDY.dataset_entry))
CONTENT = json.dumps(catalog.content_of(STUDY.dataset_entry), sort_keys=True)


def unlocked(wildcards):
    """Return no input. On the way, remove the locks of a dead Snakemake, or end.

    All that is made needs the download. So this is called when Snakemake is about to lock its
    files, if it will.
    """
    execution = workflow.execution_settings
    if workflow.is_main_process and execution and execution.lock and not workflow.dryrun:
        program = os.path.relpath(Path(sys.executable).with_name("snakemake"))
        try:
            line = locks.clear(FILES, shlex.join([program, *sys.argv[1:], "--unlock"]))
        except UserError as error:
            sys.exit(f"error: {error}")
        if line:
            logger.info(line)
    return []


def outputs_of(stage, runs):
    """Return the files that a stage writes, for some runs."""
    return [path for run in runs for path in FILES.outputs(stage, *run)]


def searched(run):
    """Return whether a run is a search's: of one of its points, or of what it trains again."""
    return run[0] in STUDY.searches or STUDY.experiments[run[0]].search is not None


def study_with_search_results():
    """Return the study with what its searches have chosen, once they have: before, wait for it."""
    if STUDY.searches:
        checkpoints.choose.get()
    return choice.with_search_results(STUDY)


@functools.cache
def code_of(*scripts):
    """Return one digest of scripts and of all the project's files that they import.

    As a parameter of a rule it makes an edited module run again exactly the rules whose script
    imports it. As inputs, the files would do so too; but the files of a fresh clone are newer than
    any results that are copied into it, and a digest has no time. Training and evaluation do
    without it: their records name each file of their code.
    """
    return digest_of(*code_digests.files_of(*map(Path, scripts)))


def digest_of(*files):
    """Return one short digest of the content of files."""
    return code_digests.combined_digest(map(Path, files))[:16]


def rerun_if(reason):
    """Return the input by which a job runs again for a reason; without one, it does not.

    Snakemake runs again what is older than an input. RERUN_STAMP is always newer. As an `ancient`
    input, it is there, and its time is not looked at.
    """
    return RERUN_STAMP.as_posix() if reason else ancient(RERUN_STAMP.as_posix())


def data_and_reason(wildcards, stage):
    """Return two inputs of a stage of a run: the record beside the data, and that of `rerun_if`.

    The record's time makes nothing run again that is done. Snakemake, however, does not see that a
    job must run if all its inputs are `ancient` and one of them is made again.
    """
    run = run_of(wildcards)
    state = OUTDATED.states.get(run)
    if run[0] in STUDY.searches:  # it is trained again, with what has been chosen since
        state = RunStates(study_with_search_results()).of(*run)
    done = state is not None and stage in state.done
    reason = state.why if state is not None and not done else ""
    return [ancient(PREPARED_RECORD) if done else PREPARED_RECORD, rerun_if(reason)]


def run_of(wildcards):
    """Return experiment and seed of a job, as the study names its runs."""
    return wildcards.experiment, seeds.parse(wildcards.seed)


def experiment_of(wildcards):
    """Return the experiment of a job."""
    study = study_with_search_results() if wildcards.experiment in STUDY.searches else STUDY
    return study.experiments[wildcards.experiment]


def repeats():
    """Return whether that is what Snakemake was started for: then nothing is said of the study."""
    targets = [Path(str(target)) for target in workflow.dag_settings.targets]
    return any(
        path.is_relative_to(place)
        for path in targets
        for place in (FILES.reproductions, FILES.replays)
    )


def stored_experiment(wildcards):
    """Return the experiment of a job, without waiting for what searches may choose yet."""
    return choice.with_search_results(STUDY).experiments[wildcards.experiment]
