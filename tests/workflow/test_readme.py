"""Every command of the documents does what they say, on the small data set where it trains."""

import csv
import os
import re
import textwrap

import pytest
from conftest import BIN, ROOT, fresh_project
from PIL import Image, ImageDraw

from lib.core import strict_yaml
from lib.reporting import tables
from lib.study.config import read_study

# In this order their commands are run, in one folder.
DOCUMENTS = (
    "README.md",
    "config/README.md",
    "docs/cluster.md",
    "docs/data.md",
    "docs/models.md",
    "docs/results.md",
    "docs/search.md",
    "docs/report.md",
    "docs/statistics.md",
    "docs/performance.md",
)
TEXT = {name: (ROOT / name).read_text() for name in DOCUMENTS}
README = TEXT["README.md"]
MAKEFILE = (ROOT / "Makefile").read_text()
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language, in order."""
    return [block for found, block in FENCED.findall(README) if found == language]


def block_commands(block: str) -> list[str]:
    """Return a block's commands, one per line, without comments."""
    lines = [re.split(r"  +#", line)[0].strip() for line in block.splitlines()]
    return [line for line in lines if line]


COMMANDS = [
    (name, command)
    for name, text in TEXT.items()
    for language, block in FENCED.findall(text)
    if language == "sh"
    for command in block_commands(block)
]

# Not run here: these would set up an environment, run this suite inside itself, take long, need
# modules or Slurm, or start a cluster beside that of the suite (tests/slurm/test_sites.py does).
ONLY_CHECKED = (
    "source ",
    "module load ",
    "sbatch ",
    "squeue ",
    "make test",
    "make bench",
    "make profile",
    "make check",
    "make cluster",
    "make submit",
    "make cancel",
    "make run VENV=",
    "make reproduce RUN=all",
    # Downloads; tests/workflow/test_own_images.py runs these.
    "pip download ",
    "python -m zipfile ",
    "snakemake --profile profiles/local --configfile config/examples/solar-cells",
    "tests/cluster/slurm.py up",
    "tests/cluster/slurm.py run",
)
# There is nothing left to do for the first; the second prints into a file; others copy files.
SILENT = ("make venv", "make sbatch RUN=cnn/seed1 > cnn.sh", "mkdir ", "cp ")


