"""Make a run again from its record: its code, settings, data, threads and seed.

    python scripts/repeat.py --run results/runs/cnn/seed1 --data results/data/MNIST.safetensors

It trains and evaluates into a folder of its own, compares, and says one of these:

reproduced bit for bit   weights, predictions and history (but for seconds) are equal
agrees to rounding       they differ as two machines do; what differs first, and the likely cause
differs                  in code, settings or data, or the weights are not what the code gives
cannot be repeated       it is not trained, or its code or data is not there

`make reproduce` does so for many runs, here or on Slurm.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.core.errors import UserError
from lib.core.files import write_json
from lib.core.layout import Layout, RunFiles
from lib.reporting import reproduction


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="a run's folder, from train.py")
    add("--data", type=Path, required=True, metavar="FILE", help="a .safetensors from prepare.py")
    add(
        "--results",
        type=Path,
        metavar="DIR",
        help="the folder that contains code/ (default: three above the run's)",
    )
    add(
        "--threads",
        type=command_line.at_least(1, 1024),
        help="CPU threads (default: as many as the record names)",
    )
    add("--output", type=Path, metavar="FILE", help="a JSON file for what came of it")
    args = parser.parse_args()

    files = RunFiles(args.run.absolute())
    if args.results is None and len(files.folder.parents) < 3:
        raise UserError(f"--results: {args.run} is in no folder of results: name one")
    layout = Layout(args.results or files.folder.parents[2])
    outcome = reproduction.reproduce(files, args.data, layout, args.threads)
    if args.output:
        write_json(args.output, asdict(outcome))
    print("\n".join([f"{args.run}: {outcome.outcome}", *outcome.lines()[1:]]))
    sys.exit(0 if args.output else reproduction.status([outcome], exact=False))


if __name__ == "__main__":
    command_line.run(main)
