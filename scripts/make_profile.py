"""Write the profile for this cluster: ask Slurm what it is, and what it wants of a job.

It finds the partitions that you may use and their limits, whether a job names one, the account, the
QoS, and the constraint that a job needs, how to ask for a GPU, whether there is accounting, and how
many jobs you may have. `sbatch --test-only` is asked, so nothing is submitted. What you have set in
the profile is kept. The difference is shown; with --write it is written, and checked.
"""

import difflib
import subprocess
import sys
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.cluster import partitions_file, profile, site_profile, slurm
from lib.cluster.profile import Profile
from lib.cluster.site import Site
from lib.core import files, strict_yaml, yaml_edit
from lib.core.errors import UserError
from lib.study.config import add_argument


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    profile.add_argument(parser)
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="where to write; what is there is kept as the beginning (default: --profile)",
    )
    add(
        "--account",
        metavar="NAME",
        help="the account to charge, where you have more than one (default: that of the profile)",
    )
    add(
        "--write",
        action="store_true",
        help="write the profile, then check it (default: only show what would change)",
    )
    args = parser.parse_args()
    if problems := slurm.problems():
        raise UserError("\n".join([*problems, "A profile is made on the cluster that it is for."]))
    folder = args.output or args.profile
    found = Profile.read(folder, args.profile)
    file = found.file
    before = {path.name: text_of(path) for path in (file, found.partitions_file)}
    begun = dict(before)
    if args.account:
        account = {site_profile.ACCOUNT: args.account}
        begun[file.name] = yaml_edit.edit(before[file.name], account, str(file))
    plan, after = fitting(begun, found)
    print(*plan.findings, sep="\n", flush=True)
    print(difference(before, after, folder) or f"{folder} fits this cluster already", flush=True)
    if not args.write:
        print("Nothing was written. To write it: --write")
        return
    for name, text in after.items():
        if text != text_of(folder / name):
            files.write_text(folder / name, text)
    if plan.choices:
        raise UserError(f"choose in {folder / file.name}: {'; '.join(plan.choices)}")
    finish(folder, args.configfile)


def text_of(path: Path) -> str:
    """Return a file; nothing where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def fitting(texts: dict[str, str], found: Profile) -> tuple[site_profile.Plan, dict[str, str]]:
    """Find out what profile fits this cluster.

    Args:
        texts: the files of the profile to begin with, by name.
        found: that profile.

    Returns:
        What was found, and the files of the profile that fits.
    """
    file, beside = found.file, found.partitions_file
    content = strict_yaml.read(texts[file.name], str(file)) or {}
    partitions = strict_yaml.read(texts[beside.name], str(beside)) or {}
    site = Site()
    cluster = site.config["ClusterName"]
    about = partitions_file.is_about(texts[beside.name], cluster)
    known = (about and partitions.get("partitions")) or {}
    plan = site_profile.Plan(site, content, known).make()
    text = partitions_file.updated(texts[beside.name], cluster, plan.partitions)
    config = yaml_edit.edit(texts[file.name], plan.settings, str(file))
    return plan, {file.name: config, beside.name: text}


def difference(before: dict[str, str], after: dict[str, str], folder: Path) -> str:
    """Return what changes in the files, as `diff -u` shows it."""
    lines = []
    for name, text in after.items():
        old, new = before[name].splitlines(), text.splitlines()
        names = (str(folder / name), f"{folder / name} (new)")
        lines += difflib.unified_diff(old, new, *names, n=1, lineterm="")
    return "\n".join(lines)


def finish(folder: Path, configs: list[Path]) -> None:
    """Check the new profile, and say what to type next.

    Raises:
        SystemExit: with the exit status of the check, which has said what is wrong.
    """
    print(f"{folder} is written. Checking it:", flush=True)
    check = [sys.executable, "scripts/check.py", "--profile", str(folder)]
    words = ["--configfile", *map(str, configs)] if configs else []
    status = subprocess.run([*check, *words], check=False).returncode
    if status == 0:
        print(f"Next: .venv/bin/snakemake {' '.join(['--profile', str(folder), *words])}")
    sys.exit(status)


if __name__ == "__main__":
    command_line.run(main)