def is_run(command: str) -> bool:
    return not command.startswith(ONLY_CHECKED)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project with the small data set in the place of every known one."""
    project = fresh_project(tmp_path_factory.mktemp("readme") / "project")
    entry = (project.folder / "tests/data/datasets.yaml").read_text()
    names = ("MNIST", "FashionMNIST")
    small = "\n".join(entry.replace("MNIST-small:", f"{name}:") for name in names)
    (project.folder / "config/datasets.yaml").write_text(small)
    project.edit("config/config.yaml", "mirrors: []", "mirrors: [tests/data]")
    project.edit("config/examples/search.yaml", "validation_size: 10000", "validation_size: 500")
    (project.folder / ".venv").symlink_to(BIN.parent)
    drawing = Image.new("L", (100, 100), "white")
    ImageDraw.Draw(drawing).line([(50, 10), (50, 90)], fill="black", width=9)
    (project.folder / "photos").mkdir()
    for name in ("digit.png", "photos/one.png"):
        drawing.save(project.folder / name)
    return project


def run(project, command):
    # Not as a make within the make that runs the tests, which would print more.
    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    environment = {**outside, "PATH": f"{BIN}:{os.environ['PATH']}", "VENV": str(BIN.parent)}
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
    """What each command prints, by document, run in order with the files written on the way."""
    printed = {}
    for name, text in TEXT.items():
        for language, block in FENCED.findall(text):
            first, _, rest = block.partition("\n")
            if language == "python":
                (project.folder / first.removeprefix("# ")).write_text(rest)
            elif first == "# config/config.yaml, under experiments":
                add_entries(project, rest)
            elif language == "sh":
                for command in filter(is_run, block_commands(block)):
                    printed[name, command] = run(project, command)
    return printed


@pytest.mark.parametrize(("document", "command"), [each for each in COMMANDS if is_run(each[1])])
def test_the_command_runs(outputs, document, command):
    assert bool(outputs[document, command]) != command.startswith(SILENT)


def test_the_readme_begins_with_the_set_up_commands():
    assert [command for name, command in COMMANDS if name == "README.md"][:2] == [
        "make run",
        "make test",
    ]


def test_the_commands_leave_what_the_readme_says(outputs, project):
    rows = (project.folder / "results/report.csv").read_text().splitlines()
    experiments = [row.split(",")[0] for row in rows[1:]]
    assert experiments == ["mlp", "cnn", "wide", "linear"]


def first_cells(name: str, section: str) -> list[str]:
    """Return the names between backticks in the first column of a section's table."""
    text = re.split(r"^#+ ", TEXT[name].split(f"{section}\n", 1)[1], flags=re.MULTILINE)[0]
    return re.findall(r"`([\w.:]+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)))


@pytest.mark.parametrize(
    ("document", "section", "table"),
    [
        ("docs/report.md", "### `results/report.csv`: one row per run", "report"),
        ("docs/report.md", "### `results/summary.csv`: one row per experiment", "summary"),
        ("docs/report.md", "### `results/comparisons.csv`: one row per pair", "comparisons"),
        ("docs/cluster.md", "## What a study costs", "resources"),
    ],
)
def test_every_column_is_documented(outputs, project, document, section, table):
    with (project.folder / f"results/{table}.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    if table == "report":
        columns = dict.fromkeys(re.sub(":.*", ":CLASS", name) for name in columns)
    if table == "summary":  # of each metric, as in report.csv
        further = len(columns) - 3 * len(tables.further_metrics([str(i) for i in range(10)]))
        columns = columns[:further] + [f"METRIC_{end}" for end in ("mean", "low", "high")]
    heading = next(line for line in TEXT[document].splitlines() if line.startswith(section))
    documented = first_cells(document, heading)
    others = documented[len(columns) :]  # of data that has folds, of studies that keep best epochs
    of_some = {"report": ["fold", "best_epoch"], "resources": ["fold"]}
    assert others == of_some.get(table, ["folds"])
    assert documented[: len(columns)] == list(columns)


def test_every_file_of_a_run_is_documented(outputs, project):
    run_folder = project.folder / "results/runs/cnn/seed1"
    files = first_cells("docs/report.md", "## The files of a run")
    assert sorted(files) == sorted(path.name for path in run_folder.iterdir())


def test_a_new_model_trains_alone(outputs):
    last = outputs["README.md", "snakemake --profile profiles/local"]
    assert "The linear classifies" in last or "the linear " in last
    assert re.search(r"^linear +1 ", last, re.MULTILINE)
    assert set(re.findall(r"Train (\w+), seed", last)) == {"wide", "linear"}


def test_a_plain_process_trains_the_same_weights(outputs):
    (digests,) = (text for (_, command), text in outputs.items() if command.startswith("sha256sum"))
    first, second = (line.split()[0] for line in digests.splitlines())
    assert first == second


def test_while_it_trains_each_run_is_shown(outputs):
    line = r"^cnn, seed 1: epoch 1 of 3, test accuracy \d+\.\d\d%, about .+ left$"
    assert re.search(line, outputs["README.md", "make run"], re.MULTILINE)


def test_the_commands_that_are_not_run_exist():
    for _, command in COMMANDS:
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:.*##", MAKEFILE, re.MULTILINE), command


def test_python_blocks_are_whole_files():
    for block in blocks("python"):
        assert block.startswith("# scripts/models/")
        compile(textwrap.dedent(block), "README.md", "exec")


def test_each_config_shown_is_one(project):
    """Or a part of one: of the example file that it names, or of the experiments, run above.

    In docs/data.md, they are entries of data sets.
    """
    others = {}
    for text in (each for name, each in TEXT.items() if name != "docs/data.md"):
        for language, block in FENCED.findall(text):
            first = block.partition("\n")[0].removeprefix("# ")
            if language == "yaml" and first != "config/config.yaml, under experiments":
                others[first] = block
    path = project.folder / "recipe.yaml"
    path.write_text(others.pop("config/config.yaml, the recipe"))
    assert read_study([path], {}).experiments["cnn"].recipe.keep == "best"
    example = strict_yaml.load(ROOT / "config/examples/search.yaml")["experiments"]["mlp"]
    shown = strict_yaml.parse(others.pop("config/examples/search.yaml"))["experiments"]["mlp"]
    assert shown["sweep"].items() <= example["sweep"].items()
    (searches,) = others.values()
    path = project.folder / "searches.yaml"
    path.write_text(searches)
    points = [point.search for point in read_study([path], {}).experiments.values()]
    assert (points.count("mlp"), points.count("cnn")) == (6, 50)


def test_the_output_shown_has_the_form_of_the_real_one(outputs):
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    # Where a line breaks, and how wide a column is, depends on the figures.
    form, real = (re.sub(r"\s+", " ", re.sub(r"[\d.,]+", "N", text))
                  for text in (shown, outputs["README.md", "make run"]))  # fmt: skip
    assert form in real


def test_the_job_script_shown_is_the_real_one(outputs, project):
    """Apart from the folder, whose length decides where a comment begins."""
    (shown,) = (block for language, block in FENCED.findall(TEXT["docs/cluster.md"])
                if language == "bash")  # fmt: skip
    real = (project.folder / "cnn.sh").read_text()
    for ours, theirs in ((BIN, ".venv/bin"), (project.folder, "")):
        real = real.replace(str(ours), f"/home/ada/classifiers/{theirs}".rstrip("/"))
    assert re.sub(" +", " ", real) == re.sub(" +", " ", shown)


def test_the_picture_is_what_the_command_draws(outputs, project):
    """Draw it into a copy whose picture is gone."""
    (picture,) = blocks("mermaid")
    empty = project.folder / "drawn.md"
    empty.write_text(README.replace(picture, "flowchart LR\n"))
    project.script("diagram", "drawn.md")
    assert empty.read_text() == README


def edges(graph: str) -> set[tuple[str, str]]:
    """Return the arrows of Snakemake's own graph by the names of what they join."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", graph))
    return {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", graph)}


def test_the_picture_has_the_arrows_of_snakemake(outputs, project):
    drawn = edges(run(project, "snakemake --rulegraph mermaid-js"))
    shown = set(re.findall(r"^ +(\w+) --> (\w+)$", blocks("mermaid")[0], re.MULTILINE))
    assert shown == {edge for edge in drawn if edge[1] != "all"} != set()
