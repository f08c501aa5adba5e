"""What every command shares: the look of `--help`, and how it ends."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from lib.core.errors import UserError

# The libraries would start a thread for each core of the machine, which login nodes of many cores
# refuse. A job of Snakemake's has what it has asked for.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

LARGEST = 2**63 - 1  # of a 64-bit integer, as in the schema of the config
LONGEST = 1e9  # seconds or minutes: beyond it, the operating system's clocks overflow


def parser(description: str) -> argparse.ArgumentParser:
    """Return an argument parser whose help keeps the description's line breaks.

    Options cannot be abbreviated: an abbreviation in a script breaks when a new option is added.
    """
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the folder of the runs."""
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="the folder that contains runs/ (default: %(default)s)",
    )


def run(main: Callable[[], None]) -> None:
    """Call `main`; turn a `UserError` into `error: ...` on standard error and its exit status.

    An error of the operating system ends in the same way, also where nobody has turned it into a
    `UserError`: it names the file, and the exit status says that it may be temporary. A reader that
    stops reading, such as `head`, ends the command quietly, as recommended in
    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    never_fail_on_characters()
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        # A file system may be away for a moment.
        temporary = isinstance(error.__cause__, OSError)
        _fail(f"error: {error}", os.EX_TEMPFAIL if temporary else error.status)
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except UnicodeEncodeError as error:  # of a file's name: printing does not fail
        sys.exit(
            f"error: {error.object!r} cannot be a file's name where names are in {error.encoding}; "
            "set LC_ALL=C.UTF-8, or choose a name without special characters"
        )
    except OSError as error:
        _fail(f"error: {_place(error)}{error.strerror or error}", os.EX_TEMPFAIL)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str, status: int) -> NoReturn:
    with suppress(OSError):  # nobody reads it
        print(message, file=sys.stderr, flush=True)
    sys.exit(status)


def never_fail_on_characters() -> None:
    """Let `print` write a character that the terminal's encoding lacks as its number.

    An en dash, for example, becomes a backslash and u2013. Where standard output or standard error
    is closed, what is printed there is lost.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it stays open
            setattr(sys, name, nowhere)
        if isinstance(getattr(sys, name), io.TextIOWrapper):  # a test's may be another
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _place(error: OSError) -> str:
    """Return `FILE: ` of an error of the operating system; nothing where it concerns no file."""
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: "
    try:
        print(flush=True)  # it fails again where it was this that failed
    except OSError:
        _discard_output()
        return "standard output: "
    return ""


def _discard_output() -> None:
    """Discard what was not written: the interpreter would try again on exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _without_interrupts(show: Callable) -> Callable:
    """Return a `sys.excepthook` like another one, which does not show that Ctrl-C was pressed."""

    def hook(kind: type[BaseException], *details) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            show(kind, *details)

    return hook


# Before `run` begins, a command imports its libraries, which takes seconds.
sys.excepthook = _without_interrupts(sys.excepthook)


def at_least(minimum: int, maximum: int = LARGEST) -> Callable[[str], int]:
    """Return an argparse type: an integer of `minimum` or more, and of `maximum` at most."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is not None and value > maximum:
            raise argparse.ArgumentTypeError(f"{text!r} is more than {maximum}")
        if value is None or value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of {minimum} or more")
        return value

    return integer


def duration(text: str) -> float:
    """Read an argparse argument: seconds or minutes, more than 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST:  # which is False for nan, too
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number greater than 0 and up to {LONGEST:.0f}"
        )
    return value
