"""The script of a Slurm job of one run: the commands of its rule, as a step of Slurm's.

The plugin's own script starts Snakemake in the job, which starts it once more below `srun`. Each
start reads the whole study from the shared file system, as it is by then, and takes over a second
of processor time. This script does without: the commands are those that were planned when the job
was submitted.
"""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from snakemake_executor_plugin_slurm_jobstep import (
    get_cpu_setting,
    get_gpu_setting,
    get_node_setting,
)

from lib.forks.start import SHELL_PREFIX

# What is Snakemake's to do on the node, if a job has it; and what else is asked of a job here.
NEEDS = ("is_shadow", "benchmark", "needs_singularity", "env_modules", "conda_env")
JOB_ATTRIBUTES = (*NEEDS, "is_shell", "shellcmd", "get_wait_for_files")

# What srun would read of the environment: options for it, and the request of the job. As the
# plugin, keep only what says which job it is, and where Slurm's own config is.
KEPT = "SLURM_(JOB_ID|JOBID|CLUSTER_NAME|CONF|SUBMIT_DIR|SUBMIT_HOST)"
# Snakemake sets these for every shell command.
THREADS = [f"{name}_NUM_THREADS" for name in "OMP GOTO OPENBLAS MKL VECLIB NUMEXPR".split()]

TEMPLATE = r"""# On a node where this fails, say so before the job's own log begins.
cd {folder} || exit
{python} -ISc '' || exit
unset $(env | sed -nE 's/^((SLURM|SRUN|SBATCH)_[A-Z0-9_]+)=.*/\1/p' | grep -vxE '{kept}')
# Files may appear late on a shared file system.
seconds=0
for file in {inputs}; do
    until [ -e "$file" ]; do
        if [ "$seconds" -ge {latency_wait} ]; then
            echo "$file is not there after {latency_wait} s (latency-wait in the profile)" >&2
            exit 1
        fi
        sleep 1
        seconds=$((seconds + 1))
    done
done
mkdir -p {folders}
rm -f {logs}
export {threads}
exec {srun} bash -c {commands}"""


def suffices(job) -> bool:
    """Return whether a job needs nothing of Snakemake's on the node but its shell commands."""
    if job.is_group() or not job.is_shell or "mpi" in job.resources:
        return False
    return not any(getattr(job, need) for need in NEEDS)


def script_of(job, workflow) -> str:
    """Return the script of a job of Snakemake's, if it `suffices` for that."""
    asks_gpu = bool(job.resources.get("gpu"))
    settings = (get_cpu_setting(job, asks_gpu), get_gpu_setting(job), get_node_setting(job))
    return script(
        SHELL_PREFIX + job.shellcmd,
        folder=workflow.workdir_init,
        srun=" ".join(["srun", "-n1", "--cpu-bind=q", *filter(None, settings)]),
        threads=job.threads,
        inputs=map(str, job.get_wait_for_files()),
        outputs=map(str, job.output),
        logs=map(str, job.log),
        latency_wait=workflow.execution_settings.latency_wait,
    )


def script(
    commands: str,
    *,
    folder: str,
    srun: str,
    threads: int,
    inputs: Iterable[str],
    outputs: Iterable[str],
    logs: Iterable[str],
    latency_wait: int,
    python: str = sys.executable,
) -> str:
    """Return a script that does before some commands what Snakemake would do, and runs them.

    Args:
        commands: for bash.
        folder: in which they run.
        srun: what starts bash.
        threads: cores that the commands may use.
        inputs: files to wait for, `latency_wait` seconds together.
        outputs: files whose folders are made.
        logs: files that are removed, and whose folders are made.
        latency_wait: seconds.
        python: the interpreter that must be there.
    """
    logs = list(logs)
    folders = dict.fromkeys(str(Path(path).parent) for path in (*outputs, *logs))
    return TEMPLATE.format(
        folder=shlex.quote(folder),
        kept=KEPT,
        inputs=shlex.join(inputs),
        latency_wait=latency_wait,
        python=shlex.quote(python),
        folders=shlex.join(folders),
        logs=shlex.join(logs),
        threads=" ".join(f"{name}={threads}" for name in THREADS),
        srun=srun,
        commands=shlex.quote(commands),
    )
