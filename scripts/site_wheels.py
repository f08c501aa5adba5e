"""Install the packages where a site builds wheels of its own, as the Alliance in Canada does.

There, pip takes no compiled wheel of the package index (manylinux), and the site's wheels have
other hashes than those in requirements.txt. So the packages come from the folders that the site's
pip settings name (find-links), then from the index as far as they are pure Python: in the versions
of pyproject.toml, none newer than in constraints.txt. It runs in the environment that it fills, and
needs nothing there but pip.
"""

import argparse
import configparser
import functools
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.tags import sys_tags
from pip._vendor.packaging.utils import (
    InvalidWheelFilename,
    canonicalize_name,
    parse_wheel_filename,
)
from pip._vendor.packaging.version import Version

from lib.core.packages import ROOT, needed

CONSTRAINTS = ROOT / "constraints.txt"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
# Pure Python, of which the index has no wheel. Nothing else is built from source.
NO_WHEEL = {"connection-pool"}

Wheels = dict[str, list[Version]]


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
    parser.add_argument(
        "--why",
        action="store_true",
        help="only say why the site's wheels are used; exit status 1 where requirements.txt is",
    )
    args = parser.parse_args()
    if not args.why:
        install([Requirement(each) for each in needed(args.requirements)])
    elif reason := why():
        print(reason)
    else:
        sys.exit(1)


def why() -> str | None:
    """Return why the site's wheels are used here, or None where requirements.txt is."""
    platforms = {tag.platform for tag in sys_tags()}
    if sys.platform == "linux" and not any(re.match("manylinux|musllinux", p) for p in platforms):
        return "pip takes no manylinux wheels here"
    if "torch" in usable_wheels(folders_of_config_file()):
        return "PIP_CONFIG_FILE names a folder with wheels of torch"
    return None


def folders_of_config_file() -> list[Path]:
    """Return the folders that the file PIP_CONFIG_FILE names."""
    parser = configparser.RawConfigParser()
    parser.read(os.environ.get("PIP_CONFIG_FILE", os.devnull))
    sections = [parser[name] for name in ("global", "install") if name in parser]
    return folders_in(section.get("find-links", "") for section in sections)


def all_folders() -> list[Path]:
    """Return the folders that all settings of pip name."""
    listed = subprocess.run([*PIP, "config", "list"], stdout=subprocess.PIPE, text=True).stdout
    # A value of several lines is printed as Python does: 'one\ntwo'.
    values = re.findall(r"^(?:global|install|:env:)\.find-links='(.*)'$", listed, re.MULTILINE)
    return folders_in(value.replace("\\n", " ") for value in values)


def folders_in(values: Iterable[str]) -> list[Path]:
    """Return the folders that settings name, with file:// or without."""
    names = [name.removeprefix("file://") for value in values for name in value.split()]
    return [Path(name) for name in dict.fromkeys(names) if Path(name).is_dir()]


def usable_wheels(folders: list[Path]) -> Wheels:
    """Return the versions of the wheels that this Python can use, by package, the newest first."""
    tags = set(sys_tags())
    found = defaultdict(set)
    for path in (path for folder in folders for path in folder.glob("*.whl")):
        try:
            name, version, _, its_tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if its_tags & tags:
            found[name].add(version)
    return {name: sorted(versions, reverse=True) for name, versions in found.items()}


@functools.cache
def limits() -> dict[str, list[Requirement]]:
    """Return what constraints.txt says to this Python, by package."""
    found = defaultdict(list)
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    for limit in (Requirement(line) for line in lines if not line.startswith("#")):
        if limit.marker is None or limit.marker.evaluate():
            found[canonicalize_name(limit.name)].append(limit)
    return found


def in_range(package: Requirement, versions: list[Version]) -> bool:
    """Return whether one of the versions is one that may be installed."""
    both = [package, *limits().get(canonicalize_name(package.name), [])]
    return any(all(each.specifier.contains(version) for each in both) for version in versions)


def install(packages: list[Requirement]) -> None:
    """Install the packages, and what they need.

    The site's wheels come first. pip keeps them then, unless two of them do not fit together.
    """
    wheels = usable_wheels(all_folders())
    of_site = [each for each in packages if in_range(each, of(each, wheels))]
    options = ["--quiet", "--progress-bar=on", "--compile", "--use-pep517", "--prefer-binary"]
    options += [f"--only-binary={','.join(sorted({*limits()} - NO_WHEEL))}"]
    options += [f"--constraint={CONSTRAINTS}"]
    if of_site:
        pip("install", *options, "--no-index", "--no-deps", *map(str, of_site))
    done = pip("install", *options, *map(str, packages))
    if done.returncode:
        sys.exit(explanation(packages, wheels, done.stderr))


def of(package: Requirement, wheels: Wheels) -> list[Version]:
    """Return the versions of the package."""
    return wheels.get(canonicalize_name(package.name), [])


def pip(*arguments: str) -> subprocess.CompletedProcess:
    """Run pip, and show its messages."""
    done = subprocess.run([*PIP, *arguments], stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    return done


def explanation(packages: list[Requirement], wheels: Wheels, messages: str) -> str:
    """Return which packages cannot be had here, and what helps."""
    named = re.findall(r"No matching distribution found for ([^\s;()]+)", messages)
    names = {each.name for each in packages}
    packages = packages + [each for each in map(Requirement, named) if each.name not in names]
    with ThreadPoolExecutor(8) as pool:
        both = list(zip(packages, pool.map(versions_in_index, packages), strict=True))
    missing = [each for each, found in both if not in_range(each, found + of(each, wheels))]
    if not missing:
        return (
            "error: pip could not install the site's wheels (see above). If that is for lack of\n"
            "space: it unpacks into TMPDIR, and keeps downloads in its cache (PIP_NO_CACHE_DIR=1)."
        )
    lines = ["error: Neither the site's wheels nor the package index have, for this Python:"]
    for each in missing:
        versions = ", ".join(map(str, of(each, wheels)))
        lines.append(f"  {each}{f' (the site has {versions})' if versions else ''}")
    folders = [str(folder) for folder in all_folders()]
    lines.append(f"Folders with wheels: {' '.join(folders) or 'none in the settings of pip'}")
    if not any(versions for _, versions in both):
        lines.append(
            "No package was found in the index: can it be reached? What is pure Python comes from\n"
            "it, so on a cluster run this on the login node."
        )
    lines.append(
        "There may be more wheels for another Python (module avail python; make venv PYTHON=...).\n"
        "Or ask the site's support for these, or use an environment of your own: docs/cluster.md."
    )
    return "\n".join(lines)


def versions_in_index(package: Requirement) -> list[Version]:
    """Return the versions that the index has as wheels for this Python."""
    options = ["--only-binary=:all:", "--retries=0"]
    command = [*PIP, "index", "versions", *options, package.name]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    listed = re.search(r"^Available versions: (.*)", output, re.MULTILINE)
    return [Version(each) for each in listed[1].split(", ")] if listed else []


if __name__ == "__main__":
    main()
