#!/usr/bin/env python3
"""Run the unit tests with other versions of the packages, in an environment apart.

  python tests/versions.py lowest    the lowest that pyproject.toml allows
  python tests/versions.py newest    the newest that the index has
  python tests/versions.py lowest tests/unit/test_train.py    some tests; after -- pytest's options

The environment has 7 GB, below TMPDIR, and is gone in the end. Beside the lowest versions, the
other packages have those of constraints.txt. With the newest, the upper limits of pyproject.toml do
not count: what fails says which of them is needed. The tests include the comparison with the
lesson's plain script.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lowest(requirement: str) -> str:
    """Return the requirement with the lowest of its versions only."""
    return re.sub(r">=([\d.]+).*", r"==\1", requirement)


def newest(requirement: str) -> str:
    """Return the requirement with any of its versions, of which pip takes the newest."""
    return re.split("[<>=]", requirement)[0]


def main() -> int:
    """Run the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("which", choices=("lowest", "newest"), help="which versions")
    parser.add_argument(
        "tests", nargs="*", default=["tests/unit"], metavar="TEST", help="default: tests/unit"
    )
    args = parser.parse_intermixed_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    choose = {"lowest": lowest, "newest": newest}[args.which]
    packages = [choose(each) for each in project["project"]["dependencies"]]
    print("Installing", *packages, flush=True)
    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        pip = [python, "-m", "pip", "install", "--quiet", "--use-pep517", "--prefer-binary"]
        packages += project["dependency-groups"]["dev"]
        limits = ["--constraint", "constraints.txt"] if args.which == "lowest" else []
        subprocess.run([*pip, *limits, *packages], cwd=ROOT, check=True)
        environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
        command = [python, "-m", "pytest", *args.tests]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
