"""The documents say what the code does."""

import re

import pytest
from conftest import ROOT

from lib.core import strict_yaml
from lib.core.settings import LOSSES, OPTIMIZERS, SCHEDULERS, SHARED, Settings
from lib.data import catalog, readers
from lib.study.config import config_schema

TEXT = (ROOT / "config/README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
DOCUMENTS += [ROOT / "config/README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a run or the setup creates, rather than the repository.
CREATED = ("results", "out", ".venv", ".snakemake")


def documented(heading: str) -> dict[str, str]:
    """Return keys and defaults of the table under a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = section.split("\n\n`activation`")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?) \|$", table, flags=re.MULTILINE)
    return {key: default.strip("` ") for key, default in rows}


def defaults(properties: dict) -> dict:
    """Return the defaults that a schema gives to its keys, except for those in words."""
    in_words = ("training", "experiments")
    return {
        key: each["default"]
        for key, each in properties.items()
        if "default" in each and key not in in_words
    }


def assert_documented(heading, keys, expected):
    """Check that a table has a row for each key, and the expected defaults."""
    rows = documented(heading)
    assert list(rows) == list(keys)
    assert {key: strict_yaml.parse(rows[key]) for key in expected} == expected


def test_every_key_and_default_of_the_schema_is_documented():
    schema = config_schema()
    training = schema["properties"]["training"]["properties"]
    experiment = schema["$defs"]["experiment"]["properties"]
    own = {key: each for key, each in experiment.items() if key not in training}
    for heading, keys in (("The study", schema["properties"]), ("Each experiment", own)):
        assert defaults(keys)
        assert_documented(heading, keys, defaults(keys))


def test_every_key_and_default_of_a_training_is_documented():
    settings = Settings().as_dict()
    expected = {key: settings[key] for key in SHARED}
    assert_documented("`training`, and each experiment", SHARED, expected)
    assert strict_yaml.parse(documented("Each experiment")["device"]) == settings["device"]


def test_every_name_is_documented():
    for name in [*LOSSES, *OPTIMIZERS, *SCHEDULERS]:
        assert f"`{name}`" in TEXT, name


def test_every_loss_is_listed_with_the_outputs_that_it_fits():
    for output in ("log_softmax", "softmax", "logits"):
        row = re.search(rf"^\| `{output}`.*?\| (.*) \|$", TEXT, flags=re.MULTILINE)[1]
        fitting = {name for name, outputs in LOSSES.items() if output in outputs}
        assert set(re.findall(r"`(\w+)`", row)) == fitting


def test_every_data_set_is_documented():
    for name in strict_yaml.load(ROOT / "config/datasets.yaml"):
        assert f"`{name}`" in TEXT


def test_every_key_of_a_data_set_is_documented():
    text = (ROOT / "docs/data.md").read_text()
    documented = set(re.findall(r"`(\w+)`", text))
    for kind in readers.kinds():
        assert set(catalog.schema_of(kind)["properties"]) <= documented | {"npm", "torchvision"}


def test_the_data_sets_in_the_documents_are_valid():
    text = (ROOT / "docs/data.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    entries = [entry for block in blocks for entry in strict_yaml.parse(block).values()]
    assert len(entries) >= 3
    for entry in entries:
        strict_yaml.check(entry, catalog.schema_of(readers.kind_of(entry)), "docs/data.md")


def name_of(path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    for link in links:
        assert link.startswith("https://") or (document.parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_path_that_is_named_exists(document):
    """Check the words between backticks that look like paths: those with a folder and a suffix."""
    for path in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/[\w-]+\.[a-z]+)`", document.read_text()):
        assert path.split("/")[0] in CREATED or (ROOT / path).exists(), path


def test_every_document_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    for document in DOCUMENTS[1:]:
        assert f"]({name_of(document)})" in readme
