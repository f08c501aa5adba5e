"""What Python code means, as one digest: what cannot change a result does not change it.

The digest is of the syntax tree, without comments, docstrings, and the annotations of functions and
of their variables. Those in class bodies count: dataclasses read them. Python's own dump of a tree
differs from version to version. Here it is written so that Python 3.11 to 3.14 give the same.
"""

import ast
import hashlib
import json
from typing import Any

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# What says nothing more, by its name as a field of a node.
LEFT_OUT = ("ctx", "kind", "simple", "type_comment", "type_ignores", "returns")


def digest(tree: ast.Module) -> str:
    """Return the SHA-256 of what a module means.

    Raises:
        RecursionError: it is nested too deeply.
    """
    text = json.dumps(_form(tree, in_function=False), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _form(node: Any, in_function: bool) -> Any:
    """Return a part of a tree as lists, mappings and text; what is empty is left out."""
    if isinstance(node, list):
        return [_form(each, in_function) for each in node]
    if isinstance(node, ast.Constant):
        return _form(node.value, in_function)
    if not isinstance(node, ast.AST):
        # Which characters `repr` escapes depends on the version.
        spell = {str: json.dumps, int: hex}.get(type(node), ascii)
        return [type(node).__name__, spell(node)]
    if isinstance(node, ast.JoinedStr):
        return ["JoinedStr", _joined([_form(each, in_function) for each in node.values])]
    if isinstance(node, ast.AnnAssign) and in_function:
        if node.value is None:
            return ["Local", _form(node.target, in_function)]
        node = ast.Assign([node.target], node.value)
    in_function = isinstance(node, FUNCTIONS) or (
        in_function and not isinstance(node, ast.ClassDef)
    )
    fields = {}
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.arg) and name == "annotation":
            continue
        if name == "body" and isinstance(node, WITH_DOCSTRING):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        if name not in LEFT_OUT and value not in (None, []):
            fields[name] = _form(value, in_function)
    return [type(node).__name__, fields]


def _joined(parts: list) -> list:
    """Return the parts of an f-string with neighboring texts as one, and without empty ones."""
    found: list = []
    for part in parts:
        if part[0] == "str" and found and found[-1][0] == "str":
            found[-1] = ["str", found[-1][1][:-1] + part[1][1:]]
        elif part != ["str", '""']:
            found.append(part)
    return found
