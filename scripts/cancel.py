"""End a study's driver (make submit) and cancel the study's jobs, and no other jobs.

It waits until they have left the queue. What they have trained so far is kept.
"""

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.cluster import driver, slurm
from lib.core.errors import UserError
from lib.study.config import add_argument, read_study


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    args = parser.parse_args()
    files = read_study(args.configfile, {}).layout
    if problems := slurm.problems():
        raise UserError("\n".join(problems))
    job = driver.cancel_driver(files)
    canceled = driver.cancel_jobs(files)
    print(f"The driver has ended: Slurm job {job}" if job else "There was no driver.")
    if canceled:
        print(f"Canceled: Slurm jobs {' '.join(canceled)}")
    print("No job of this study is in the queue. To go on: make submit")


if __name__ == "__main__":
    command_line.run(main)
