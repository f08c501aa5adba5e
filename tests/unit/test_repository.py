"""The files about the repository agree with it: workflows of GitHub, citation, guides, hooks."""

import re
import sys
import tomllib

import pytest
from conftest import ROOT

import models
from lib.core import records, strict_yaml

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
GUIDES = ("CONTRIBUTING.md", "SECURITY.md")
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a run or `make venv` creates, rather than the repository.
CREATED = ("results", ".venv", ".snakemake")


def read(name: str) -> str:
    return (ROOT / name).read_text()


def jobs(workflow) -> list[dict]:
    return list(strict_yaml.load(workflow)["jobs"].values())


def commands(workflow) -> list[str]:
    """Return the commands of all `run` steps; one for each target where a matrix has targets."""
    found = []
    for job in jobs(workflow):
        lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
        targets = job.get("strategy", {}).get("matrix", {}).get("target", [""])
        found += [
            line.replace("${{ matrix.target }}", target) for target in targets for line in lines
        ]
    return found


def fenced(name: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return [block for kind, block in FENCED.findall(read(name)) if kind == language]


def paths(name: str) -> set[str]:
    """Return the words between backticks that look like paths of the repository."""
    words = {
        word
        for span in re.findall(r"`([^`\n]+)`", FENCED.sub("", read(name)))
        for word in span.split()
        if re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", word)
    }
    named = re.compile(r"/|\.(md|txt|toml|yaml|yml|cff|py|smk)$|^(Makefile|Snakefile)$")
    return {word for word in words if named.search(word) and word.split("/")[0] not in CREATED}


def test_there_are_workflows_for_lint_and_tests():
    run = [command for workflow in WORKFLOWS for command in commands(workflow)]
    targets = {"lint", "test", "test-all", "test-lowest", "test-newest"}
    assert {f"make {target}" for target in targets} <= set(run)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_only_make_and_apt_get(workflow):
    for command in commands(workflow):
        program, *arguments = command.removeprefix("sudo ").split()
        assert program in ("make", "apt-get"), command
        assert not re.search(r"[;&|<>`]|\$\(", command), command
        assert program != "make" or arguments[0] in TARGETS, command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_few_rights_and_end(workflow):
    assert strict_yaml.load(workflow)["permissions"] == {"contents": "read"}
    for job in jobs(workflow):
        assert job["timeout-minutes"] <= 120
        assert "permissions" not in job
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))


@pytest.mark.parametrize("name", [*GUIDES, ".pre-commit-config.yaml", *map(str, WORKFLOWS)])
def test_targets_of_make_that_are_named_exist(name):
    named = re.findall(r"(?:^|`)(?:sudo )?make ([a-z][a-z-]*)", read(name), re.MULTILINE)
    assert set(named) <= TARGETS
    assert named or name not in GUIDES


@pytest.mark.parametrize("name", GUIDES)
def test_paths_that_are_named_exist(name):
    named = paths(name)
    assert len(named) >= 5
    assert [path for path in sorted(named) if not any(ROOT.glob(path))] == []


def test_no_two_test_files_have_one_name():
    """Pytest would take them for one module, and collect neither."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_the_version_is_the_same_everywhere():
    citation = strict_yaml.parse(read("CITATION.cff"))  # it has a date
    released = r"^## \[?(\d+\.\d+\.\d+)\]?(?: [-–] (\d{4}-\d\d-\d\d))?$"
    newest = re.search(released, read("CHANGELOG.md"), re.MULTILINE)
    assert newest, "CHANGELOG.md has no heading of a release"
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert citation["version"] == project["version"] == newest[1]
    assert newest[2] in (None, str(citation["date-released"]))
    assert citation["license"] == project["license"]


def test_hooks_run_what_make_lint_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    linted = [line.strip().removeprefix("@") for line in recipe.splitlines()]
    (repository,) = strict_yaml.load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # nothing is downloaded
    hooks = repository["hooks"]
    assert [hook["entry"] for hook in hooks] == [
        line.replace("$(PY)", ".venv/bin/python") for line in linted
    ]
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks)


def test_the_catalog_names_a_profile():
    usage = strict_yaml.load(ROOT / ".snakemake-workflow-catalog.yml")["usage"]
    option, profile = usage["mandatory-flags"]["flags"].split()
    assert option == "--profile"
    assert (ROOT / profile / "config.yaml").is_file()
    assert not any(usage["software-stack-deployment"].values())


def test_the_first_change_works(tmp_path, monkeypatch):
    model, test = fenced("CONTRIBUTING.md", "python")
    (tmp_path / "deep.py").write_text(model)
    assert model.startswith("# scripts/models/deep.py\n")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    found: dict = {}
    exec(test, found)  # noqa: S102
    found["test_deep_returns_one_log_probability_per_class"]()
    monkeypatch.delitem(sys.modules, "models.deep")


FINISHED = ROOT / "tests/data/finished-0.2.0"


@pytest.mark.parametrize(
    "record",
    sorted(FINISHED.glob("results/study/runs/*/seed*/*.json")),
    ids=lambda path: path.relative_to(FINISHED / "results/study/runs").as_posix(),
)
def test_a_finished_study_of_the_version_before_is_kept_as_it_was(record):
    records.check_files(record, records.read(record))
