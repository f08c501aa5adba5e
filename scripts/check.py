"""Check whether the cluster would accept the jobs of a config with a profile. It submits nothing.

The job of each experiment is passed to `sbatch --test-only`, and the partitions and the free disk
space are checked. Each error names the key to change.
"""

from pathlib import Path

from lib.cluster import preflight
from lib.core import command_line
from lib.study.config import add_argument, read_study
from lib.study.study import Study


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    add = parser.add_argument
    add(
        "--profile",
        type=Path,
        default=Path("profiles/slurm"),
        metavar="DIR",
        help="the profile (default: %(default)s)",
    )
    args = parser.parse_args()
    study = read_study(args.configfile, {})
    preflight.check(study, args.profile)
    print(where_the_data_is(study))
    print(f"Slurm would take the jobs of all {len(study.experiments)} experiments")


def where_the_data_is(study: Study) -> str:
    """Say whether the data is there already."""
    prepared = study.layout.prepared(study.dataset)
    if prepared.is_file():
        return f"{study.dataset} is prepared: {prepared}"
    return f"{study.dataset} will be downloaded on this machine into {study.data_dir}"


if __name__ == "__main__":
    command_line.run(main)
