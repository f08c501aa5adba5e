"""The set-up of the environment where a site builds wheels of its own."""

import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
import wheelhouse
from conftest import ROOT, SMALL_CONFIG, Project, fresh_project
from wheelhouse import COMPILED, PURE, REFUSED

REFUSES = "def manylinux_compatible(*_, **__):\n    return False\n"
TORCH = {"torch": f"{wheelhouse.TORCH}+site", "torchvision": "0.29.1+site"}


@dataclass
class Site:
    """A project on a cluster with wheels of its own, and an index beside it."""

    project: Project
    wheels: Path
    index: Path
    environment: dict[str, str]

    def make(self, *arguments, **options) -> subprocess.CompletedProcess:
        options = {"env": self.environment, "check": False} | options
        return self.project.run("make", "VENV=new", *arguments, **options)

    def versions(self) -> dict[str, str]:
        (folder,) = (self.project.folder / "new").glob("lib/python*/site-packages")
        found = metadata.distributions(path=[str(folder)])
        return {wheelhouse.normalized(each.name): each.version for each in found}


def site_in(folder: Path, *, code: bool) -> Site:
    """Build the wheels, with or without what is in them, and settings like the Alliance's."""
    site = Site(fresh_project(folder / "project"), folder / "wheels", folder / "index", {})
    packages = wheelhouse.installed(ROOT / "requirements.txt")
    for each in packages:
        name = wheelhouse.normalized(each.name)
        files = wheelhouse.code_of(each) if code else {}
        if name in TORCH:  # too large: links to what is installed here
            files = {f"{name}/__init__.py": b""}
            if code and name == "torch":
                files = {"site.pth": f"{links_to_torch(folder / 'torch')}\n".encode()}
        into_index = site.index / name
        if wheelhouse.is_pure(each):
            wheelhouse.wheel(into_index, each, each.version, PURE, files)
            continue
        into_index.mkdir(parents=True)
        older = TORCH.get(name, f"{each.version}+site")
        wheelhouse.wheel(site.wheels, each, older, COMPILED, files)
        wheelhouse.wheel(into_index, each, each.version, REFUSED, {})
    for page in site.index.iterdir():
        links = [f'<a href="{path.name}">{path.name}</a>' for path in page.glob("*.whl")]
        (page / "index.html").write_text("\n".join(links))
    (folder / "python").mkdir()
    (folder / "python" / "_manylinux.py").write_text(REFUSES)
    (folder / "pip.conf").write_text(
        f"[global]\nindex-url = file://{site.index}\nextra-index-url = file://{site.index}\n"
        f"[install]\nfind-links = {site.wheels}\nprefer-binary = true\nonly-binary = numpy,scipy\n"
    )
    plain = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    mine = {"PIP_CONFIG_FILE": folder / "pip.conf", "PYTHONPATH": folder / "python"}
    mine |= {"PYTHON": sys.executable}
    site.environment = plain | {name: str(value) for name, value in mine.items()}
    return site


def links_to_torch(folder: Path) -> Path:
    """Make a folder from which torch can be imported, and no package of the other wheels."""
    folder.mkdir()
    for name in ("torch", "torchgen", "functorch", "nvidia", "cuda", "triton"):
        installed = Path(sysconfig.get_path("purelib"), name)
        if installed.exists():
            (folder / name).symlink_to(installed)
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Site:
    """A site whose wheels have all that a wheel says of itself, and no code."""
    return site_in(tmp_path_factory.mktemp("site"), code=False)


@pytest.mark.extended
def test_the_sites_wheels_come_first_then_what_is_pure_python(empty):
    done = empty.make("venv")
    assert done.returncode == 0, done.stdout
    said = [line for line in done.stdout.splitlines() if "hashes" in line]
    assert said == [
        "pip takes no manylinux wheels here: the site's wheels, then what is pure Python from the "
        "index, without hashes."
    ]
    for package in wheelhouse.installed(ROOT / "requirements.txt"):
        name = wheelhouse.normalized(package.name)
        of_index = package.version if wheelhouse.is_pure(package) else f"{package.version}+site"
        assert empty.versions()[name] == TORCH.get(name, of_index)
    assert empty.make("venv").stdout == ""  # there is nothing left to do


