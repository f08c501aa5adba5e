"""Read YAML strictly, check it against a JSON schema, and report in one line what is wrong."""

import datetime
import io
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from lib.core.errors import UserError
from lib.core.spelling import nearest

SCHEMAS = Path(__file__).parents[3] / "workflow" / "schemas"

MOST_PARTS = 1_000_000

# In JSON Schema 3.0 is an integer; as a number of epochs it is a mistake.
Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def parse(text: str) -> Any:
    """Read YAML 1.2, in which `1e-3` is a number and a duplicate key an error.

    Raises:
        YAMLError: it is not YAML, or a mapping has a key twice.
    """
    # `pure`: the faster C reader knows YAML 1.1 only, where 1e-3 is a string.
    return YAML(typ="safe", pure=True).load(text)


def dump(value: Any) -> str:
    """Return what `parse` reads as this value."""
    text, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
    yaml.dump(value, text)
    return text.getvalue()


def load(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: it is missing, not YAML, or holds what JSON has not (see `check_plain`); the
            message names the file, and the line or the key.
    """
    try:
        # `sig`: the mark at the beginning of a file that some editors write
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: the file is not UTF-8 text") from error
    except ValueError as error:  # a NUL in the path
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    value = read(text, str(path))
    check_plain(value, str(path))
    return value


def read(text: str, where: str) -> Any:
    """Read YAML as `parse` does.

    Raises:
        UserError: it is not YAML; the message begins with `where` and names the line.
    """
    try:
        return parse(text)
    except DuplicateKeyError as error:
        key = re.match('found duplicate key "(.*)" with value', str(error.problem), re.DOTALL)
        named = f" {key[1]!r}" if key else ""
        line = error.problem_mark.line + 1
        raise UserError(f"{where}, line {line}: duplicate key{named}: keep only one") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{where}, line {line}: not valid YAML: {error.problem}") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{where}, line {line}: not valid YAML: {error.reason}") from error
    except Exception as error:
        # The library lets through what Python says of a value: a month 13, an integer of 5000
        # digits, a nesting of 3000 lists.
        raise UserError(f"{where}: not valid YAML: {type(error).__name__}: {error}") from error


def check_plain(value: Any, where: str) -> None:
    """Check that a value consists of what JSON has: mappings, lists, strings, finite numbers.

    Raises:
        UserError: it holds a date, bytes, a set, `.nan`, a number of more than 64 bits, a key that
            is no string, or itself; the message begins with `where` and names the key.
    """
    for count, (key, problem) in enumerate(_odd_parts(value, (), ())):
        if problem:
            raise UserError(f"{where}: {'.'.join(key) or 'top level'}: {problem}")
        if count > MOST_PARTS:
            raise UserError(f"{where}: more than {MOST_PARTS:,} values; are aliases nested in it?")


def _odd_parts(
    value: Any, key: tuple[str, ...], around: tuple[int, ...]
) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Yield the place of each part of a value, and what is wrong with it.

    Args:
        value: to look at.
        key: where it is.
        around: the identities of the mappings and lists around it.
    """
    yield key, "it contains itself" if id(value) in around else _odd(value)
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                yield key, f"the key {_spelled(name)} is not a string; quote it"
            odd = _odd(name)
            yield key, odd and f"the key {name!r}: {odd}"
            yield from _odd_parts(each, (*key, name), (*around, id(value)))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _odd_parts(each, (*key, str(number)), (*around, id(value)))


def _odd(value: Any) -> str | None:
    """Return why a value, looked at alone, is none of a config."""
    if isinstance(value, bool | dict | list | None):
        return None
    if isinstance(value, str):
        # A lone half of a surrogate pair, which YAML can spell, is no text.
        return None if is_text(value) else "it is not valid Unicode text"
    if isinstance(value, int):
        return f"an integer of {value.bit_length()} bits is too large" if abs(value) >> 64 else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not a finite number"
    return f"{_spelled(value)} is not valid in a config; quote it if it is a string"


def is_text(value: str) -> bool:
    """Return whether a string can be written in UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spelled(value: Any) -> str:
    """Return how the file spells an odd value, as well as we can know."""
    kinds = {datetime.date: "a date", datetime.datetime: "a date", bytes: "binary", set: "a set"}
    kind = kinds.get(type(value))
    return f"{value} ({kind})" if kind else repr(value)


@cache
def schema(name: str) -> dict:
    """Return the schema `workflow/schemas/NAME.schema.yaml`."""
    return load(SCHEMAS / f"{name}.schema.yaml")


def check(value: Any, schema: dict[str, Any], where: str) -> None:
    """Check `value` against a JSON schema.

    Raises:
        UserError: one line for each thing that is wrong, beginning with `where` and naming the key.
    """
    errors = sorted(Validator(schema).iter_errors(value), key=lambda e: str(e.path))
    if errors:
        raise UserError(
            "\n".join(f"{where}: {line}" for error in errors for line in explain(error))
        )


def explain(error: ValidationError) -> list[str]:
    """Put a schema error into plain words: the key, what is wrong, what would be valid."""
    key = ".".join(str(part) for part in error.absolute_path) or "top level"
    if error.validator == "additionalProperties":
        valid = sorted(error.schema["properties"])
        unknown = [name for name in error.instance if name not in valid]
        inside = "" if key == "top level" else f" in {key}"
        return [f"unknown key {name!r}{inside}{nearest(name, valid)}" for name in unknown]
    if error.validator == "enum":
        valid = [str(choice) for choice in error.validator_value]
        return [f"{key}: {error.instance!r} is not known{nearest(error.instance, valid)}"]
    if error.validator == "oneOf" and error.context:
        # Report on the alternative of the value's own type, not on "null or ...".
        inner = [e for e in error.context if e.validator != "type"] or error.context[-1:]
        return [line for e in inner for line in explain(e)]
    if error.validator == "pattern":
        description = error.schema.get("description", f"a match of {error.validator_value}")
        return [f"{key}: {error.instance!r} is not valid; expected: {description}"]
    if error.validator == "type":
        found = "null" if error.instance is None else repr(error.instance)
        kinds = error.validator_value
        expected = kinds if isinstance(kinds, str) else " or ".join(kinds)
        read_otherwise = expected == "string" and isinstance(error.instance, int | float)
        hint = "; write it in quotes" if read_otherwise else ""
        return [f"{key}: {found} is not of type {expected}{hint}"]
    return [f"{key}: {error.message}"]
