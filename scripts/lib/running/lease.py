"""One writer at a time: the lease that a training holds on its run's folder.

The same run can be started twice: a node that Slurm takes for lost may go on training while the job
has been started again elsewhere, or somebody types a command again. The lease is a file that says
who writes, and whose modification time says that the writer is alive. A second writer waits, and
takes over from a dead one.

The file is created exclusively (`O_EXCL`), which network file systems support, and not by a hard
link, which some refuse. So for a moment it may be empty: its holder is then unknown, and alive.
"""

import json
import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from lib.core.errors import TemporaryError, UserError
from lib.core.holder import Holder
from lib.core.layout import RunFiles

HEARTBEAT = 5.0  # seconds
# A file server may show a modification time a minute late.
DEAD_AFTER = 120.0
# On this machine one sees whether the process is alive.
DEAD_HERE_AFTER = 15.0
UNKNOWN = "another process"


class Lease:
    """The right to write into a folder. Use it in a `with` statement."""

    def __init__(self, folder: Path):
        """Make an object that knows the folder's lease; it is taken on entry."""
        self.path = RunFiles(folder).lease
        self.holder = Holder.current()
        self.had_to_wait = False
        self._ended = threading.Event()

    def __enter__(self) -> "Lease":
        """Take the lease; wait while another living process holds it.

        Raises:
            UserError: the folder cannot be made or written.
        """
        while not self._create():
            self._wait()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        """Release the lease, if it is still ours."""
        self._ended.set()
        # One that cannot be removed is that of a dead process soon.
        with suppress(OSError):
            if self._read() == self.holder:
                self.path.unlink(missing_ok=True)

    def ensure_held(self) -> None:
        """Make sure that the lease is still ours. Call it before writing.

        Raises:
            TemporaryError: another process has taken it, because this one gave no sign of life.
        """
        holder = self._read()
        if holder != self.holder:
            raise TemporaryError(
                f"{holder or UNKNOWN} has taken over {self.path.parent}, because this process did "
                "not renew its lease in time. It stops without writing"
            )

    def _create(self) -> bool:
        """Create the file, unless it exists; return whether it was created."""
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder, where a file has to be written: remove it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return _write_new(self.path, self.holder)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error

    def _read(self) -> Holder | None:
        """Return the holder; None if it is unknown, or there is none."""
        return Holder.read(self.path)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with suppress(OSError):
                if self._read() == self.holder:
                    os.utime(self.path)

    def _wait(self) -> None:
        """Return when the lease is free: released, or taken from a dead holder."""
        holder, changed, since = self._read(), self._changed(), time.monotonic()
        told = False
        while True:
            if self._read() != holder:
                return
            if self._changed() != changed:
                changed, since = self._changed(), time.monotonic()
            silent = time.monotonic() - since
            if silent > DEAD_AFTER or (silent > DEAD_HERE_AFTER and _gone(holder)):
                print(f"{holder or UNKNOWN} is dead: taking over {self.path.parent}", flush=True)
                self._take_from(holder)
                return
            if not told and not _gone(holder):
                told = self.had_to_wait = True
                print(
                    f"{holder or UNKNOWN} is training into {self.path.parent}; waiting", flush=True
                )
            time.sleep(0.5)

    def _changed(self) -> float | None:
        with suppress(OSError):
            return self.path.stat().st_mtime
        return None

    def _take_from(self, holder: Holder | None) -> None:
        """Remove the lease of a dead holder, but not that of another process that was faster."""
        aside = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            self.path.rename(aside)
            taken = Holder.read(aside)
            if taken and taken != holder:
                _write_new(self.path, taken)
            aside.unlink()
        except FileNotFoundError:
            pass  # another process was faster
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error


def _write_new(path: Path, holder: Holder) -> bool:
    """Write a lease, unless there is one; return whether it was written."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            json.dump(asdict(holder), file)
    except OSError:  # the disk is full: an empty file would be the lease of an unknown process
        path.unlink(missing_ok=True)
        raise
    return True


def _gone(holder: Holder | None) -> bool:
    return holder is not None and holder.has_ended()
