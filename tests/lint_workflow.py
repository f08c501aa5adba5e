"""Run `snakemake --lint`; fail on any finding but the one that we accept.

Snakemake wants a conda environment or a container for every rule. Ours all run in the one virtual
environment that the requirements file pins with hashes.
"""

import re
import subprocess
import sys
from pathlib import Path

ACCEPTED = "Specify a conda environment or container for each rule."
SNAKEMAKE = Path(sys.executable).with_name("snakemake")


def findings(folder: Path = Path()) -> dict[str, list[str]]:
    """Return the lint's findings by the rule or file in which they are.

    Raises:
        RuntimeError: the lint itself failed.
    """
    done = subprocess.run([SNAKEMAKE, "--lint"], cwd=folder, capture_output=True, text=True)
    found: dict[str, list[str]] = {}
    for line in (done.stdout + done.stderr).splitlines():
        if match := re.match(r"Lints for (.+):$", line):
            found[match[1]] = []
        elif match := re.match(r"    \* (.+?):?$", line):
            found[list(found)[-1]].append(match[1])
    if not found and "Congratulations" not in done.stdout + done.stderr:
        raise RuntimeError(done.stdout + done.stderr)
    return found


if __name__ == "__main__":
    others = [
        f"{place}: {title}"
        for place, titles in findings().items()
        for title in titles
        if title != ACCEPTED
    ]
    print("\n".join(others) or "snakemake --lint: no finding but the accepted one")
    sys.exit(bool(others))
