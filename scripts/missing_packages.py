"""Say which of the packages that this project needs an environment lacks, and how to add them.

It is for an environment that somebody made by hand, and changes nothing in it. What is needed, and
in which versions, is in pyproject.toml. It needs no package but `packaging` or pip.
"""

import argparse
import importlib
import re
import shlex
import sys
from importlib import metadata

from lib.core.packages import needed, requirement_class


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
    packages = needed(parser.parse_args().requirements)
    missing = {each: problem for each in packages if (problem := problem_with(each))}
    if not missing:
        # Only the first two come with libraries of their own, which may not fit the machine.
        missing = {each: problem for each in packages[:2] if (problem := import_problem(each))}
    if missing:
        lines = [f"  {each}: {problem}" for each, problem in missing.items()]
        command = shlex.join([sys.executable, "-m", "pip", "install", *missing])
        sys.exit(
            f"error: {sys.prefix} was not made by make venv, so it is not changed. It lacks:\n"
            + "\n".join(lines)
            + f"\nTo add what is missing:\n  {command}"
        )


def name_of(requirement: str) -> str:
    """Return the name of a package without the versions."""
    return re.match(r"[\w.-]+", requirement)[0]


def problem_with(requirement: str) -> str | None:
    """Return what is wrong with a package that is needed, or None where it is installed."""
    try:
        version = metadata.version(name_of(requirement))
    except metadata.PackageNotFoundError:
        return "not installed"
    try:
        Requirement = requirement_class()  # noqa: N806
    except ImportError:
        return "its version cannot be compared without the package `packaging`"
    # A local version, such as 2.14.1+cpu, counts as 2.14.1.
    fits = Requirement(requirement).specifier.contains(version, prereleases=True)
    return None if fits else f"{version} is installed"


def import_problem(requirement: str) -> str | None:
    """Return why a package that is installed cannot be imported, or None where it can."""
    try:
        importlib.import_module(name_of(requirement))
    except Exception as error:  # whatever a broken installation raises
        return f"cannot be imported: {error}"
    return None


if __name__ == "__main__":
    main()
