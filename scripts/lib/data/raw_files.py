"""The raw files of a data set: what is there and intact, and how the rest is downloaded.

A file is accepted only if its digest is the one in the catalog. Intact files are never changed.
"""

import errno
import gzip
import hashlib
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from lib.core.errors import UserError
from lib.core.files import sha256, sweep, temporary_path
from lib.data.sources import SourceError, log, reading

BLOCK = 1 << 16
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def intact_files(folder: Path, wanted: dict[str, dict]) -> dict[str, dict]:
    """Return what `download_file` would, for the files in `folder` that have the right content."""
    found = {}
    for role, expected in wanted.items():
        path = folder / expected["name"]
        with suppress(OSError, EOFError, zlib.error):
            if digest := intact_digest(path, expected):
                found[role] = listed(path, str(folder), digest)
    return found


def listed(path: Path, source: str, digest: str) -> dict:
    """Return what the list of files says of one."""
    return {"path": str(path), "source": source, "sha256": digest, "size": path.stat().st_size}


def intact_digest(path: Path, expected: dict) -> str | None:
    """Return the SHA-256 of a file; None if it is not what it should be."""
    if "md5" in expected:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return sha256(path) if md5 == expected["md5"] else None
    digest = sha256(path)
    right = expected.get("sha256") or content_digest(archive_of(path), expected)
    return digest if digest == right else None


def archive_of(path: Path) -> Path:
    """Return where the archive is kept of a file of which only the archive's digest is known."""
    return path.with_name(f"{path.name}.gz")


def content_digest(archive: Path, expected: dict) -> str | None:
    """Return the SHA-256 of an archive's content, or None if it is not the expected archive."""
    content = archive.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != expected["archive_md5"]:
        return None
    return hashlib.sha256(gzip.decompress(content)).hexdigest()


def download_file(folder: Path, expected: dict, sources: list) -> dict:
    """Get one file from the first source that has it, with one retry per source.

    A source that does not answer is taken off the list, or four files would wait for it.

    Returns:
        The file's `path`, its `source`, its `size`, and the `sha256` of its content.

    Raises:
        UserError: no source has it; the message gives the reason of each.
    """
    path = folder / expected["name"]
    reasons = []
    for source in list(sources):
        for attempt in (1, 2):
            try:
                digest = fetch(source, path, expected)
            except SourceError as error:
                reasons.append(f"  {source.label}: {error}")
                log(f"{expected['name']}: {source.label}: {error}")
                if error.permanent:
                    break
                if attempt == 2:
                    sources.remove(source)
            else:
                log(f"{path}: from {source.label}, digest correct")
                return listed(path, source.label, digest)
    tried = "\n".join(dict.fromkeys(reasons)) or "  nothing: no source is left"
    raise UserError(
        f"cannot get {expected['name']}. Tried:\n{tried}\n"
        "If you have a copy of the files (.gz or plain), name its folder or URL in the config:\n"
        '  mirrors: ["/path/to/the/folder"]'
    )


def fetch(source, path: Path, expected: dict) -> str:
    """Copy a file from a source to `path`; return the SHA-256 of its content.

    It is decompressed, unless what is known of it is the MD5 of the file as it is.

    Raises:
        SourceError: the source does not have it, or has something else.
        UserError: `path` cannot be written.
    """
    answers = []
    as_it_is = "md5" in expected
    for candidate in [path.name] if as_it_is else source.candidates(path.name):
        try:
            return fetch_candidate(source, candidate, path, expected)
        except SourceError as error:
            if not error.permanent:
                raise
            answers.append(f"{candidate}: {error}")
    raise SourceError("; ".join(answers), permanent=True)


def fetch_candidate(source, candidate: str, path: Path, expected: dict) -> str:
    """Copy the file from a source that is called `candidate` there. See `fetch`."""
    size = expected["size"]
    with reading(), source.open(candidate) as stream:
        if "sha256" in expected:
            return store(stream, path, size, "sha256", expected["sha256"])
        if "md5" in expected:
            store(stream, path, size, "md5", expected["md5"], decompress=False)
            return sha256(path)
        # Only the archive's digest is known, so the archive is what is checked and kept.
        archive = archive_of(path)
        store(stream, archive, size, "md5", expected["archive_md5"], decompress=False)
        with archive.open("rb") as content:
            return store(content, path, size, "sha256", None)


def store(
    stream: BinaryIO, path: Path, size: int, algorithm: str, digest: str | None, decompress=True
) -> str:
    """Write a stream to `path`, completely and with the expected digest, or not at all.

    Args:
        stream: plain or gzip-compressed; it must have `peek`.
        path: the file to write; until it is complete it has a temporary name.
        size: the most bytes that it may have.
        algorithm: of the digest, as `hashlib` names it.
        digest: the expected digest, in hexadecimal; None accepts any.
        decompress: whether a compressed stream is decompressed.

    Returns:
        The digest.

    Raises:
        SourceError: too large, or another digest.
        UserError: `path` cannot be written.
    """
    head = stream.peek(16)[:16]
    if decompress and head.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=stream)
    seen, count = hashlib.new(algorithm, usedforsecurity=False), 0
    temporary = temporary_path(path)
    sweep(path)
    try:
        with writing(path):
            file = temporary.open("wb")
        with file:
            while block := stream.read(BLOCK):
                count += len(block)
                if count > size:
                    raise SourceError(f"larger than the {size:,} bytes that it should have", True)
                seen.update(block)
                with writing(path):
                    file.write(block)
            if digest not in (None, seen.hexdigest()):
                kind = "an HTML page" if head.lstrip().startswith(b"<") else f"{count:,} bytes"
                found = f"{algorithm} {seen.hexdigest()}, expected {digest}"
                raise SourceError(f"not the right file but {kind} ({found})", permanent=False)
            with writing(path):
                file.flush()
                temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return seen.hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of our own disk into a UserError: no other source would help."""
    try:
        yield
    except OSError as error:
        if path.is_dir():
            raise UserError(f"{path} is a folder, where a file has to be written") from error
        free = ""
        with suppress(OSError):  # the folder may be gone
            free = f" ({shutil.disk_usage(path.parent).free / 1e6:,.0f} MB free there)"
        raise UserError(
            f"cannot write {path}: {error.strerror}{free}. Free some space, or set data_dir in the "
            "config to a folder that can be written, or that has the files"
        ) from error


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two runs do not write the same file at once.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / ".download.lock")
        try:
            held.acquire(timeout=1)
        except Timeout:
            log(f"another run is downloading into {folder}; waiting for it")
            held.acquire()
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            # A file exists completely or not at all: at the worst, two runs download the same.
            log(f"the file system of {folder} has no locks: going on without")
            held = nullcontext()
    except OSError as error:
        raise UserError(
            f"{folder} does not hold the data and cannot be written: {error.strerror or error}. "
            "Set data_dir in the config to a folder that can be written or holds the files already"
        ) from error
    with held:
        yield
