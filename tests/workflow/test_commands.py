"""make's targets, the lints, every script's --help, and the set-up of the environment."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import BIN, ROOT, SMALL_CONFIG, Project, cases, fresh_project, untouched
from PIL import Image, ImageDraw

ENVIRONMENT = {**os.environ, "VENV": str(BIN.parent)}
COMMANDS = ["download", "prepare", "train", "evaluate", "report"]
MORE_COMMANDS = "cancel check job_script make_profile predict resources status submit watch".split()


def test_make_help_lists_every_target(project):
    output = project.run("make", "help").stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    listed = re.findall(r"^make ([a-z-]+) +\S", output, flags=re.MULTILINE)
    assert set(targets) == set(listed)
    assert project.run("make").stdout == output


@pytest.fixture(scope="module")
def spaced(tmp_path_factory) -> Project:
    """The project in a folder whose name has a space; .venv in it is a link to the environment."""
    project = fresh_project(tmp_path_factory.mktemp("spaced") / "my work" / "it's here")
    (project.folder / ".venv").symlink_to(BIN.parent)
    (project.folder / "my config.yaml").write_text((ROOT / SMALL_CONFIG).read_text())
    return project


def make(project, *arguments, **options) -> str:
    """Run make with the .venv of the folder; return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "VENV"}
    return project.run("make", *arguments, env=environment, **options).stdout


def recipe(target: str) -> list[str]:
    """Return the words of the command that a target ends with."""
    output = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True).stdout
    return shlex.split(output.splitlines()[-1])


def test_make_works_where_paths_have_spaces(spaced):
    """Where the environment is a link, its own set-up is asked, not another one made."""
    config = "CONFIGFILE=my config.yaml"
    for _ in range(2):
        shown = make(spaced, "status", config)
        assert "Setting up" not in shown
        assert "cnn    1 not started" in shown
    assert "there is no run 'no such'" in make(spaced, "why", "RUN=no such", config, check=False)
    assert "no finding but the accepted one" in make(spaced, "lint")  # nor one of ruff, snakefmt
    assert ".venv" in make(spaced, "clean")


@pytest.mark.extended
def test_make_run_works_where_paths_have_spaces(spaced):
    """What `make run` does, on the small data set; then the rest with its results."""
    python, watch, *snakemake = recipe("run")
    assert (python, watch, snakemake[1]) == (".venv/bin/python", "scripts/watch.py", python)
    small = ("--configfile", "my config.yaml")
    shown = spaced.run(python, watch, *small, *snakemake, *small).stdout
    assert "2 of 2 runs are done" in shown
    assert "The whole report: results/small/report.html" in shown
    assert "2/2" in make(spaced, "status", "CONFIGFILE=my config.yaml")
    config = ("CONFIGFILE=my config.yaml", "RUN=mlp/seed1")
    assert "This run is done" in make(spaced, "why", *config)
    (spaced.results / "runs").rename(spaced.results / "my runs")
    drawing = Image.new("L", (100, 100), "white")
    ImageDraw.Draw(drawing).line([(50, 10), (50, 90)], fill="black", width=9)
    drawing.save(spaced.folder / "it's my one.png")
    drawing.save(spaced.folder / "two.png")
    model = "MODEL=results/small/my runs/cnn/seed1"
    one = "it's my one.png"
    for value, images in {
        one: [one],
        "two.png two.png": ["two.png", "two.png"],
        "*.png": [one, "two.png"],
    }.items():
        shown = make(spaced, "predict", f"IMAGES={value}", model)
        assert re.findall(r"^(.*\.png): ", shown, re.MULTILINE) == images
    shown = make(spaced, "predict", "IMAGES=no such.png", model, check=False)
    assert "no such.png: No such file" in shown


@pytest.mark.extended
def test_an_environment_may_be_where_a_path_has_a_space(project):
    theirs = somebody_elses(project.folder / "my environments" / "torch")
    (site,) = theirs.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    shown = project.run("make", "status", "VENV=my environments/torch").stdout
    assert "not started" in shown


def test_set_up_where_paths_have_spaces(project):
    (project.folder / "one.txt").write_text("# nothing more\n")
    python = project.folder / "my python"
    python.symlink_to(sys.executable)
    done = set_up(project, "one.txt", free=8, PYTHON=str(python))
    assert done.returncode == 0, done.stdout
    link = project.folder / "a link"
    link.symlink_to(project.folder / "new")
    done = project.run("scripts/venv.sh", link, "one.txt", env=os.environ | {"PYTHON": "/none"})
    assert done.stdout == ""  # there is nothing left to do


def test_a_tilde_is_the_home_folder(project):
    """Not every shell expands it in VENV=~/envs; a folder of this name would be dangerous."""
    planned = project.run("make", "-n", "status", "VENV=~/my envs/torch").stdout
    home = project.run("bash", "-c", f"printf %s {planned.split()[1]}'").stdout
    assert home == f"{Path.home()}/my"
    assert "rm -r .snakemake ~/'my envs'" in project.run("make", "clean", "VENV=~/my envs").stdout


def test_make_clean_touches_nothing_below_results(finished):
    before = untouched(finished.folder / "results")
    assert any("small" in str(path) for path in before)  # a study of the user's may be called so
    metadata = sorted((finished.folder / ".snakemake" / "metadata").iterdir())
    (finished.folder / "scripts" / "__pycache__").mkdir(exist_ok=True)
    output = finished.run("make", "clean").stdout
    assert untouched(finished.folder / "results") == before
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
    (project.folder / "df").write_text(
        f"#!/bin/sh\necho head\necho /my disk 1 1 {free}000000 1% /my disk\n"
    )
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


