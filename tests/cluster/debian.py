#!/usr/bin/env python3
"""Run tests on another release of Debian: with its Slurm, its Python, and nothing of ours.

  debian.py trixie                those of Slurm that most depend on the release, the unit tests
  debian.py trixie tests/slurm    any others; after -- also options of pytest

The release is installed in a folder of about 8 GB, below TMPDIR, in which everything runs, apart
from this machine. In the end the folder is gone, also after Ctrl-C. It needs Debian or Ubuntu, and
root. Where apt and pip find packages here, they find them there.
"""

import argparse
import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import fail, install_packages

ROOT = Path(__file__).resolve().parents[2]
# What even the smallest Debian has not. Slurm is installed by `slurm.py run`.
PACKAGES = "ca-certificates,git,iproute2,make,procps,python3-venv,util-linux"
# There is no network.
DOWNLOADS = "tests/unit/test_train.py::test_the_lessons_bits_on_all_of_mnist"
TESTS = [f"tests/slurm/test_{name}.py" for name in ("cluster", "whole_study", "check", "queue")]
TESTS += ["tests/unit", f"--deselect={DOWNLOADS}"]

# Nothing that these start outlives them, and nothing that they mount is seen from elsewhere.
APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# $1 is the folder, $2 what to run in it. What is $shared is seen there in its usual place.
ENTER = """
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm
for path in $shared; do
    [ -d $path ] && mkdir -p .$path || mkdir -p .${path%/*}
    [ -e .$path ] || touch .$path
    mount --bind -o ro $path .$path
done
commands=$2
shift 2
exec chroot . sh -ec "cd /project; $commands" sh "$@"
"""
INSTALL = """
git init --quiet
git add --all
make VENV=/venv venv-dev
tests/cluster/slurm.py run -- sinfo --version
"""
# Names are resolved only where there is another address than 127.0.0.1.
TEST = """
ip link set lo up
ip address add 10.77.0.1/32 dev lo
/venv/bin/python -m pytest "$@" || exit  # a shell that stays reaps the orphans
"""

answer = functools.partial(subprocess.check_output, text=True)


def make(folder: Path, release: str, scratch: Path) -> None:
    """Install a small Debian in a new folder, from where this machine has its own."""
    install_packages("mmdebstrap")
    settings = answer(["apt-config", "dump", "--no-empty", "Acquire"]).splitlines()
    options = [f"--aptopt={line}" for line in settings if "::IndexTargets" not in line]
    # None on Ubuntu, where mmdebstrap knows one.
    which = ["--format", "$(REPO_URI)", "Label: Debian"]
    mirrors = answer(["apt-get", "indextargets", *which]).split()
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    command += [*options, release, str(folder), *mirrors[:1]]
    subprocess.run([*APART, *command], env=environment, check=True)


def copy_project(folder: Path) -> None:
    """Copy what git has, or would have."""
    shutil.rmtree(folder, ignore_errors=True)
    which = ["-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, answer(["git", "-C", str(ROOT), "ls-files", *which]).split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def shared(variables: dict[str, str]) -> list[str]:
    """Return the names of hosts, the settings of pip, and what these and the variables name."""
    folders = (Path("/etc/xdg/pip"), Path.home() / ".config/pip", Path.home() / ".pip")
    files = [Path("/etc/pip.conf"), *(folder / "pip.conf" for folder in folders)]
    files = [str(file) for file in files if file.is_file()]
    text = "\n".join([*variables.values(), *(Path(file).read_text() for file in files)])
    named = re.findall(r"(?:^|[\s=])(/[\w./-]+)", text)
    # An index has its files beside its lists.
    named += [str(Path(path).parent) for path in re.findall(r"file://(/[\w./-]+)", text)]
    return sorted({"/etc/hosts", *files, *(path for path in named if Path(path).exists())})


def run(folder: Path, commands: str, *arguments: str, options: tuple[str, ...] = ()) -> int:
    """Run commands in the folder; return their exit status."""
    # How to reach a package index, and whether this is CI.
    names = re.compile(r"PIP_.*|.*_PROXY|REQUESTS_CA_BUNDLE|SSL_CERT_FILE|CI", re.IGNORECASE)
    variables = {name: value for name, value in os.environ.items() if names.fullmatch(name)}
    fixed = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(Path.home())}
    everything = variables | fixed | {"shared": " ".join(shared(variables))}
    command = [*APART, *options, "sh", "-ec", ENTER, "sh", str(folder), commands, *arguments]
    return subprocess.run(command, env=everything).returncode


def remove(folder: Path) -> None:
    """Remove the folder; nothing stops that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # What was killed a moment ago may still be writing.
    for _ in range(50):
        if subprocess.run(["rm", "-rf", "--one-file-system", folder]).returncode == 0:
            return
        time.sleep(0.2)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("release", metavar="RELEASE", help="trixie or bookworm")
    text = "arguments of pytest"
    parser.add_argument("tests", nargs="*", default=TESTS, metavar="TEST", help=text)
    text = "use this folder, make it if it is not there, and keep it"
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help=text)
    return parser.parse_intermixed_args()


def main() -> int:
    """Do what the command line asks."""
    asked = arguments()
    if os.geteuid() != 0:
        fail("only root can do this (try sudo)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scratch = Path(tempfile.mkdtemp(prefix="debian-"))
    folder = (asked.keep or scratch / asked.release).resolve()
    project, fresh = folder / "project", not folder.exists()
    try:
        if fresh:
            make(folder, asked.release, scratch)
        elif not project.exists():
            fail(f"{folder} was not made by this program")
        copy_project(project)
        code = run(folder, INSTALL)
        return code or run(folder, TEST, *asked.tests, options=("--net",))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except subprocess.CalledProcessError as error:
        fail(f"failed: {shlex.join(error.cmd)}")
    finally:
        remove(scratch)
        if fresh and not project.exists():
            remove(folder)


if __name__ == "__main__":
    sys.exit(main())
