"""Print the job script that one would write by hand for a run, to submit with plain `sbatch`.

    python scripts/job_script.py --run cnn/seed1 > cnn.sh
    sbatch cnn.sh

The script asks Slurm for the same as the workflow's training job, trains with the same options, and
evaluates. So the results are the same, byte for byte. They go to a folder of their own, and the
workflow does not look at them. This command submits nothing, and needs no Slurm.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.cluster import profile, sbatch, snakemake_command
from lib.core.layout import run_name
from lib.core.seeds import Seed
from lib.study.config import add_argument, read_study
from lib.study.study import Study

TEMPLATE = """\
#!/bin/bash
# {run}: train and evaluate it in one job, without the workflow. Submit this file with sbatch.
# The data must be prepared: {prepare}
{requests}

# A command that fails ends the job. When its time is up, or it is canceled, Slurm sends SIGTERM.
# This shell then waits until train.py has saved a checkpoint. Submitted again, it resumes from it.
set -e
trap : TERM

# The environment, by its path: there is no module to load, and nothing to activate.
export PATH={programs}:"$PATH"

# Train. The results of the workflow, in {results}, are not touched.
{train}

# Load the weights, classify the test images, print the accuracy.
{evaluate}
"""

# What each option says. One that is not here comes from the profile.
COMMENTS = {
    "--job-name": "its name in squeue",
    "--output": "what it prints; %j is its number",
    "--account": "the account to charge",
    "--partition": "the nodes among which Slurm chooses",
    "--constraint": "what the node must have",
    "--qos": "the quality of service",
    "--time": "time limit in minutes",
    "--mem": "memory in MiB",
    "--mem-per-cpu": "memory per core in MiB",
    "--ntasks": "number of processes",
    "--cpus-per-task": "cores per process",
    "--gpus": "GPUs",
    "--gres": "GPUs",
    "--requeue": "if its node fails, start it again",
    "--signal": "an early signal, only to what srun starts",
    "--open-mode": "if it starts again, continue the output",
    "--chdir": "the folder of the project",
}
# What the workflow tells its jobs apart by; the script has a name and an output of its own.
NOT_ASKED = ("--parsable", "--job-name", "--output", "--comment", "--export")
COLUMN = 44  # in which the comments begin, where the options are not longer


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    parser.add_argument("--run", required=True, help="the run, such as cnn/seed1")
    profile.add_argument(parser)
    args = parser.parse_args()
    study = read_study(args.configfile, {})
    run = study.run_named(args.run)
    weights = study.layout.run(*run).weights.as_posix()
    job = snakemake_command.planned_job(args.profile, args.configfile, weights)
    print(script(study, *run, job, args.configfile), end="")
    if not study.layout.prepared(study.dataset).is_file():
        prepare = prepare_command(study, args.configfile)
        print(f"The data is not prepared yet. Before you submit: {prepare}", file=sys.stderr)


def script(study: Study, experiment: str, seed: Seed, job: dict, configs: Sequence[Path]) -> str:
    """Return the job script of a run.

    Args:
        study: the study.
        experiment: of the run.
        seed: of the run.
        job: the training job as the workflow would submit it: `sbatch`, its line, and `threads`.
        configs: the config files that were named.
    """
    files, data = study.layout.by_hand(experiment, seed), study.layout.prepared(study.dataset)
    name, output = f"{experiment}-seed{seed}", study.layout.by_hand_output(experiment, seed)
    asked = [("--job-name", name), ("--output", output.as_posix())]
    asked += [each for each in sbatch.options(job["sbatch"]) if each[0] not in NOT_ASKED]
    folder, threads = files.folder.as_posix(), str(job["threads"])
    train = ["scripts/train.py", "--data", data.as_posix(), "--output", folder]
    train += ["--threads", threads, *study.experiments[experiment].train_options(seed)]
    evaluate = ["scripts/evaluate.py", "--run", folder, "--data", data.as_posix()]
    evaluate += ["--threads", threads]
    return TEMPLATE.format(
        run=run_name(experiment, seed),
        prepare=prepare_command(study, configs),
        requests="\n".join(sbatch_line(*each) for each in asked),
        programs=shlex.quote(str(Path(sys.executable).parent)),
        results=study.layout.run(experiment, seed).folder.as_posix(),
        train=python_command(train),
        evaluate=python_command(evaluate),
    )


def sbatch_line(name: str, value: str | None) -> str:
    """Return an option of sbatch as a line of a job script, with what it says."""
    joined = "=" if name.startswith("--") else " "
    text = f"#SBATCH {name}" + ("" if value is None else f"{joined}{shlex.quote(value)}")
    return f"{text:<{COLUMN - 2}}  # {COMMENTS.get(name, 'an option of the profile')}"


def python_command(words: Sequence[str]) -> str:
    """Return a command of the shell with one option per line."""
    lines = ["python"]
    for word in words:
        if word.startswith("--"):
            lines.append("   ")
        lines[-1] += f" {shlex.quote(word)}"
    return " \\\n".join(lines)


def prepare_command(study: Study, configs: Sequence[Path]) -> str:
    """Return the command that downloads and prepares the data on this machine."""
    options = ["--configfile", *map(str, configs)] if configs else []
    data = study.layout.prepared(study.dataset).as_posix()
    return shlex.join(["snakemake", "--profile", "profiles/local", *options, "--", data])


if __name__ == "__main__":
    command_line.run(main)
