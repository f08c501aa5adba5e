"""The errors that a user sees."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Jobs run a copy of the code (see `lib.core.snapshot`). Whoever reads a message edits the original.
ROOT = Path(__file__).absolute().parents[3]
COPY = f"{ROOT}{os.sep}" if ROOT.parts[-3:-1] == (".snakemake", "code") else None


class UserError(Exception):
    """An error that the user can fix. Its text is all that they see of it."""

    status = 1  # of a command that ends with it

    def __init__(self, text: str = "") -> None:
        super().__init__(text.replace(COPY, "") if COPY else text)


class TemporaryError(UserError):
    """An error that the same command may not meet when it is run again."""

    status = os.EX_TEMPFAIL


class NodeError(UserError):
    """An error of the machine that runs the command: the same command may succeed on another."""

    status = os.EX_UNAVAILABLE


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Turn an exception inside the block into a `UserError` that names a model and its line.

    Args:
        name: of the model, and whatever else the message should say of it.

    Raises:
        UserError: instead of any exception; the message has the name, the line in `scripts/models`
            that was running, and what the exception says.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # An error that was raised to be read is a ValueError.
        said = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(f"model {name}: {_line_of(error)}{said}") from error


def _line_of(error: Exception) -> str:
    """Return `FILE, line N: ` of the last line of a model's code that an exception came through."""
    lines = [
        f"{frame.f_code.co_filename}, line {line}: "
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith("models.")
    ]
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        lines.append(f"{error.filename}, line {error.lineno}: ")
    return "".join(lines[-1:])
