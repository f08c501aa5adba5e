"""The documents say what the code does."""

import re

from conftest import ROOT

import checked_yaml

TEXT = (ROOT / "config/README.md").read_text()


def documented(heading: str) -> dict[str, str]:
    """Return keys and defaults of the table under a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = section.split("\n\n`activation`")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?) \|$", table, flags=re.MULTILINE)
    return {key: default.strip("` ") for key, default in rows}


def assert_documented(heading, properties):
    rows = documented(heading)
    assert list(rows) == list(properties)
    for key, each in properties.items():
        if "default" in each and key not in ("training", "experiments"):
            assert checked_yaml.parse(rows[key]) == each["default"], key


def test_every_key_and_default_is_documented():
    schema = checked_yaml.schema("config")
    training = schema["properties"]["training"]["properties"]
    experiment = schema["$defs"]["experiment"]["properties"]
    assert_documented("The study", schema["properties"])
    assert_documented("`training`, and each experiment", training)
    own = {key: each for key, each in experiment.items() if key not in training}
    assert_documented("Each experiment", own)


def test_every_name_is_documented():
    from recipe import LOSSES, OPTIMIZERS, SCHEDULERS

    for name in [*LOSSES, *OPTIMIZERS, *SCHEDULERS]:
        assert f"`{name}`" in TEXT, name


def test_every_loss_stands_with_the_outputs_that_it_fits():
    from recipe import LOSSES

    for output in ("log_softmax", "softmax", "logits"):
        row = re.search(rf"^\| `{output}`.*?\| (.*) \|$", TEXT, flags=re.MULTILINE)[1]
        fitting = {name for name, loss in LOSSES.items() if output in loss.outputs}
        assert set(re.findall(r"`(\w+)`", row)) == fitting


def test_every_data_set_is_documented():
    for name in checked_yaml.load(ROOT / "config/datasets.yaml"):
        assert f"`{name}`" in TEXT
