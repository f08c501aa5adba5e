"""Changes in a YAML file that leave everything else as it is."""

import pytest
from conftest import ROOT

from lib.core import strict_yaml
from lib.core.errors import UserError
from lib.core.yaml_edit import edit

PROFILE = (ROOT / "profiles/slurm/config.yaml").read_text()
ACCOUNT = ("default-resources", "slurm_account")
MODEL = ("set-resources", "train", "gpu_model")


def changed(text: str, changes: dict) -> list[str]:
    """Return the lines that are new after changes."""
    after = edit(text, changes, "file").splitlines()
    return [line for line in after if line not in text.splitlines()]


def test_an_example_in_a_comment_becomes_a_value():
    (line,) = changed(PROFILE, {ACCOUNT: "def-prof"})
    assert line.startswith('  slurm_account: "def-prof"')
    assert line.endswith("  # the account to charge (default: your default account)")


def test_what_is_set_is_replaced_and_its_comment_stays():
    once = edit(PROFILE, {ACCOUNT: "def-prof", MODEL: "a100"}, "file")
    assert changed(once, {MODEL: "h100"}) == [
        '    gpu_model: "h100"          # the type of GPU, for the jobs that ask for one'
    ]
    assert changed(once, {ACCOUNT: "def-prof"}) == []


def test_a_key_that_becomes_a_comment_and_a_key_again():
    key = ("slurm-partition-config",)
    without = edit(PROFILE, {key: None}, "file")
    assert "\n# slurm-partition-config: partitions.yaml\n" in without
    assert edit(without, {key: None}, "file") == without
    assert edit(without, {key: "partitions.yaml"}, "file") == PROFILE.replace(
        "config: partitions.yaml", 'config: "partitions.yaml"'
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ("a", "b", "c")),
        ("# only a comment\n", ("a",)),
        ("a: 1\n", ("b", "c")),
        ("a:\n    b: 1\n    # end\nd: 2\n", ("a", "c")),
        ("a:\n  b:\n    x: 1\n\n# about d\nd: 2\n", ("a", "c", "y")),
    ],
)
def test_what_is_not_there_is_added(text, key):
    after = edit(text, {key: 7}, "file")
    assert set(text.splitlines()) <= set(after.splitlines())
    content = strict_yaml.parse(after)
    for name in key:
        content = content[name]
    assert content == 7


@pytest.mark.parametrize(
    "text",
    [
        "jobs: 20   # few\nretries:   2   # x\n",
        "a:\n    - 1\njobs: 20\nb:  'x'\n",
        "# jobs\n# jobs: 20\nb: {c:  [1,2]}\n",
        "---\njobs: 20\n\n# end",
    ],
)
def test_lines_in_another_style_stay(text):
    (before,) = [line for line in text.splitlines() if "jobs: 20" in line]
    (after,) = changed(text, {("jobs",): 4})
    assert set(edit(text, {("jobs",): 4}, "file").splitlines()) - {after} == (
        set(text.splitlines()) - {before}
    )


def test_a_flow_mapping_is_edited():
    assert edit("a: {b: 1, c: 2}  # d\n", {("a", "b"): 3}, "file") == "a: {b: 3, c: 2}  # d\n"


@pytest.mark.parametrize("text", ["a: [1]\n", "a: x\n"])
def test_a_section_that_is_no_mapping_is_an_error(text):
    with pytest.raises(UserError, match=r"^file: cannot set a\.b to 2: set it by hand$"):
        edit(text, {("a", "b"): 2}, "file")


def test_a_value_of_several_lines_becomes_no_comment():
    with pytest.raises(UserError, match=r"^file: cannot set a to None: set it by hand$"):
        edit("a: |\n  b\nc: 1\n", {("a",): None}, "file")
