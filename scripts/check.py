"""Check each model and each job of a config before anything is queued. It submits nothing.

Each experiment's model takes one training step on random images, here, on the CPU. Then Snakemake
passes the `sbatch` line of each kind of job to `sbatch --test-only`, as it does before each run.
Each error names the key to change, or the line of the model.
"""

import sys

import lib.core.command_line as command_line  # first, for Ctrl-C

import torch

from lib.cluster import profile, slurm
from lib.cluster.snakemake_command import ask_slurm
from lib.core.errors import UserError
from lib.data import readers
from lib.data.splits import held_out_size
from lib.running import process
from lib.running.dry_step import dry_step
from lib.study.config import add_argument, read_study
from lib.study.study import Study


def main() -> None:
    """Run the command line."""
    process.prepare()
    parser = command_line.parser(__doc__)
    add_argument(parser)
    profile.add_argument(parser)
    args = parser.parse_args()
    study = read_study(args.configfile, {})
    problems, out_of_reach = model_problems(study), slurm.problems()
    # The jobs of all runs, also of those that are done, and also while a run is going on.
    words = ("--forceall", "--nolock")
    asked = 0 if out_of_reach else ask_slurm(args.profile, args.configfile, *words)
    problems += out_of_reach
    if problems:
        raise UserError("\n".join(problems))
    print(where_the_data_is(study), flush=True)
    sys.exit(asked)


def model_problems(study: Study) -> list[str]:
    """Try a training step of each experiment; return what is wrong, and print who passes."""
    data = study.facts
    problems = []
    for name, experiment in study.experiments.items():
        settings = experiment.recipe
        try:
            for train_size, test_size in data.sizes:
                held_out = held_out_size(settings.validation_size, train_size)
                dry_step(
                    settings,
                    tuple(data.input_shape),
                    len(data.classes),
                    train_size - held_out,
                    (held_out or test_size, test_size),
                    torch.device("cpu"),
                )
            print(f"{name}: {settings.model['name']} can be trained", flush=True)
        except UserError as error:
            problems.append(f"experiments.{name}: {error}")
    return problems


def where_the_data_is(study: Study) -> str:
    """Say whether the data is there already."""
    prepared = study.layout.prepared(study.dataset)
    if prepared.is_file():
        return f"{study.dataset} is prepared: {prepared}"
    if readers.downloads(study.dataset_entry):
        return f"{study.dataset} will be downloaded on this machine into {study.data_dir}"
    data, folds = study.facts, study.folds
    images = f"{data.train_size:,} training and {data.test_size:,} test images"
    if folds[0]:
        images = f"{data.train_size + data.test_size:,} images in {len(folds)} folds,"
    return f"{study.dataset} is here: {images} of {len(data.classes)} classes"


if __name__ == "__main__":
    command_line.run(main)
