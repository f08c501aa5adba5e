"""Read YAML strictly, check it against a JSON schema, and report in one line what is wrong."""

import difflib
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lib.core.errors import UserError

SCHEMAS = Path(__file__).parents[3] / "workflow" / "schemas"

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


def load(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: it is missing, not YAML, or has a key twice; the message names file and line.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from error
    except DuplicateKeyError as error:
        # The first line of the problem names the key; the rest is advice on the library.
        problem = str(error.problem).splitlines()[0]
        line = error.problem_mark.line + 1
        raise UserError(f"{path}, line {line}: {problem}: keep only one") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: not valid YAML: {error.problem}") from error
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error


@cache
def schema(name: str) -> dict:
    """Return the schema `workflow/schemas/NAME.schema.yaml`."""
    return load(SCHEMAS / f"{name}.schema.yaml")


def check(value: Any, schema_name: str, where: str) -> None:
    """Check `value` against a schema.

    Raises:
        UserError: one line for each thing that is wrong, beginning with `where` and naming the key.
    """
    errors = sorted(Validator(schema(schema_name)).iter_errors(value), key=lambda e: str(e.path))
    if errors:
        raise UserError(
            "\n".join(f"{where}: {line}" for error in errors for line in explain(error))
        )


def nearest(word: Any, valid: list[str]) -> str:
    """Return `; valid are: ...`, the nearest of the valid words first."""
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid are: {', '.join(valid)}"


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
        return [f"{key}: {found} is not of type {error.validator_value}"]
    return [f"{key}: {error.message}"]
