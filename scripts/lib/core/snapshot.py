"""The code of the project as it was when Snakemake started, which is what its jobs run.

So whatever is edited while jobs wait changes nothing for them. A copy is unpacked below
`.snakemake` for each start of Snakemake, and removed when none of its jobs can need it any more.
`results/code/DIGEST.tar.gz` is for good: with it, a run can be repeated, also one of code that was
never committed. There is one for each state of the code. The records of the runs name its digest,
and that of the list of installed packages in `results/environments`.
"""

import atexit
import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from lib.core import provenance
from lib.core.code_digests import SCRIPTS
from lib.core.errors import TemporaryError, UserError
from lib.core.files import atomic_path, read_object, write_json
from lib.core.holder import Holder
from lib.core.layout import Layout
from lib.core.run_state import is_alive

ROOT = SCRIPTS.parent
PARTS = ("Snakefile", "workflow", "scripts")
UNPACKED = Path(".snakemake", "code")
OLD = 30 * 24 * 3600  # seconds after which a copy goes of which it cannot be known
HOLDER = "holder.json"  # in an unpacked copy: the Snakemake that it was made for


@dataclass(frozen=True)
class Snapshot:
    """The content of all files of the code, by their paths below the project's folder."""

    files: dict[str, bytes]

    @classmethod
    def take(cls) -> Self:
        """Read the code as it is now.

        Raises:
            UserError: a file cannot be read; the message names it.
        """
        files = {}
        for path in _code():
            try:
                files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
            except FileNotFoundError:
                pass  # a temporary one, as editors make them
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from error
        return cls(files)

    @classmethod
    def read(cls, archive: Path, digest: str) -> Self:
        """Read what `keep` has written.

        Raises:
            UserError: it cannot be read, or is not of that digest; the message names it.
        """
        try:
            with tarfile.open(archive) as tar:
                members = [each for each in tar if each.isfile()]
                snapshot = cls({each.name: tar.extractfile(each).read() for each in members})
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise UserError(f"cannot read {archive}: {error}") from error
        if snapshot.digest != digest:
            raise UserError(f"{archive} is damaged: its content is not that of its digest")
        return snapshot

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the names and the contents of all files."""
        found = {name: hashlib.sha256(each).hexdigest() for name, each in self.files.items()}
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    def keep(self, layout: Layout) -> None:
        """Write the archive, unless it is there.

        Raises:
            UserError: it cannot be written; the message names it.
        """
        path = layout.code(self.digest)
        if path.is_file():
            return
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name, each in sorted(self.files.items()):
                entry = tarfile.TarInfo(name)
                entry.size = len(each)
                tar.addfile(entry, io.BytesIO(each))
        with atomic_path(path) as temporary:
            temporary.write_bytes(gzip.compress(content.getvalue(), mtime=0))

    def unpack(self, folder: Path) -> None:
        """Write the files into a folder.

        Raises:
            TemporaryError: one cannot be written; the message names the folder.
        """
        try:
            for name, content in self.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError as error:
            raise TemporaryError(f"cannot write {folder}: {error.strerror}") from error


class CodeOfJobs:
    """The code that the jobs of this start of Snakemake run.

    Attributes:
        folder: where it will be, relative to the project's folder.
    """

    def __init__(self) -> None:
        """Read the code. Nothing is written yet."""
        self.snapshot = Snapshot.take()
        self.folder = UNPACKED / f"{self.snapshot.digest[:12]}-{secrets.token_hex(4)}"

    def start(
        self,
        layout: Layout,
        has_jobs: Callable[[Layout], bool],
        is_dead: Callable[[Holder], bool],
    ) -> None:
        """Keep the code and unpack it; remove older copies that nobody needs.

        Args:
            layout: of the study that is about to run.
            has_jobs: see `remove_unneeded`.
            is_dead: see `remove_unneeded`.

        Raises:
            UserError: it cannot be written; the message names the file.
        """
        remove_unneeded(has_jobs, is_dead)
        holder = asdict(Holder.current()) | {"results_dir": str(layout.results.absolute())}
        write_json(self.folder / HOLDER, holder)  # first: others may be removing
        atexit.register(self.end)
        self.snapshot.keep(layout)
        self.snapshot.unpack(self.folder)
        state = provenance.state_of_project()
        if Snapshot.take().digest != self.snapshot.digest:  # it was edited, or is another commit
            state |= {"git_commit": None, "git_dirty": None}
        origin = state | {
            "snapshot": self.snapshot.digest,
            "environment": keep_environment(layout),
        }
        write_json(self.folder / provenance.ORIGIN, origin)

    def remove(self) -> None:
        """Remove the copy, when all jobs have succeeded."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def end(self) -> None:
        """Leave it to the next start to remove the copy: jobs may still be about to end."""
        path = self.folder / HOLDER
        content = read_object(path, {"results_dir": str})
        with suppress(OSError, UserError):
            if content:
                write_json(path, content)


def keep_environment(layout: Layout) -> str:
    """Write the list of all installed packages, once for each such list; return its digest."""
    packages = provenance.packages()
    digest = hashlib.sha256(json.dumps(packages).encode()).hexdigest()
    path = layout.environment(digest)
    if not path.is_file():
        write_json(path, packages)
    return digest


def remove_unneeded(has_jobs: Callable[[Layout], bool], is_dead: Callable[[Holder], bool]) -> None:
    """Remove the copies of starts of Snakemake that have ended and have no jobs any more.

    Args:
        has_jobs: returns whether jobs of a study are in Slurm's queue.
        is_dead: returns whether it is sure that a process has ended.
    """
    for folder in UNPACKED.glob("*"):
        if not _is_needed(folder, has_jobs, is_dead):
            shutil.rmtree(folder, ignore_errors=True)


def _is_needed(
    folder: Path, has_jobs: Callable[[Layout], bool], is_dead: Callable[[Holder], bool]
) -> bool:
    """Return whether a copy may be needed yet."""
    try:
        holder = Holder.read(folder / HOLDER)
        if holder and holder.is_here() and not holder.has_ended():
            return True
        is_old = time.time() - folder.stat().st_mtime > OLD
        content = read_object(folder / HOLDER, {"results_dir": str})
        if content is None:  # it is being written, or was when its Snakemake was killed
            return not is_old
        layout = Layout(Path(content["results_dir"]))
        leases = [layout.run(*run).lease for run in layout.runs()]
        leases += folder.parents[1].glob("re*/*/run/lease.json")  # of what is repeated
        if any(map(is_alive, leases)) or has_jobs(layout):
            return True
        return bool(holder) and not is_dead(holder) and not is_old
    except OSError:  # somebody else is removing it
        return True
    except UserError:  # Slurm does not answer
        return not is_old


def _code() -> Iterator[Path]:
    """Yield the files of the code, tracked by git or not, but for caches and hidden files."""
    for part in PARTS:
        if (ROOT / part).is_file():
            yield ROOT / part
        for folder, folders, names in os.walk(ROOT / part, followlinks=True):
            kept = (name for name in folders if not _is_left_out(name))
            folders[:] = sorted(name for name in kept if not _leads_back(Path(folder, name)))
            yield from (Path(folder, name) for name in sorted(names) if not _is_left_out(name))


def _leads_back(folder: Path) -> bool:
    """Return whether a folder is a link to one above it."""
    return folder.is_symlink() and folder.resolve() in {each.resolve() for each in folder.parents}


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__" or name.endswith(".pyc")
