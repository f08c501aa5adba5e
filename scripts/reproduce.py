"""Repeat runs of a study from their records, and say whether they give the same again.

    python scripts/reproduce.py --run cnn/seed1
    python scripts/reproduce.py --run all --profile profiles/slurm

Each is trained and evaluated again away from the results, with the code, settings, data, threads
and seed of its record, as a job of Snakemake's. What came of `all` is in
RESULTS/reproduction.csv.

Exit status: 0 if all are reproduced bit for bit, or agree to rounding; 3 if some only agree to
rounding and --exact is given; 1 if one differs, or could not be repeated.
"""

import random
import sys
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.cluster import profile, snakemake_command
from lib.core.errors import UserError
from lib.core.files import read_object, write_csv
from lib.core.layout import run_name
from lib.core.seeds import Run
from lib.reporting import reproduction
from lib.reporting.reproduction import Reproduction
from lib.study.config import add_argument, read_study
from lib.study.study import Study

KINDS = {
    "outcome": str, "why": str, "first_difference": str, "predictions_differ": int | None,
    "another_seed_differs": int | None,
}  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    add = parser.add_argument
    add("--run", required=True, help="the run, such as cnn/seed1, or all rows of report.csv: all")
    add(
        "--sample",
        type=command_line.at_least(1),
        metavar="N",
        help="so many of all, drawn at random (default: all)",
    )
    add("--exact", action="store_true", help="exit with 3 where a run only agrees to rounding")
    profile.add_argument(parser, "profiles/local")
    args = parser.parse_args()
    study = read_study(args.configfile, {})
    runs = chosen(study, args.run, args.sample)
    outputs = {run: study.layout.reproduction(*run) for run in runs}
    status = snakemake_command.make(args.profile, args.configfile, list(outputs.values()))
    outcomes = {run: read(path) for run, path in outputs.items()}
    print("\n".join(line for run in runs for line in lines(study, run, outcomes[run])))
    known = {run: each for run, each in outcomes.items() if each}
    if args.run == "all":
        table = study.layout.reproduction_table
        rows = [reproduction.row(run_name(*run), each) for run, each in known.items()]
        write_csv(table, reproduction.COLUMNS, rows)
        print(f"{len(known)} of {len(runs)} runs were repeated: {table}")
    if len(known) < len(runs):
        sys.exit(status or 1)
    sys.exit(reproduction.status(known.values(), args.exact))


def chosen(study: Study, name: str, sample: int | None) -> list[Run]:
    """Return experiment and seed of each run that is to be repeated.

    Raises:
        UserError: there is none of that name.
    """
    if name != "all":
        return [study.run_named(name)]
    runs = study.evaluated_runs
    if not runs:
        raise UserError("no run is in the report yet: its searches have not been decided")
    if sample and sample < len(runs):
        drawn = set(random.sample(runs, sample))
        return [run for run in runs if run in drawn]
    return runs


def read(path: Path) -> Reproduction | None:
    """Return what came of a run; None if it could not be repeated."""
    content = read_object(path, KINDS)
    return Reproduction(**content) if content else None


def lines(study: Study, run: Run, outcome: Reproduction | None) -> list[str]:
    """Say what came of a run."""
    if outcome is None:
        log = study.layout.log("reproduce", *run)
        return [f"{run_name(*run)}: not repeated: see {log}"]
    first, *others = outcome.lines()
    return [f"{run_name(*run)}: {first}", *(f"  {line}" for line in others)]


if __name__ == "__main__":
    command_line.run(main)
