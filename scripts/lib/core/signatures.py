"""Read a constructor's arguments from source code, without importing it.

The config is checked on the login node, at every start of Snakemake; importing torch for that
would cost seconds each time.
"""

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Signature:
    """The arguments of a constructor, without `self`."""

    names: tuple[str, ...]
    required: frozenset[str]
    defaults: dict[str, Any]  # literals only
    open_ended: bool  # it takes **keywords, or comes from a base class that we have not read


@cache
def classes(path: Path) -> dict[str, ast.ClassDef]:
    """Return the classes that a Python file defines at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def signature(path: Path, class_name: str) -> Signature:
    """Return the constructor's signature of a class in a Python file."""
    body = classes(path)[class_name].body
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _signature(node.args)
    return Signature((), frozenset(), {}, open_ended=True)


def _signature(arguments: ast.arguments) -> Signature:
    positional = arguments.posonlyargs + arguments.args
    missing = len(positional) - len(arguments.defaults)
    pairs = list(zip(positional, [None] * missing + arguments.defaults, strict=True))[1:]
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    literals = {}
    for argument, default in pairs:
        if isinstance(default, ast.Constant):
            literals[argument.arg] = default.value
    return Signature(
        names=tuple(argument.arg for argument, _ in pairs),
        required=frozenset(argument.arg for argument, default in pairs if default is None),
        defaults=literals,
        open_ended=arguments.kwarg is not None,
    )


def class_attribute(path: Path, class_name: str, attribute: str) -> Any:
    """Return the literal that a class sets an attribute to, or None."""
    for node in classes(path)[class_name].body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if attribute in names:
                return node.value.value
    return None


def torch_file(*parts: str) -> Path:
    """Return a source file of the installed torch."""
    return Path(importlib.util.find_spec("torch").origin).parent.joinpath(*parts)


def with_defaults(kind: str, component: dict) -> dict:
    """Return the component."""
    return component
