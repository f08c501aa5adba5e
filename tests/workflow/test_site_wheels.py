"""The set-up of the environment where a site builds wheels of its own."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
import wheelhouse
from conftest import ROOT, Project, fresh_project
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
        files = wheelhouse.code_of(each) if code and name not in TORCH else {}
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
