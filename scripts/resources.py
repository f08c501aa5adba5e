"""Compare what each job asked for with what it used, one row per job: resources.csv.

The figures are those of `sacct` where there is accounting, else of the runs' own records. The last
column names a request that is enough: a fifth more than was used, rounded up.
"""

from lib.cluster import usage
from lib.core import command_line
from lib.study.config import add_argument, read_study


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    args = parser.parse_args()
    study = read_study(args.configfile, {})
    missing = usage.write(study)
    print(study.layout.resources, missing, sep="\n" if missing else "")


if __name__ == "__main__":
    command_line.run(main)
