# What the rules share. It is included first; the order of the rules' own files does not matter.

import functools
import shlex
import sys
from pathlib import Path

from lib.core import code_digests
from lib.core.layout import FIGURES, REPORT_TABLES
from lib.study.job_requests import job_request

# The interpreter that runs Snakemake runs the scripts, whether or not its environment is activated.
# `set` is Snakemake's own prefix, which this one replaces: without it, a command that fails and is
# piped into tee would count as a success.
shell.prefix(
    f'set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
)

FILES = STUDY.layout


wildcard_constraints:
    experiment="[A-Za-z0-9_.-]+",
    seed="[0-9]+",


# The files of one run, for the rules that have a run's wildcards.
TRAINED = FILES.outputs("train", "{experiment}", "{seed}")
EVALUATED = FILES.outputs("evaluate", "{experiment}", "{seed}")
PREPARED = FILES.prepared(STUDY.dataset).as_posix()


def outputs_of_all_runs(*stages):
    """Return the files that stages write, for all runs."""
    return [path for run in STUDY.runs for stage in stages for path in FILES.outputs(stage, *run)]


@functools.cache
def code_of(*scripts):
    """Return one digest of scripts and of all the project's files that they import.

    As a parameter of a rule it makes an edited module run again exactly the rules whose script
    imports it. As inputs, the files would do so too; but the files of a fresh clone are newer than
    any results that are copied into it, and a digest has no time.
    """
    return digest_of(*code_digests.files_of(*map(Path, scripts)))


def digest_of(*files):
    """Return one short digest of the content of files."""
    return code_digests.combined_digest(map(Path, files))[:16]


def experiment_of(wildcards):
    """Return the experiment of a job."""
    return STUDY.experiments[wildcards.experiment]


def request_of(wildcards, attempt=1):
    """Return what a job asks for; a retry asks for more."""
    return job_request(experiment_of(wildcards), attempt)
