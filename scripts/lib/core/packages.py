"""The packages that the project needs, and in which versions: read from pyproject.toml."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def needed(requirements: str) -> list[str]:
    """Return what pyproject.toml asks for, with the test tools for `requirements-dev.txt`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tools = project["dependency-groups"]["dev"] if "dev" in Path(requirements).name else []
    return project["project"]["dependencies"] + tools


def version() -> str:
    """Return the version of this project."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]


def requirement_class() -> type:
    """Return the class that reads a requirement.

    An environment with nothing in it but pip has only pip's own copy of it.

    Raises:
        ImportError: the environment has neither `packaging` nor pip.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
    return Requirement