@pytest.mark.extended
def test_setup_of_an_environment_that_exists_needs_no_space_of_its_own(project):
    """After make test on a full disk, make run has next to nothing left to install."""
    for name in ("one.txt", "other.txt"):
        (project.folder / name).write_text("# nothing more\n")
    assert set_up(project, "one.txt", free=8).returncode == 0
    done = set_up(project, "other.txt", free=1)
    assert done.returncode == 0, done.stdout
    assert (project.folder / "new" / "installed-other.txt").exists()


@pytest.mark.extended
def test_an_environment_with_the_test_tools_needs_no_set_up(project):
    """After make test, whoever may only read the environment can type make run."""
    for name in ("one.txt", "one-dev.txt"):
        (project.folder / name).write_text("# nothing more\n")
    assert set_up(project, "one-dev.txt", free=8).returncode == 0
    before = content(project.folder / "new")
    done = set_up(project, "one.txt", free=8)
    assert done.returncode == 0
    assert done.stdout == ""
    assert content(project.folder / "new") == before
    # a set-up with other versions takes away what the test tools had
    (project.folder / "one.txt").write_text("# another version\n")
    (project.folder / "one-dev.txt").unlink()
    assert "Setting up" in set_up(project, "one.txt", free=8).stdout
    (project.folder / "one-dev.txt").write_text("# nothing more\n")
    assert "Setting up" in set_up(project, "one-dev.txt", free=8).stdout


@pytest.mark.extended
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


def somebody_elses(folder: Path) -> Path:
    """Make a virtual environment by hand, with nothing in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder


def content(folder: Path) -> dict:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_an_environment_made_by_hand_is_not_changed(project):
    theirs = somebody_elses(project.folder / "theirs")
    before = content(theirs)
    done = project.run("make", "status", "VENV=theirs", check=False)
    assert done.returncode != 0
    assert "was not made by make venv, so it is not changed. It lacks:" in done.stdout
    assert "torch>=2.8,<2.15: not installed" in done.stdout
    advice = "theirs/bin/python -m pip install 'torch>=2.8,<2.15' 'torchvision>=0.23,<0.30' "
    assert advice in done.stdout
    assert content(theirs) == before


@pytest.mark.extended
def test_an_environment_made_by_hand_that_has_everything_is_used(project):
    theirs = somebody_elses(project.folder / "theirs")
    (site,) = theirs.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (site / "ours.pth").write_text(f"{ours}\n")
    before = content(theirs)
    assert "not started" in project.run("make", "status", "VENV=theirs").stdout
    assert content(theirs) == before
    # another version of one package is named, and how to install the right one
    older = site / "torch-2.7.1.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.7.1\n")
    done = project.run("make", "status", "VENV=theirs", check=False)
    assert "torch>=2.8,<2.15: 2.7.1 is installed" in done.stdout
    assert done.stdout.rstrip().endswith("make: *** [Makefile:") or "pip install" in done.stdout
    # the oldest that will do, and the newest, as a build of a site's own with a local version
    for version in ("2.8.0", "2.14.2+computecanada"):
        (older / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        assert project.run("make", "status", "VENV=theirs").returncode == 0


def test_every_target_uses_the_environment_that_is_named():
    targets = re.findall(r"^([a-z-]+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    values = ["RUN=cnn/seed1", "IMAGES=digit.png"]
    for target in set(targets) - {"help", "clean", "cluster", "cluster-down"}:
        command = ["make", "-n", target, "VENV=theirs", *values]
        planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
        assert ".venv" not in planned, target
        set_up, *rest = planned.splitlines()
        assert set_up.startswith("scripts/venv.sh 'theirs' requirements"), target
        assert "'theirs/bin/python'" in "".join(rest) or target.startswith("venv"), target


def test_a_set_up_that_failed_can_be_repeated(project):
    """As where python3-venv is missing: the folder is there, and nothing that could be used."""
    (project.folder / "one.txt").write_text("# nothing more\n")
    broken = project.folder / "python-without-venv"
    broken.write_text(
        f'#!/bin/sh\ncase "$1" in -m) mkdir -p "$3/bin"; '
        f'ln -sf {sys.executable} "$3/bin/python"; exit 1 ;; esac\nexec {sys.executable} "$@"\n'
    )
    broken.chmod(0o755)
    done = set_up(project, "one.txt", free=8, PYTHON=str(broken))
    assert done.returncode == 1
    assert "cannot make a virtual environment" in done.stdout
    done = set_up(project, "one.txt", free=8)
    assert done.returncode == 0, done.stdout


def test_a_folder_that_is_no_environment_is_not_touched(project):
    (project.folder / "thesis").mkdir()
    (project.folder / "thesis/chapter.tex").write_text("Everything")
    done = project.run("make", "run", "VENV=thesis", check=False)
    assert done.returncode != 0
    assert "thesis is not a virtual environment, so it is not touched" in done.stdout
    assert (project.folder / "thesis/chapter.tex").read_text() == "Everything"


@pytest.mark.parametrize("name", cases([*COMMANDS, *MORE_COMMANDS], "train", "status", "submit"))
def test_every_script_explains_itself(name):
    command = [sys.executable, f"scripts/{name}.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    source = "".join(path.read_text() for path in (ROOT / "scripts").rglob("*.py"))
    options = re.findall(r"^  (--[\w-]+)", done.stdout, flags=re.MULTILINE)
    own = re.findall(r'add\(\s*"(--[\w-]+)"', (ROOT / "scripts" / f"{name}.py").read_text())
    assert options
    assert set(own) <= set(options)
    for option in options:
        explained = re.search(rf"^  {option}\b.*(\n {{8,}}.*)*", done.stdout, flags=re.MULTILINE)
        required = re.search(rf'"{option}",[^()]*required=True', source)
        assert required or "(default" in explained[0].replace("\n", " "), option
