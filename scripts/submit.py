"""Run a study on Slurm without a process on the login node: Snakemake itself becomes a Slurm job.

The jobs are checked and the data is prepared here, since nodes often have no internet. Then
Snakemake is submitted as a small job, the driver, which submits all others. When the driver's time
is nearly up, it cancels them and goes back into the queue, and they resume from their checkpoints.
"""

import subprocess
import sys
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.cluster import driver, profile, slurm, snakemake_command
from lib.core.errors import UserError
from lib.study.config import add_argument, read_study


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    profile.add_argument(parser)
    add = parser.add_argument
    add(
        "--runtime",
        type=command_line.at_least(4),
        default=1440,
        metavar="MINUTES",
        help="the driver's time, up to the partition's limit (default: %(default)s)",
    )
    add("--drive", action="store_true", help="be the driver, in its job (default: submit it)")
    args = parser.parse_args()
    study = read_study(args.configfile, {})
    files = study.layout
    snakemake = snakemake_command.command(args.profile, args.configfile)
    if args.drive:
        sys.exit(driver.drive(files, snakemake))
    if problems := slurm.problems():
        raise UserError("\n".join(problems))
    job, doing = driver.find(files)
    if job:
        raise UserError(
            f"the study has a driver already, Slurm job {job}: {doing}; to end it: make cancel"
        )
    driver.clear_after_killed_driver(files)
    if snakemake_command.ask_slurm(args.profile, args.configfile):
        raise UserError("nothing was submitted")
    prepare(files.prepared(study.dataset), args.configfile)
    command = [sys.executable, "scripts/submit.py", "--drive", "--profile", str(args.profile)]
    command += ["--configfile", *map(str, args.configfile)] if args.configfile else []
    asked = driver.request(profile.Profile.read(args.profile), args.runtime)
    job = driver.submit(files, command, asked)
    print(f"The driver is Slurm job {job}. Its log: {driver.log_folder(files)}/{job}.log")
    print("Next: make watch, make status, make cancel")


def prepare(data: Path, configs: list[Path]) -> None:
    """Download and prepare the data on this machine, where that is still to do.

    Raises:
        UserError: Snakemake could not, and has said why.
    """
    local = snakemake_command.command(Path("profiles/local"), configs, "--", data.as_posix())
    if subprocess.run(local, check=False).returncode:
        raise UserError("the data could not be prepared; nothing was submitted")


if __name__ == "__main__":
    command_line.run(main)
