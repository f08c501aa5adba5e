"""Every command of the README does what it says, on the small data set where it trains."""

import os
import re
import textwrap

import pytest
from conftest import BIN, ROOT, fresh_project
from PIL import Image, ImageDraw

README = (ROOT / "README.md").read_text()
MAKE_HELP = (ROOT / "Makefile").read_text()


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def block_commands(block: str) -> list[str]:
    """Return a block's commands, one a line, without comments."""
    return [line.split("   #")[0].strip() for line in block.splitlines() if line.strip()]


def commands() -> list[str]:
    """Return the README's commands."""
    return [command for block in blocks("sh") for command in block_commands(block)]


# Not run here: these would set up an environment, run this suite inside itself, or take long.
ONLY_CHECKED = ("make test", "make bench", "git clone", "cd ", "source ")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project with the small data set in the place of every known one."""
    project = fresh_project(tmp_path_factory.mktemp("readme") / "project")
    entry = (project.folder / "tests/data/datasets.yaml").read_text()
    names = ("MNIST", "FashionMNIST")
    small = "\n".join(entry.replace("MNIST-small:", f"{name}:") for name in names)
    (project.folder / "config/datasets.yaml").write_text(small)
    project.edit("config/config.yaml", "mirrors: []", "mirrors: [tests/data]")
    (project.folder / ".venv").symlink_to(BIN.parent)
    drawing = Image.new("L", (100, 100), "white")
    ImageDraw.Draw(drawing).line([(50, 10), (50, 90)], fill="black", width=9)
    drawing.save(project.folder / "digit.png")
    return project


def run(project, command):
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "VENV": str(BIN.parent)}
    # There may be no Slurm here: what runs on a cluster is planned.
    if "profiles/slurm" in command and " -n" not in command:
        command += " -n"
    return project.run("bash", "-euo", "pipefail", "-c", command, env=environment).stdout


def add_entries(project, block):
    """Append to the experiments, which end the config."""
    path = project.folder / "config/config.yaml"
    path.write_text(path.read_text() + block)


@pytest.fixture(scope="module")
def outputs(project):
    """What each command prints, run in the README's order with its files written on the way."""
    printed = {}
    files = re.findall(r"^```(sh|yaml|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    for language, block in files:
        first, _, rest = block.partition("\n")
        if language == "python":
            (project.folder / first.removeprefix("# ")).write_text(rest)
        elif language == "yaml":
            assert first == "# config/config.yaml, under experiments"
            add_entries(project, rest)
        else:
            for command in block_commands(block):
                if not command.startswith(ONLY_CHECKED):
                    printed[command] = run(project, command)
    return printed


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith(ONLY_CHECKED)])
def test_the_command_runs(outputs, command):
    assert outputs[command]


def test_the_commands_leave_what_the_readme_says(outputs, project):
    rows = (project.folder / "results/report.csv").read_text().splitlines()
    experiments = [row.split(",")[0] for row in rows[1:]]
    assert experiments == ["mlp", "cnn", "wide", "linear"]
    columns = rows[0].split(",")
    table = README[README.index("| column |") : README.index("A run's folder")]
    documented = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert set(documented) <= set(columns)
    run_folder = project.folder / "results/runs/cnn/seed1"
    table = README[README.index("| file | content |") : README.index("## Your own experiment")]
    files = re.findall(r"`([\w.]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert sorted(files) == sorted(path.name for path in run_folder.iterdir())


def test_a_new_model_trains_alone(outputs):
    last = outputs["snakemake --profile profiles/local"]
    assert "The linear classifies" in last or "the linear " in last
    assert re.search(r"^linear +1 ", last, re.MULTILINE)


def test_the_commands_that_are_not_run_exist():
    for command in commands():
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:.*##", MAKE_HELP, re.MULTILINE), command


def test_python_blocks_are_whole_files():
    for block in blocks("python"):
        assert block.startswith("# scripts/models/")
        compile(textwrap.dedent(block), "README.md", "exec")


def test_the_output_shown_has_the_form_of_the_real_one(outputs):
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    # Where a line breaks, and how wide a column is, depends on the figures.
    form, real = (re.sub(r"\s+", " ", re.sub(r"[\d.,]+", "N", text))
                  for text in (shown, outputs["make run"]))  # fmt: skip
    assert form in real


def edges(graph: str) -> set[tuple[str, str]]:
    """Return the arrows of a Mermaid flow chart by the names of what they join."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", graph))
    return {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", graph)}


def test_the_picture_is_the_commands(outputs):
    drawn = outputs["snakemake --rulegraph mermaid-js"]
    assert edges(blocks("mermaid")[0]) == edges(drawn) != set()
