#!/usr/bin/env python3
"""Run the unit tests with the lowest versions that pyproject.toml allows, in an environment apart.

  python tests/lowest.py tests/unit/test_train.py    some of them; after -- also options of pytest

The environment has 7 GB, below TMPDIR, and is gone in the end. The versions of the other packages
are those of constraints.txt. That includes the comparison with the lesson's plain script.
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


def main() -> int:
    """Run the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "tests", nargs="*", default=["tests/unit"], metavar="TEST", help="default: tests/unit"
    )
    tests = parser.parse_intermixed_args().tests
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [lowest(each) for each in project["project"]["dependencies"]]
    print("Installing", *packages, flush=True)
    with tempfile.TemporaryDirectory(prefix="lowest-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        pip = [python, "-m", "pip", "install", "--quiet", "--use-pep517", "--prefer-binary"]
        packages += project["dependency-groups"]["dev"]
        subprocess.run([*pip, "--constraint", "constraints.txt", *packages], cwd=ROOT, check=True)
        environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
        command = [python, "-m", "pytest", *tests]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
