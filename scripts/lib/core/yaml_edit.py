"""Change values in a YAML file; comments and all other lines stay."""

import contextlib
import io
import re
from collections.abc import Mapping
from difflib import SequenceMatcher

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from lib.core import strict_yaml
from lib.core.errors import UserError

Key = tuple[str, ...]  # from the outside in


def edit(text: str, changes: Mapping[Key, str | int | None], where: str) -> str:
    """Return YAML in which keys have other values.

    A key that is there as a comment (`# qos: "normal"`) is set in that line.

    Args:
        text: the YAML.
        changes: values by key; None: the line becomes a comment.
        where: the name of the file, for errors.

    Raises:
        UserError: it is not YAML, or a key cannot be set in it.
    """
    strict_yaml.read(text, where)
    for key, new in changes.items():
        old = value(strict_yaml.parse(text), key)
        if old == new:
            continue
        if old is None or new is None:
            text = _toggled(text, key, shown=old is None)
        if new is not None:
            text = _set(text, key, DoubleQuotedScalarString(new) if isinstance(new, str) else new)
        if value(strict_yaml.parse(text), key) != new:
            raise UserError(f"{where}: cannot set {'.'.join(key)} to {new!r}: set it by hand")
    return text


def value(content: object, key: Key) -> object:
    """Return the value of a key; None where it is not set."""
    for name in key:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def load(text: str) -> CommentedMap:
    """Read YAML with its comments."""
    yaml = YAML()
    yaml.preserve_quotes = True
    return yaml.load(text) or yaml.load(f"{text}\n{{}}")


def dump(content: CommentedMap, text: str) -> str:
    """Return YAML; lines that have not changed are those of the text that was loaded."""
    indented = re.search(r"^ +(?=[^\s#-])", text, re.MULTILINE)
    yaml = YAML()
    yaml.width, yaml.explicit_start = 2**31, text.startswith("---")
    yaml.indent(mapping=len(indented[0]) if indented else 2)
    old, new = io.StringIO(), io.StringIO()
    yaml.dump(load(text), old)
    yaml.dump(content, new)
    before, old, new = (each.splitlines() for each in (text, old.getvalue(), new.getvalue()))
    if len(old) == len(before):
        for i, j, size in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
            new[j : j + size] = before[i : i + size]
    return "\n".join(new) + "\n"


def _set(text: str, key: Key, new: object) -> str:
    section = content = load(text)
    for name in key[:-1]:
        if section.get(name) is None:
            section.insert(0, name, CommentedMap())
        section = section[name]
        if not isinstance(section, CommentedMap):
            return text
    if key[-1] in section:
        section[key[-1]] = new
    else:  # at the top: a comment at the end is about what follows
        section.insert(0, key[-1], new)
    return dump(content, text)


def _toggled(text: str, key: Key, shown: bool) -> str:
    """Return the text with the line of a key no comment, or one; unchanged if there is no line."""
    old, new = ("# ", "") if shown else ("", "# ")
    for line in re.finditer(rf"^ *({old}){re.escape(key[-1])}:\s", text, re.MULTILINE):
        toggled = text[: line.start(1)] + new + text[line.end(1) :]
        with contextlib.suppress(YAMLError):
            if (value(strict_yaml.parse(toggled), key) is not None) == shown:
                return toggled
    return text
