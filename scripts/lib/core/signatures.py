"""Read classes from source code, without importing it: constructors, attributes, defaults.

The config is checked on the login node, at every start of Snakemake; importing torch for that
would cost seconds each time.
"""

import ast
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lib.core.errors import UserError

SCRIPTS = Path(__file__).absolute().parents[2]

# Arguments of constructors that are not for the config to give.
GIVEN = {
    "model": {"image_size", "num_classes"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "last_epoch"},
}


@dataclass(frozen=True)
class Signature:
    """The arguments of a constructor, without `self`."""

    names: tuple[str, ...]
    required: frozenset[str]
    defaults: dict[str, Any]  # literals only, tuples as lists
    open_ended: bool  # it takes **keywords, or comes from a base class that we have not read


@dataclass(frozen=True)
class _File:
    """What the top level of a Python file defines."""

    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[Path, str]]  # by local name: a project file and the name in it


def classes(path: Path) -> dict[str, ast.ClassDef]:
    """Return the classes that a Python file defines at its top level.

    Raises:
        UserError: the file cannot be read or parsed; the message names it and the line.
    """
    return _read(path).classes


def signature(path: Path, class_name: str) -> Signature:
    """Return the constructor's signature of a class in a Python file.

    An inherited constructor counts if its class is in a file of the project.
    """
    for node in _lineage(path, class_name):
        if node is None:  # a base class that we do not see may have a constructor
            break
        for each in node.body:
            if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                return _signature(each.args)
    return Signature((), frozenset(), {}, open_ended=True)


def class_attribute(path: Path, class_name: str, attribute: str) -> Any:
    """Return the literal that a class, or a base of it in the project, sets an attribute to.

    None stands for an attribute that is not there, or is no literal.
    """
    for node in _lineage(path, class_name):
        for each in reversed(node.body if node else []):
            if attribute in _assigned(each):
                return each.value.value if isinstance(each.value, ast.Constant) else None
    return None


def _assigned(statement: ast.stmt) -> list[str]:
    """Return the names that a statement such as `a = 1` or `a: int = 1` assigns a value to."""
    if isinstance(statement, ast.Assign):
        return [each.id for each in statement.targets if isinstance(each, ast.Name)]
    annotated = isinstance(statement, ast.AnnAssign) and statement.value
    return [statement.target.id] if annotated and isinstance(statement.target, ast.Name) else []


def with_defaults(kind: str, component: dict[str, Any]) -> dict[str, Any]:
    """Return a component with the literal defaults of its class's constructor filled in.

    So a default that is left out and one that is written out compare equal. A component whose
    class is not found is returned as it is.

    Args:
        kind: `model`, `optimizer` or `scheduler`.
        component: its `name`, and the arguments of its class.
    """
    return _defaults(kind, component.get("name")) | component


@cache
def _defaults(kind: str, name: Any) -> dict[str, Any]:
    try:
        path = SCRIPTS / "models" / f"{name.lower()}.py" if kind == "model" else None
        defaults = signature(path or torch_class_file(kind, name), name).defaults
    except (UserError, KeyError, AttributeError):
        return {}
    return {key: value for key, value in defaults.items() if key not in GIVEN[kind]}


def torch_class_file(kind: str, name: str) -> Path:
    """Return the file of torch that defines an optimizer or a scheduler."""
    file = f"{name.lower()}.py" if kind == "optimizer" else "lr_scheduler.py"
    return Path(importlib.util.find_spec("torch").origin).parent / "optim" / file


@cache
def _read(path: Path) -> _File:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: the file is not UTF-8 text") from error
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes; nested too deeply
        raise UserError(f"{path} is not a Python file: {error}") from error
    found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = {
        alias.asname or alias.name: (file, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for file in _module_files(node, path)
        for alias in node.names
    }
    return _File(found, imports)


def _module_files(node: ast.ImportFrom, path: Path) -> Iterator[Path]:
    """Yield the project's own file that `from module import ...` reads, if it is one."""
    if node.level > len(path.parents):
        return
    start = path.parents[node.level - 1] if node.level else SCRIPTS
    place = start.joinpath(*(node.module or "").split("."))
    for file in (place.with_suffix(".py") if node.module else place, place / "__init__.py"):
        if file.is_file():
            yield file
            return


def _lineage(path: Path, class_name: str) -> Iterator[ast.ClassDef | None]:
    """Yield a class and its bases, each before its own; None for a base outside the project."""
    seen = set()
    waiting = [(path, class_name)]
    while waiting:
        path, name = waiting.pop(0)
        if (path, name) in seen:
            continue
        seen.add((path, name))
        content = _read(path)
        if name in content.classes:
            node = content.classes[name]
            yield node
            waiting[:0] = [(path, _name(base)) for base in node.bases]
        elif name in content.imports:
            waiting.insert(0, content.imports[name])
        else:
            yield None


def _name(base: ast.expr) -> str:
    return base.id if isinstance(base, ast.Name) else ast.unparse(base)


def _signature(arguments: ast.arguments) -> Signature:
    positional = arguments.posonlyargs + arguments.args
    missing = len(positional) - len(arguments.defaults)
    pairs = list(zip(positional, [None] * missing + arguments.defaults, strict=True))[1:]
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    literals = {}
    for argument, default in pairs:
        try:
            literals[argument.arg] = json.loads(json.dumps(ast.literal_eval(default)))
        except (ValueError, TypeError):  # there is none, or no literal that a config can have
            continue
    return Signature(
        names=tuple(argument.arg for argument, _ in pairs),
        required=frozenset(argument.arg for argument, default in pairs if default is None),
        defaults=literals,
        open_ended=arguments.kwarg is not None,
    )
