"""Which of the project's own files a command consists of, and the digests of what they mean.

Two views of the same thing. `files_of` follows the import statements of a script without running
it: that is what a rule depends on. `imported_files` asks a running process what it has imported:
that is what its record says. A test holds the one against the other.
"""

import ast
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from lib.core import meaning
from lib.core.errors import UserError
from lib.core.files import sha256

SCRIPTS = Path(__file__).absolute().parents[2]
COMPUTING = (
    "models/",
    "lib/training/",
    "lib/data/batches.py",
    "lib/data/prepared.py",
    "lib/data/splits.py",
    "lib/data/tensor_file.py",
)
COMMANDS = ("train.py", "evaluate.py")  # which put it together


def imported_files() -> list[Path]:
    """Return the project's own files that this process has imported, sorted."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    # Not resolved, nor made paths: torch alone has some thousand modules.
    ours = f"{SCRIPTS}{os.sep}"
    paths = {os.path.abspath(file) for file in files if file}  # noqa: PTH100
    return sorted(Path(path) for path in paths if path.startswith(ours))


def computing_files(model: Path) -> list[Path]:
    """Return the files that compute the numbers of this process, sorted.

    They are among those that it has imported, and those that the model may import yet: it may
    import a helper only when it is called.
    """
    found = {*imported_files(), *files_of(model)}
    return sorted(path for path in found if computes(path.relative_to(SCRIPTS).as_posix()))


def computing_digests(model: Path) -> dict[str, str]:
    """Return `file_digests` of the files that compute the numbers of a model, by their imports.

    Raises:
        UserError: a file cannot be read or parsed; the message names it and the line.
    """
    found = files_of(model, *(SCRIPTS / command for command in COMMANDS))
    return file_digests(path for path in found if computes(path.relative_to(SCRIPTS).as_posix()))


def computes(name: str) -> bool:
    """Return whether a file of the code, by its path below `scripts/`, can change a number.

    Of the project's own, those of the models, of the training, and of the data that it sees; and
    whatever else a model imports.
    """
    return name.startswith(COMPUTING) or not name.startswith(("lib/", *COMMANDS))


def files_of(*scripts: Path) -> list[Path]:
    """Return the scripts and all of the project's own files that they import, sorted.

    Imports of imports count, and so do those inside functions. Only files are named, never
    folders: a new file beside these changes nothing.

    Raises:
        UserError: a file cannot be read or parsed; the message names it and the line.
    """
    found: set[Path] = set()
    waiting = [script.absolute() for script in scripts]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path)
    return sorted(found)


def file_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return the digest of what each file means, by its path below `scripts/`.

    Raises:
        UserError: a file cannot be read or parsed; the message names it.
    """
    return {path.relative_to(SCRIPTS).as_posix(): file_digest(path) for path in paths}


def file_digest(path: Path) -> str:
    """Return the digest of what a file of Python means (see `meaning`), or of another's bytes."""
    return _meaning(_read(path), path) if path.suffix == ".py" else sha256(path)


def is_same(name: str, digest: str, scripts: Path = SCRIPTS) -> bool:
    """Return whether a file means what it meant when `file_digests` has looked at it.

    Args:
        name: its path below `scripts/`.
        digest: what was found then, or by an earlier version: of its bytes.
        scripts: the folder `scripts/` of the code.
    """
    path = scripts / name
    try:
        content = _read(path)
        return digest == hashlib.sha256(content).hexdigest() or digest == _meaning(content, path)
    except UserError:
        return False


def changed(recorded: dict[str, str], is_same: Callable[[str, str], bool] = is_same) -> list[str]:
    """Return which files do not mean, or no longer, what `file_digests` has found."""
    return [name for name, digest in recorded.items() if not is_same(name, digest)]


def ensure_unchanged(recorded: dict[str, str], doing: str) -> None:
    """Make sure that this process's own code is still the code on disk.

    Raises:
        UserError: it is not; the message names the files.
    """
    files = changed(recorded)
    if files:
        names = ", ".join(f"scripts/{name}" for name in files)
        raise UserError(
            f"{names} changed during the {doing}. So its result would be of code that is not there "
            "any more; nothing is written. The same command starts again with the new code"
        )


def combined_digest(paths: Iterable[Path]) -> str:
    """Return one digest of what all the files mean.

    Raises:
        UserError: a file cannot be read or parsed; the message names it.
    """
    return hashlib.sha256("\n".join(map(file_digest, paths)).encode()).hexdigest()


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file.

    Raises:
        UserError: it cannot be read or parsed; the message names it and the line.
    """
    return _tree(_read(path), path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


@cache
def _meaning(content: bytes, path: Path) -> str:
    try:
        return meaning.digest(_tree(content, path))
    except RecursionError as error:
        raise UserError(f"{path} is not a Python file: {error}") from error


@cache
def _tree(content: bytes, path: Path) -> ast.Module:
    try:
        return ast.parse(content.decode(), filename=str(path))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: the file is not UTF-8 text") from error
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes; nested too deeply
        raise UserError(f"{path} is not a Python file: {error}") from error


@cache
def _imports(path: Path) -> list[Path]:
    """Return the project's own files that one file imports directly."""
    names = (name for node in ast.walk(parse(path)) for name in _module_names(node, path))
    return sorted({file for name in names for file in _module_files(name)})


def top_names(path: Path) -> set[str]:
    """Return the names of the packages that a file imports, but for the project's own.

    Raises:
        UserError: it cannot be read or parsed; the message names it and the line.
    """
    names = (name for node in ast.walk(parse(path)) for name in _module_names(node, path))
    return {name[0] for name in names if name and not any(_module_files(name[:1]))}


def _module_names(node: ast.AST, path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the parts of each module name that an import statement may mean."""
    if isinstance(node, ast.Import):
        yield from (tuple(alias.name.split(".")) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        start: tuple[str, ...] = ()
        if node.level:  # relative: from the folder of this file, or one above for each dot more
            folder = path.parents[node.level - 1]
            if not folder.is_relative_to(SCRIPTS):
                return
            start = folder.relative_to(SCRIPTS).parts
        module = start + tuple(node.module.split(".") if node.module else ())
        # `from package import name`: the name may be a module of the package.
        yield from ((*module, alias.name) for alias in node.names)


def _module_files(name: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files that importing a module runs: its packages' `__init__.py`, and its own."""
    for length in range(1, len(name) + 1):
        place = SCRIPTS.joinpath(*name[:length])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                yield file
