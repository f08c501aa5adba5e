"""data -> train -> evaluate -> report: one street. The config says what, the profile says where."""

import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")

sys.path.insert(0, "scripts")
from beginning import before_queueing
from cli import Failure
from configuration import read_study
from ending import unfinished, verdict_of, write_resources

# The interpreter that runs Snakemake runs the scripts, whether or not its environment is activated.
# `set` is Snakemake's own prefix, which this one replaces: without it, a failed command that is
# piped into tee would count as done.
shell.prefix(
    f'set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
)

try:
    # A file given with --configfile stands alone. Snakemake hands it on to the jobs on other nodes.
    STUDY = read_study(workflow.overwrite_configfiles, workflow.config_settings.config)
except Failure as failure:
    raise WorkflowError(f"{failure}\nThe keys are explained in config/README.md.")

RESULTS = STUDY.results_dir
RUN = f"{RESULTS}/runs/{{experiment}}/seed{{seed}}"


wildcard_constraints:
    experiment="[A-Za-z0-9_.-]+",
    seed="[0-9]+",


include: "workflow/rules/download.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


# The runs' own files are asked for beside the report: else nobody would notice that one is gone.
rule all:
    default_target: True
    input:
        rules.report.output,
        [
            f"{RESULTS}/runs/{experiment}/seed{seed}/{file}"
            for experiment, seed in STUDY.runs
            for file in TRAINED + EVALUATED
        ],
    localrule: True


onstart:
    if workflow.executor_plugin.name == "slurm":
        before_queueing(STUDY, workflow)


onsuccess:
    write_resources(STUDY)
    print(verdict_of(Path(RESULTS)))


onerror:
    write_resources(STUDY)
    print(unfinished(Path(RESULTS), STUDY.runs, {"train": TRAINED, "evaluate": EVALUATED}))
