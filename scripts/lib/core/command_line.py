"""What every command shares: the look of `--help`, how it ends, and how a component is spelled."""

import argparse
import json
import os
import sys
from collections.abc import Callable

from lib.core.errors import UserError


def parser(description: str) -> argparse.ArgumentParser:
    """Return an argument parser whose help keeps the description's line breaks.

    Options cannot be abbreviated: an abbreviation in a script breaks when a new option is added.
    """
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main: Callable[[], None]) -> None:
    """Call `main`; turn a `UserError` into `error: ...` on standard error and exit status 1.

    A reader that stops reading, such as `head`, ends the command quietly, as recommended in
    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        # Otherwise the interpreter would flush once more on exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def at_least(minimum: int) -> Callable[[str], int]:
    """Return an argparse type: an integer of `minimum` or more."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of {minimum} or more")
        return value

    return integer


def parse_component(words: list[str]) -> dict:
    """Read `["SGD", "lr=0.1"]` as `{"name": "SGD", "lr": 0.1}`.

    A value that is valid JSON is read as JSON, any other as a string.

    Raises:
        UserError: a word after the first is not `key=value`.
    """
    name, *pairs = words
    component = {"name": name}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(f"{pair!r} after {name} is not KEY=VALUE")
        try:
            component[key] = json.loads(text)
        except json.JSONDecodeError:
            component[key] = text
    return component


def to_cli_args(component: dict) -> list[str]:
    """Return the words that `parse_component` reads as `component`."""
    arguments = [f"{key}={json.dumps(value)}" for key, value in component.items() if key != "name"]
    return [component["name"], *arguments]
