"""Say which of the packages that this project needs an environment lacks, and how to add them.

It is for an environment that somebody made by hand, and changes nothing in it. What is needed, and
in which versions, is in pyproject.toml. It needs no package but `packaging`.
"""

import argparse
import importlib
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--requirements",
        default="requirements.txt",
        metavar="FILE",
        help="requirements-dev.txt: what the tests need, too (default: %(default)s)",
    )
    args = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = project["project"]["dependencies"]
    if "dev" in args.requirements:
        needed += project["dependency-groups"]["dev"]
    missing = {each: problem for each in needed if (problem := problem_with(each))}
    if not missing:
        # Only the first two come with libraries of their own, which may not fit the machine.
        missing = {each: problem for each in needed[:2] if (problem := import_problem(each))}
    if missing:
        lines = [f"  {each}: {problem}" for each, problem in missing.items()]
        command = shlex.join([sys.executable, "-m", "pip", "install", *missing])
        sys.exit(
            f"error: {sys.prefix} was not made by make venv, so it is not changed. It lacks:\n"
            + "\n".join(lines)
            + f"\nTo add what is missing:\n  {command}"
        )


def problem_with(requirement: str) -> str | None:
    """Return what is wrong with a package that is needed, or None where it is installed."""
    name = requirement.split("==")[0].split("<")[0].strip()
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return "its version cannot be compared without the package `packaging`"
    # A local version, such as 2.14.1+cpu, fits 2.14.1.
    fits = Requirement(requirement).specifier.contains(version, prereleases=True)
    return None if fits else f"{version} is installed"


def import_problem(requirement: str) -> str | None:
    """Return why a package that is installed cannot be imported, or None where it can."""
    try:
        importlib.import_module(requirement.split("==")[0])
    except Exception as error:  # whatever a broken installation raises
        return f"cannot be imported: {error}"
    return None


if __name__ == "__main__":
    main()
