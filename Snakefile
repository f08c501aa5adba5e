"""data -> train -> evaluate -> report. The config says what to run, the profile says where."""

import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")


# What is wrong ends Snakemake by sys.exit: around another exception, it would show lines of code.
# Paths in the config and in the rules are relative to the clone, on every node.
if Path(workflow.current_basedir).resolve() != Path.cwd().resolve():
    sys.exit(
        f"run snakemake in the folder of this project: cd {workflow.current_basedir}\n"
        "(-s, --snakefile and --directory are not supported; results_dir in the config says where "
        "the results are written.)"
    )

# The folder is on the path only while its packages `lib` and `models` are found: no module of the
# project can be taken for one of the user's, nor the other way round.
sys.path.insert(0, str(Path(workflow.current_basedir, "scripts").resolve()))
from lib.cluster import executor, locks, submissions, summary
from lib.core import command_line, snapshot
from lib.core.errors import UserError
from lib.core.subprocesses import CODE_VARIABLE, shell_prefix
from lib.forks import start as forks
from lib.reporting.verdict import verdict_of
from lib.study import choice, run_states, stored
from lib.study.config import read_study

sys.path.pop(0)

command_line.never_fail_on_characters()

if not os.access(".", os.W_OK):
    sys.exit("this folder cannot be written: clone the project into one that can")
try:
    # A file given with --configfile stands alone.
    STUDY = read_study(workflow.overwrite_configfiles, workflow.config_settings.config)
except UserError as error:
    sys.exit(f"{error}\nThe keys are explained in config/README.md.")

# What the jobs run: the code as it is now, whatever is edited meanwhile. It is written when there are
# jobs, in `onstart`. A Snakemake that was started on a node by another one finds it in its
# environment.
if workflow.is_main_process:
    if workflow.execution_settings and workflow.execution_settings.no_hooks:
        sys.exit("--no-hooks is not supported: a hook of the Snakefile prepares the jobs' code")
    try:
        JOBS_CODE = snapshot.CodeOfJobs()
    except UserError as error:
        sys.exit(f"error: {error}")
    os.environ[CODE_VARIABLE] = JOBS_CODE.folder.as_posix()
shell.prefix(shell_prefix())
executor.register(STUDY, workflow)

# What is to be done is decided once, here. A rule with a benchmark or a container starts Snakemake
# on its node too, which does what it was started for.
try:
    OUTDATED = run_states.Outdated()
    if workflow.is_main_process:
        OUTDATED = run_states.find_outdated(STUDY)
except UserError as error:
    sys.exit(f"error: {error}")


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/choose.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/reproduce.smk"


# Snakemake does not notice a missing file of a run while the report is there: OUTDATED does.
rule all:
    default_target: True
    input:
        rules.report.output,
        # Until a choice is there, no reason of the report's own counts: it waits for the checkpoint.
        rules.choose.output if STUDY.searches else [],
    localrule: True


onstart:
    if workflow.execution_settings.lock:
        locks.mark(STUDY.layout)
    if workflow.is_main_process:
        try:
            if not repeats():
                stored.write(STUDY)
            JOBS_CODE.start(STUDY.layout, submissions.in_queue, locks.is_dead)
        except UserError as error:
            sys.exit(f"error: {error}")
    # On Slurm, each job that works on many runs has a fork server of its own.
    if STUDY.runs_per_job > 1 and workflow.local_exec:
        forks.use_until_exit(JOBS_CODE.folder)


onsuccess:
    if workflow.local_exec:  # Slurm may start a job again that has just ended
        JOBS_CODE.remove()
    if not repeats():
        summary.write_resources(choice.with_search_results(STUDY))
        print(verdict_of(STUDY.layout))


onerror:
    if not repeats():
        decided = choice.with_search_results(STUDY)
        summary.write_resources(decided)
        print(summary.unfinished(decided))
        print(summary.report_what_is_done(decided, stored.command(STUDY, sys.argv[1:])))
