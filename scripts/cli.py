"""What every command shares: one kind of error for the user, one look of `--help`."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import NoReturn


class Failure(Exception):
    """An error that the user can mend. Its text is all that they see of it."""


def parser(description: str) -> argparse.ArgumentParser:
    """Return an argument parser whose help keeps the description's line breaks.

    Options cannot be abbreviated: an abbreviation in a script breaks when a new option comes.
    """
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main: Callable[[], None]) -> None:
    """Call `main`; turn a `Failure` into `error: ...` on standard error and exit status 1.

    A reader that has had enough, as `head`, ends it quietly, as Python's documentation of SIGPIPE
    has it: https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    try:
        main()
        sys.stdout.flush()
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except BrokenPipeError:
        # Else the interpreter would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def leave() -> NoReturn:
    """End a command that has done its work, without taking torch apart first.

    To unload its libraries costs 0.2 s, and 100 MB of memory on top of what a training holds.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


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


def name_and_arguments(words: list[str]) -> dict:
    """Read `["SGD", "lr=0.1"]` as `{"name": "SGD", "lr": 0.1}`.

    A value is JSON where it reads as JSON, else a string.

    Raises:
        Failure: a word after the first is not `key=value`.
    """
    name, *pairs = words
    result = {"name": name}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise Failure(f"{pair!r} after {name} is not KEY=VALUE")
        try:
            result[key] = json.loads(text)
        except json.JSONDecodeError:
            result[key] = text
    return result


def as_words(mapping: dict) -> list[str]:
    """Return the words that `name_and_arguments` reads as `mapping`."""
    arguments = [f"{key}={json.dumps(value)}" for key, value in mapping.items() if key != "name"]
    return [mapping["name"], *arguments]
