"""What of the code counts: what it computes, not how it is written."""

import ast
import hashlib
from pathlib import Path

import pytest
from conftest import ROOT

from lib.core import code_digests
from lib.core.errors import UserError
from lib.core.meaning import digest

CODE = '''
"""A module."""

from dataclasses import dataclass


@dataclass
class Point:
    """A point."""

    x: int = 1

    def moved(self, by: int, *, twice: bool = False) -> "Point":
        """Return another point."""
        far: int = by * 2 if twice else by  # that far
        return Point(self.x + far)


def text(name, width=10):
    return f"{name!r:>{width}} is " "here" + "\\n"
'''
SAME = {
    "a comment": ("# that far", "# as far as that"),
    "a docstring": ("A point.", "A place."),
    "no docstring": ('        """Return another point."""\n', ""),
    "the module's docstring": ("A module.", "Another one."),
    "an annotation of an argument": ("by: int", "by: float"),
    "what a function returns": (' -> "Point"', ""),
    "an annotation of a local variable": ("far: int =", "far ="),
    "white space": ("x + far", "x   +   far"),
    "quotes": ('"here"', "'here'"),
    "two texts as one": ('is " "here"', 'is here"'),
}
OTHER = {
    "a number": ("=10", "=11"),
    "the type of a number": ("x: int = 1", "x: int = 1.0"),
    "the name of a local variable": ("far", "further"),
    "an annotation in a class": ("x: int = 1", "x: float = 1"),
    "a text": ("here", "there"),
    "the order of a sum": ("self.x + far", "far + self.x"),
    "how a value is formatted": ("!r", "!s"),
    "a decorator": ("@dataclass\n", ""),
    "a default": ("twice: bool = False", "twice: bool = True"),
}


def meaning(code: str) -> str:
    return digest(ast.parse(code))


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME.keys())
def test_what_changes_nothing(old, new):
    assert old in CODE
    assert meaning(CODE.replace(old, new)) == meaning(CODE)


@pytest.mark.parametrize(("old", "new"), OTHER.values(), ids=OTHER.keys())
def test_what_may_change_a_result(old, new):
    assert old in CODE
    assert meaning(CODE.replace(old, new)) != meaning(CODE)


def test_every_version_of_python_finds_the_same():
    assert meaning(CODE) == "2e5e9dcfdbb7e201e2ed79dcc80d1ff1abca8981654a192168b7bb039a9a54a7"


def test_what_an_earlier_version_has_recorded_of_the_same_bytes_counts():
    path = ROOT / "scripts/models/mlp.py"
    assert code_digests.is_same("models/mlp.py", hashlib.sha256(path.read_bytes()).hexdigest())
    assert code_digests.is_same("models/mlp.py", code_digests.file_digest(path))
    assert not code_digests.is_same("models/cnn.py", code_digests.file_digest(path))
    assert not code_digests.is_same("models/none.py", code_digests.file_digest(path))


@pytest.mark.parametrize("code", ["def", "x = " + "(" * 100_000, "\0"])
def test_what_is_no_code_is_named(tmp_path: Path, code):
    path = tmp_path / "model.py"
    path.write_text(code)
    with pytest.raises(UserError, match=r"model\.py"):
        code_digests.file_digest(path)
