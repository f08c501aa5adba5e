"""Change values in a YAML file and nothing else: comments, order, and spacing stay.

It knows block style with one key per line, as in the files of this project, and checks the result.
"""

import copy
import json
import re
from collections.abc import Mapping

from lib.core import strict_yaml
from lib.core.errors import UserError

STEP = 2  # spaces of an indentation


def edit(text: str, changes: Mapping[tuple[str, ...], object], where: str) -> str:
    """Return YAML in which keys have other values.

    Args:
        text: the YAML.
        changes: values by key, from the outside in. None: the line becomes a comment.
        where: the name of the file, for errors.

    Raises:
        UserError: it is written in a way that this function does not know.
    """
    expected = strict_yaml.read(text, where) or {}
    for key, value in changes.items():
        if _value(expected, key) == value:
            continue
        text = _set(text, key, value)
        _expect(expected, key, value)
        if not _holds(text, expected):
            raise UserError(f"{where}: cannot set {'.'.join(key)} to {value!r}: set it by hand")
    return text


def _set(text: str, key: tuple[str, ...], value: object) -> str:
    lines = text.splitlines()
    first, last, indent = 0, len(lines), 0
    for depth, name in enumerate(key[:-1]):
        at = _find(lines, first, last, indent, name)
        if at is None:
            nested = [f"{' ' * (indent + STEP * n)}{word}:" for n, word in enumerate(key[depth:-1])]
            nested.append(_line(indent + STEP * len(nested), key[-1], value))
            place = first if depth else last
            return _joined([*lines[:place], *(nested if value is not None else []), *lines[place:]])
        first, last, indent = _block(lines, at, last, indent)
    at = _find(lines, first, last, indent, key[-1])
    commented = at is None
    if commented:
        at = _find(lines, first, last, indent, rf"# {key[-1]}")
    if value is None:
        if not commented:
            lines[at] = f"{' ' * indent}# {lines[at].lstrip()}"
    elif at is None:
        lines.insert(first if len(key) > 1 else last, _line(indent, key[-1], value))
    else:
        old = lines[at].replace("# ", "", 1) if commented else lines[at]
        lines[at] = _with_comment_of(_line(indent, key[-1], value), old)
    return _joined(lines)


def _find(lines: list[str], first: int, last: int, indent: int, name: str) -> int | None:
    start = re.compile(rf" {{{indent}}}{re.escape(name)}:(\s|$)")
    return next((n for n in range(first, last) if start.match(lines[n])), None)


def _block(lines: list[str], at: int, last: int, indent: int) -> tuple[int, int, int]:
    """Return the lines of a section below its key, and their indentation."""
    end = at + 1
    while end < last and (not lines[end].strip() or _indent(lines[end]) > indent):
        end += 1
    inner = [_indent(line) for line in lines[at + 1 : end] if line.strip()]
    return at + 1, end, min(inner, default=indent + STEP)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _line(indent: int, name: str, value: object) -> str:
    return f"{' ' * indent}{name}: {json.dumps(value, ensure_ascii=False)}"


def _with_comment_of(line: str, old: str) -> str:
    """Return a line with the comment at the end of another, in the same column if possible."""
    comment = re.search(r"\s(#.*)$", old)
    if not comment:
        return line
    return f"{line}  ".ljust(comment.start(1)) + comment[1]


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _holds(text: str, expected: dict) -> bool:
    try:
        return _pruned(strict_yaml.read(text, "")) == _pruned(expected)
    except UserError:
        return False


def _value(content: object, key: tuple[str, ...]) -> object:
    for name in key:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _expect(content: dict, key: tuple[str, ...], value: object) -> None:
    *around, name = key
    for each in around:
        if not isinstance(content.get(each), dict):
            content[each] = {}
        content = content[each]
    content[name] = copy.deepcopy(value)


def _pruned(content: object) -> object:
    """Return a mapping without what has no value."""
    if not isinstance(content, dict):
        return content
    inner = {key: _pruned(value) for key, value in content.items()}
    return {key: value for key, value in inner.items() if value not in (None, {})}