@pytest.mark.extended
def test_other_limits_set_it_up_again(empty):
    limits = empty.project.folder / "constraints.txt"
    before = limits.read_text()
    limits.write_text(f"{before}# changed\n")
    assert "Setting up" in empty.make("venv").stdout
    limits.write_text(before)
    assert empty.make("venv").returncode == 0


@pytest.mark.extended
def test_what_is_missing_is_named(empty):
    """Not even a lower version is there of one, of the other only lower ones; the index answers."""
    hidden = {path: path.read_bytes() for path in empty.wheels.glob("*.whl")}
    try:
        for path in hidden:
            if path.name.startswith(("scipy-", "torchvision-")):
                path.unlink()
        (scipy,) = metadata.distributions(name="scipy")
        wheelhouse.wheel(empty.wheels, scipy, "1.9.3+site", COMPILED, {})
        done = empty.make("venv", "VENV=other")
    finally:
        for path, content in hidden.items():
            path.write_bytes(content)
        (empty.wheels / f"scipy-1.9.3+site-{COMPILED}.whl").unlink()
    assert done.returncode != 0
    *_, message = done.stdout.partition("error: ")
    assert re.findall("^  (.*)$", message, re.MULTILINE) == [
        "torchvision<0.30,>=0.23",
        "scipy>=1.15 (the site has 1.9.3+site)",
    ]
    assert f"Folders with wheels: {empty.wheels}\n" in message
    assert "network" not in message
    assert "index: can it be reached?" not in message
    assert not list((empty.project.folder / "other").glob("installed-*"))


@pytest.mark.extended
def test_an_index_that_does_not_answer_is_named(empty):
    away = empty.index.rename(empty.index.with_name("away"))
    try:
        done = empty.make("venv", "VENV=third")
    finally:
        away.rename(empty.index)
    assert done.returncode != 0
    *_, message = done.stdout.partition("error: ")
    assert "  snakemake<9.28,>=9.20\n" in message
    assert "  torch" not in message
    assert "No package was found in the index: can it be reached?" in message


@pytest.mark.extended
def test_a_folder_with_torch_in_the_file_of_pips_settings_is_enough(empty):
    environment = {k: v for k, v in empty.environment.items() if k != "PYTHONPATH"}
    script = (sys.executable, "scripts/site_wheels.py", "--why")
    done = empty.project.run(*script, env=environment)
    assert done.stdout == "PIP_CONFIG_FILE names a folder with wheels of torch\n"
    elsewhere = environment | {"PIP_CONFIG_FILE": os.devnull}
    done = empty.project.run(*script, env=elsewhere, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    # what the settings name is not the site's, where pip takes the wheels of the index
    elsewhere["PIP_FIND_LINKS"] = str(empty.wheels)
    assert empty.project.run(*script, env=elsewhere, check=False).returncode == 1


def test_constraints_are_the_lock():
    text = (ROOT / "requirements-dev.txt").read_text()
    locked = re.findall(r"^([a-z][\w.-]*)(?:\[.*\])?==(\S+)( ;.*?)? \\$", text, re.MULTILINE)
    limits = (ROOT / "constraints.txt").read_text().splitlines()
    assert limits[1:] == [f"{name}<={version}{marker}" for name, version, marker in locked]


@pytest.mark.extended
def test_a_study_is_planned_with_a_sites_wheels(tmp_path):
    """With all code in the wheels; that of torch, which is too large, by links."""
    site = site_in(tmp_path / "site", code=True)
    small = f"CONFIGFILE={SMALL_CONFIG}"
    assert "cnn    1 not started" in site.make("status", small).stdout
    new = site.project.folder / "new"
    command = [new / "bin/python", "-P", "-m", "snakemake", "--profile", "profiles/local", "-n"]
    planned = site.project.run(*command, "--configfile", SMALL_CONFIG, env=site.environment).stdout
    assert "Train cnn, seed 1" in planned
    # the same environment, as if it had been made by hand
    for path in (*new.glob("made-*"), *new.glob("installed-*")):
        path.unlink()
    shown = site.make("status", small).stdout
    assert "cnn    1 not started" in shown
    assert "Setting up" not in shown
