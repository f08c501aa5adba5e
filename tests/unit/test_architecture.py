"""The packages of the code: which may import which, and which code a rule depends on."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BIN, ROOT, cases

from lib.core import code_digests
from lib.core.errors import UserError

SCRIPTS = ROOT / "scripts"
MAY_IMPORT = {
    "core": {"core"},
    "data": {"core", "data"},
    "training": {"core", "data", "training"},
    "running": {"core", "data", "training", "running"},
    "reporting": {"core", "data", "training", "reporting"},
    "study": {"core", "data", "study"},
    "forks": {"core", "forks"},
    "cluster": {"core", "data", "study", "cluster"},
}
# What the files that compute numbers may import of those that do not.
COMPUTE_NOTHING = {
    "core.errors", "core.files", "core.plain", "core.settings", "core.code_digests",
    "core.metric", "core.signatures", "core.spelling",
}  # fmt: skip
COMMANDS = {path.stem for path in SCRIPTS.glob("*.py")}


def imported_modules(path: Path) -> set[tuple[str, ...]]:
    """Return the dotted names that a file imports, in parts."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {(*node.module.split("."), alias.name) for alias in node.names}
    return names


def test_every_package_has_its_rule():
    packages = {
        path.name for path in (SCRIPTS / "lib").iterdir() if (path / "__init__.py").exists()
    }
    assert packages == set(MAY_IMPORT)
    folders = {path.name for path in SCRIPTS.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {"lib", "models"}


def test_the_guide_has_the_same_table():
    text = (ROOT / "CONTRIBUTING.md").read_text().split("| package | may import from |")[1]
    table = {}
    for row in text.split("\n\n")[0].splitlines()[2:]:
        packages, others = (re.findall(r"`(\w+)`", cell) for cell in row.split("|")[1:3])
        table |= {package: {package, *others} for package in packages}
    assert table == MAY_IMPORT


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_those_below_it(package):
    files = list((SCRIPTS / "lib" / package).glob("*.py"))
    assert files
    for file in files:
        for module in imported_modules(file):
            if module[0] == "lib":
                assert module[1] in MAY_IMPORT[package], f"{file} imports {'.'.join(module)}"


def test_models_import_only_the_core():
    for file in (SCRIPTS / "models").glob("*.py"):
        for module in imported_modules(file):
            assert module[0] != "lib" or module[1] == "core", f"{file} imports {module}"


def test_what_computes_numbers_imports_little_that_does_not():
    """Otherwise an edit that changes a number could train nothing again."""
    every = SCRIPTS.rglob("*.py")
    files = [path for path in every if path_below(path).startswith(code_digests.COMPUTING)]
    assert len(files) > 10
    for file in files:
        for package, *names in (
            module[1:3] for module in imported_modules(file) if module[0] == "lib"
        ):
            path = f"lib/{'/'.join([package, *names])}.py"
            name = ".".join([package, *names])
            assert code_digests.computes(path) or name in COMPUTE_NOTHING, f"{file}: {name}"


def path_below(path: Path) -> str:
    return path.relative_to(SCRIPTS).as_posix()


def test_nobody_imports_a_command():
    for file in SCRIPTS.rglob("*.py"):
        names = {module[0] for module in imported_modules(file)}
        assert not names & COMMANDS, file
    for file in (ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")):
        names = re.findall(r"^\s*(?:from|import) (\w+)", file.read_text(), flags=re.MULTILINE)
        assert not set(names) & COMMANDS, file


def test_nothing_of_study_or_cluster_decides_a_result():
    for command in ("download", "prepare", "train", "evaluate", "report"):
        files = code_digests.files_of(SCRIPTS / f"{command}.py")
        packages = {path.relative_to(SCRIPTS).parts[1] for path in files if "lib" in path.parts}
        assert not packages & {"study", "cluster"}, command


# Runs a script as `python SCRIPT` would, then prints what the process has imported.
REPORT_IMPORTS = """
import os, runpy, sys

script, sys.argv = os.path.abspath(sys.argv[1]), sys.argv[1:]
sys.path[0] = os.path.dirname(script)
os.environ["SLURM_CLASSIFIERS_PLAIN_PROCESS"] = "1"  # else train would end without returning
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
files = {str(getattr(module, "__file__", None)) for module in sys.modules.values()}
print("IMPORTED", script, *(f for f in files if f.startswith(sys.path[0] + os.sep)), sep="\\n")
"""


@pytest.fixture(scope="module")
def arguments(finished_once, tmp_path_factory):
    """The arguments with which each stage's script repeats its part of a finished study."""
    new, small = tmp_path_factory.mktemp("again"), finished_once.results
    dataset = ("--dataset", "MNIST-small", "--datasets-file", "tests/data/datasets.yaml")
    listing = small / "data" / "MNIST-small.json"
    data = ("--data", finished_once.data)
    return {
        "download": (
            *dataset, "--data-dir", new / "raw", "--mirrors", "tests/data",
            "--output", new / "listing.json",
        ),
        "prepare": (*dataset, "--files", listing, "--output", new / "prepared.safetensors"),
        "train": (*data, "--set", "model.name=CNN", "epochs=1", "--output", new / "run"),
        "evaluate": (*data, "--run", finished_once.copy(new / "copy").run_folder("cnn")),
        "report": (*data, "--results", small, "--output", new / "report"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "stage", cases(["download", "prepare", "train", "evaluate", "report"], "train", "report")
)
def test_a_rule_depends_on_what_its_process_imports(finished_once, arguments, stage):
    """Otherwise editing a module would not run the rule again, or would for nothing."""
    command = [sys.executable, "-c", REPORT_IMPORTS, f"scripts/{stage}.py", *arguments[stage]]
    done = subprocess.run(command, cwd=finished_once.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    scripts = finished_once.folder / "scripts"
    imported = lines[lines.index("IMPORTED") + 1 :]
    used = {Path(path).relative_to(scripts) for path in imported}
    # A model and a kind of data are imported by their names. Of the latter, `download` only checks
    # an entry with it, so its rule does not depend on it.
    by_name = {"train": "models/cnn.py", "evaluate": "models/cnn.py"}
    by_name |= dict.fromkeys(("download", "prepare"), "lib/data/readers/files.py")
    more = [SCRIPTS / by_name[stage]] if stage in by_name else []
    files = code_digests.files_of(SCRIPTS / f"{stage}.py", *more)
    assert {path.relative_to(SCRIPTS) for path in files} == used


@pytest.mark.parametrize("record", ["run.json", "evaluation.json"])
def test_the_records_say_the_same(finished_once, record):
    script = {"run.json": "train.py", "evaluation.json": "evaluate.py"}[record]
    code = json.loads((finished_once.run_folder("cnn") / record).read_text())["code"]
    files = code_digests.files_of(SCRIPTS / script, SCRIPTS / "models" / "cnn.py")
    computing = [path for path in files if code_digests.computes(path_below(path))]
    assert code == code_digests.file_digests(computing)
    assert "models/cnn.py" in code
    assert not {name for name in code if name.startswith(("lib/core", "lib/running"))}


def test_relative_imports_and_packages_are_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(code_digests, "SCRIPTS", tmp_path)
    (tmp_path / "models").mkdir()
    for name, text in {
        "models/__init__.py": "",
        "models/net.py": "from .helper import block\nfrom . import other\nimport torch\n",
        "models/helper.py": "def block():\n    from models.deep import layer\n",
        "models/other.py": "",
        "models/deep.py": "",
        "models/unused.py": "",
    }.items():
        (tmp_path / name).write_text(text)
    names = {path.name for path in code_digests.files_of(tmp_path / "models" / "net.py")}
    assert names == {"net.py", "helper.py", "other.py", "deep.py", "__init__.py"}


def test_a_file_that_cannot_be_parsed_is_named(tmp_path):
    (tmp_path / "half.py").write_text("class Half(\n")
    with pytest.raises(UserError, match=r"half\.py, line 1: "):
        code_digests.files_of(tmp_path / "half.py")


HOSTILE = 'raise SystemExit(f"the project has imported {__file__}, which is the user\'s")\n'
TAKEN = "lib models data files core training cluster study report check status train".split()


@pytest.mark.extended
@pytest.mark.parametrize("where", ["the working directory", "PYTHONPATH"])
def test_modules_of_the_user_are_never_imported(project, where, tmp_path):
    """They may have any name, also one of ours."""
    folder = project.folder if where == "the working directory" else tmp_path / "theirs"
    folder.mkdir(exist_ok=True)
    for name in TAKEN:
        (folder / f"{name}.py").write_text(HOSTILE)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(project.folder), "PYTHONPATH": str(folder)}
    evaluated = "results/small/runs/mlp/seed1/accuracy.csv"
    config = ("--configfile", "tests/data/config.yaml")
    command = (BIN / "snakemake", evaluated, "--profile", "profiles/local", *config)
    project.run(*command, env=environment)
    assert (project.folder / evaluated).exists()


def test_the_users_module_is_found_where_ours_has_its_name(project):
    """Nothing of ours is left on the path of the process that reads the Snakefile."""
    with (project.folder / "Snakefile").open("a") as snakefile:
        snakefile.write("\nimport report as theirs\nassert theirs.MINE\n")
    (project.folder / "mine").mkdir()
    (project.folder / "mine/report.py").write_text("MINE = True\n")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(project.folder / "mine")}
    project.run(BIN / "snakemake", "-n", env=environment)
