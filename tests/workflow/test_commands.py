"""make's targets, the lints, every script's --help, and the inputs that the rules declare."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import BIN, ROOT
from lint_workflow import ACCEPTED, findings

ENVIRONMENT = {**os.environ, "VENV": str(BIN.parent)}
COMMANDS = ["download", "prepare", "train", "evaluate", "report"]


def test_snakemake_lint_has_only_the_accepted_finding():
    found = findings(ROOT)
    assert {title for titles in found.values() for title in titles} == {ACCEPTED}
    for rule in COMMANDS:
        assert any(place.startswith(f"rule {rule} ") for place in found), rule


@pytest.mark.parametrize(
    "tool", [("ruff", "format", "--check"), ("ruff", "check"), ("snakefmt", "--check")]
)
def test_style(tool):
    name, *arguments = tool
    command = [BIN / name, *arguments, "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_help_lists_every_target(project):
    output = project.run("make", "help").stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    listed = re.findall(r"^make ([a-z-]+) +\S", output, flags=re.MULTILINE)
    assert set(targets) - {"venv-dev"} == set(listed)
    assert project.run("make").stdout == output


def test_make_clean_keeps_data_and_runs(finished):
    finished.results.rename(finished.folder / "results" / "mine")
    before = sorted(path for path in (finished.folder / "results" / "mine").rglob("*"))
    metadata = sorted((finished.folder / ".snakemake" / "metadata").iterdir())
    (finished.folder / "scripts" / "__pycache__").mkdir(exist_ok=True)
    output = finished.run("make", "clean").stdout
    assert sorted((finished.folder / "results" / "mine").rglob("*")) == before
    assert sorted((finished.folder / ".snakemake" / "metadata").iterdir()) == metadata
    assert not (finished.folder / "scripts" / "__pycache__").exists()
    assert "rm -r results/runs" in output
    assert "rm -r results/data" in output


def test_setup_without_a_recent_python(project):
    (project.folder / "python3.9").write_text("#!/bin/sh\nexit 1\n")
    (project.folder / "python3.9").chmod(0o755)
    options = {"env": {**os.environ, "PYTHON": "./python3.9"}, "check": False}
    done = project.run("scripts/venv.sh", "new", "requirements.txt", **options)
    assert done.returncode == 1
    assert "no Python 3.11 or later found" in done.stdout
    assert "make run PYTHON=" in done.stdout
    assert not (project.folder / "new").exists()


def set_up(project, requirements, *, free, **environment):
    """Run the set-up as if its disk had that many GB free, as other machines have other disks."""
    (project.folder / "df").write_text(f"#!/bin/sh\necho head\necho / 1 1 {free}000000 1 /\n")
    (project.folder / "df").chmod(0o755)
    path = f"{project.folder}:{os.environ['PATH']}"
    options = {"env": os.environ | {"PATH": path, "PYTHON": sys.executable} | environment}
    return project.run("scripts/venv.sh", "new", requirements, check=False, **options)


def test_setup_without_a_package_index(project):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null"}
    nowhere |= {"PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": ""}
    done = set_up(project, "requirements.txt", free=8, **nowhere)
    assert done.returncode == 1
    assert "pip could not install requirements.txt" in done.stdout
    assert "no network" in done.stdout
    assert not (project.folder / "new" / "installed-requirements.txt").exists()


def test_setup_without_space(project):
    done = set_up(project, "requirements.txt", free=7)
    assert done.returncode == 1
    assert "needs about 8 GB, and only 7 GB" in done.stdout
    assert not (project.folder / "new").exists()


def test_setup_of_an_environment_that_exists_needs_no_space_of_its_own(project):
    """After make test on a full disk, make run has next to nothing left to install."""
    for name in ("one.txt", "other.txt"):
        (project.folder / name).write_text("# nothing more\n")
    assert set_up(project, "one.txt", free=8).returncode == 0
    done = set_up(project, "other.txt", free=1)
    assert done.returncode == 0, done.stdout
    assert (project.folder / "new" / "installed-other.txt").exists()


def test_setup_refuses_another_hash(project):
    """A package whose content is not the one pinned is not installed."""
    (project.folder / "one.txt").write_text(f"six==1.17.0 --hash=sha256:{'0' * 64}\n")
    done = set_up(project, "one.txt", free=8)
    assert done.returncode == 1
    assert "hash" in done.stdout.lower()


def test_every_requirement_has_a_hash():
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        packages = re.findall(r"^[a-z][\w.-]*(?:\[\w+\])?==.*(?:\n .*)*", text, flags=re.MULTILINE)
        assert len(packages) > 50
        assert all("--hash=sha256:" in package for package in packages)
        assert "//" not in text


@pytest.mark.parametrize("name", [*COMMANDS, "check", "predict", "status", "resources"])
def test_every_script_explains_itself(name):
    command = [sys.executable, f"scripts/{name}.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    source = "".join(path.read_text() for path in (ROOT / "scripts").glob("*.py"))
    options = re.findall(r"^  (--[\w-]+)", done.stdout, flags=re.MULTILINE)
    own = re.findall(r'add\(\s*"(--[\w-]+)"', (ROOT / "scripts" / f"{name}.py").read_text())
    assert options
    assert set(own) <= set(options)
    for option in options:
        explained = re.search(rf"^  {option}\b.*(\n {{8,}}.*)*", done.stdout, flags=re.MULTILINE)
        required = re.search(rf'"{option}",[^()]*required=True', source)
        assert required or "(default" in explained[0].replace("\n", " "), option


def imported(path, seen):
    """Return the project's files that a script imports, directly or not, models' own aside."""
    scripts = ROOT / "scripts"
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            for file in (scripts / f"{name}.py", scripts / name / "__init__.py"):
                if file.is_file() and file not in seen:
                    seen.add(file)
                    imported(file, seen)
    return seen


@pytest.mark.parametrize("name", COMMANDS)
def test_a_rules_inputs_are_the_modules_that_its_script_uses(finished_once, name):
    """Else editing one would not run the rule again, or would for nothing."""
    stage = {"download": "results/small/data/MNIST-small.json"}
    stage["prepare"] = "results/small/data/MNIST-small.safetensors"
    stage["train"] = "results/small/runs/cnn/seed1/model.safetensors"
    stage["evaluate"] = "results/small/runs/cnn/seed1/accuracy.csv"
    stage["report"] = "results/small/report.csv"
    command = ("--detailed-summary", stage[name])
    summary = finished_once.snakemake(*command).stdout
    line = next(line for line in summary.splitlines() if line.startswith(f"{stage[name]}\t"))
    declared = {file for file in re.split(r"[\t,]", line) if file.startswith("scripts/")}
    script = ROOT / "scripts" / f"{name}.py"
    used = {str(file.relative_to(ROOT)) for file in imported(script, {script})}
    if name in ("train", "evaluate"):
        used |= {"scripts/models/cnn.py", "scripts/models/layers.py"}
    assert declared == used
