"""One writer at a time: the lease that a training holds on its run's folder.

The same run can be started twice: a node that Slurm takes for lost may train on while the job has
been started again elsewhere, or somebody types a command again. The lease is a file that says who
writes, and whose time of change says that they live. A second writer waits, and takes over from a
dead one.
"""

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

from cli import Failure

NAME = "lease.json"
HEARTBEAT = 5.0  # seconds
# A file server may show a change of time a minute late.
DEAD_AFTER = 120.0
# On one's own machine one sees whether the process lives; but it may be in another container.
DEAD_HERE_AFTER = 15.0


class Lease:
    """The right to write into a folder. Use it in a `with` statement."""

    def __init__(self, folder: Path):
        """Make an object that knows the folder's lease; it is taken on entry."""
        self.path = folder / NAME
        process = psutil.Process()
        self.holder = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "process": process.pid,
            "process_start": process.create_time(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        }
        self.waited = False
        self._ended = threading.Event()

    def __enter__(self) -> "Lease":
        """Take the lease; wait while another process that lives holds it.

        Raises:
            Failure: the folder cannot be made or written.
        """
        while not self._create():
            self._wait()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        """Give the lease back, if it is still ours."""
        self._ended.set()
        if self._read() == self.holder:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Make sure that the lease is still ours: call it before writing.

        Raises:
            Failure: another process has taken it, having seen no sign of life from us.
        """
        holder = self._read()
        if holder != self.holder:
            raise Failure(
                f"{_name(holder)} has taken over {self.path.parent}: this process gave no sign of "
                "life for too long, and stops without writing"
            )

    def _create(self) -> bool:
        """Create the file with its content at once; tell whether there was none."""
        temporary = self.path.with_name(f".{NAME}.{self.holder['id']}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.holder))
            with suppress(FileExistsError):
                os.link(temporary, self.path)
                return True
            return False
        except OSError as error:
            raise Failure(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _read(self) -> dict | None:
        with suppress(OSError, ValueError):
            return json.loads(self.path.read_text())
        return None

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with suppress(OSError):
                if self._read() == self.holder:
                    os.utime(self.path)

    def _wait(self) -> None:
        """Return when the lease is gone: given back, or taken from a holder that is dead."""
        holder, changed, since = self._read(), self._changed(), time.monotonic()
        told = False
        while True:
            if self._read() != holder:
                return
            if self._changed() != changed:
                changed, since = self._changed(), time.monotonic()
            silent = time.monotonic() - since
            if silent > DEAD_AFTER or (silent > DEAD_HERE_AFTER and _gone(holder)):
                print(f"{_name(holder)} is dead: taking over {self.path.parent}", flush=True)
                self._take_from(holder)
                return
            if not told and not _gone(holder):
                told = self.waited = True
                print(f"{_name(holder)} is training into {self.path.parent}; waiting", flush=True)
            time.sleep(0.5)

    def _changed(self) -> float | None:
        with suppress(OSError):
            return self.path.stat().st_mtime
        return None

    def _take_from(self, holder: dict | None) -> None:
        """Remove the lease of a dead holder, but not the one of somebody who was faster."""
        aside = self.path.with_name(f".{NAME}.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            self.path.rename(aside)
            taken = None
            with suppress(ValueError):
                taken = json.loads(aside.read_text())
            if taken != holder:
                with suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()


def _gone(holder: dict | None) -> bool:
    """Tell whether the holder was a process of this machine that has ended."""
    if not holder or holder["host"] != socket.gethostname():
        return False
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(holder["process"])
        if process.status() != psutil.STATUS_ZOMBIE:
            return abs(process.create_time() - holder["process_start"]) > 1
    return True


def _name(holder: dict | None) -> str:
    if not holder:
        return "another process"
    job = f", Slurm job {holder['slurm_job']}" if holder["slurm_job"] else ""
    return f"process {holder['process']} on {holder['host']}{job}"
