"""The pixels of images that are decoded, in a file of their own until the prepared one is written.

Where decoding is cut off, or an image cannot be read, this file stays, and the next attempt decodes
only what is not in it.
"""

import fcntl
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL

from lib.core.errors import TemporaryError, UserError
from lib.core.files import sha256
from lib.data import pixels
from lib.data.decoding import each_of
from lib.data.pixels import Form, digest_of, pixels_of
from lib.data.readers import Item
from lib.data.tensor_file import PART, read_into


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is known of an image that is decoded.

    Attributes:
        row: of the file, where its pixels are.
        digest: of its pixels.
        constant: whether it is of one color.
        done: what was done to it, in words.
    """

    row: int
    digest: str
    constant: bool
    done: list[str]


class DecodedImages:
    """A file of pixels, and a list beside it: first what all images have in common, then each."""

    def __init__(self, prepared: Path, form: Form, sources: Any):
        """Open the file, with the images that are in it already.

        Args:
            prepared: the file that will be made of it, which gives it its name.
            form: of all images, with size and channels.
            sources: what else the images depend on, beyond their files, as JSON holds it.
        """
        self.path = prepared.with_suffix(".decoded")
        self.list_path = prepared.with_suffix(".decoded.jsonl")
        self.shape = (form.channels, *form.image_size)
        self.bytes = math.prod(self.shape)
        self.form, self.images, self.rows = form, {}, 0
        self.about = {
            "form": asdict(form),
            "sources": sources,
            "code": sha256(Path(pixels.__file__)),
            "pillow": PIL.__version__,
        }

    def __enter__(self) -> Self:
        with self.writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a+b")
            self.list = self.list_path.open("a+", encoding="ascii", errors="replace")
            self._lock()
            self._take_over()
        return self

    def _lock(self) -> None:
        """Wait until no other process decodes into the file, where the file system has locks.

        Without them, the digests tell when the prepared file is written.
        """
        with suppress(OSError):
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process writes {self.path}; waiting for it", flush=True)
                fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        with self.writing():
            self.file.close()
            self.list.close()

    def remove(self) -> None:
        """Remove both files: the prepared one has taken their place."""
        for path in (self.path, self.list_path):
            path.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an error of the disk into `TemporaryError`."""
        try:
            yield
        except OSError as error:
            raise TemporaryError(f"cannot write {self.path}: {error.strerror}") from error

    def _take_over(self) -> None:
        """Keep what an earlier attempt has decoded; of a machine that failed, it may be damaged."""
        self.list.seek(0)
        lines = self.list.readlines()
        same = lines[:1] == [_line(self.about)]
        with suppress(ValueError, TypeError, UserError):  # from the first one that is damaged on
            for line in lines[1:] if same else []:
                key, *known = json.loads(line)
                image = Decoded(self.rows, *known)
                next(self.parts([image]))
                self._append(key, image)
        self.file.truncate(self.rows * self.bytes)
        self.list.truncate(0)
        self.list.write(_line(self.about))
        for key, image in self.images.items():
            self.list.write(_line([key, *astuple(image)[1:]]))

    def _append(self, key: str, image: Decoded) -> None:
        self.images[key] = image
        self.rows += 1

    def add(
        self, items: Sequence[Item], read: Callable[[Item], bytes | Path | np.ndarray], threads: int
    ) -> list[Decoded | str]:
        """Decode the images that are not there yet.

        Args:
            items: the images.
            read: returns the content of one.
            threads: that decode.

        Returns:
            What is known of each; or, as a string, why it cannot be read.
        """
        keys = [_key(item) for item in items]
        missing = [index for index, key in enumerate(keys) if key not in self.images]
        if len(missing) < len(items):
            print(f"{len(items) - len(missing):,} of {len(items):,} images are decoded already")

        def decode(index: int) -> tuple[np.ndarray, str, bool, list[str]]:
            values, done = pixels_of(read(items[index]), self.form)
            return values, digest_of(values), not np.ptp(values), done

        failed, results = {}, each_of(missing, decode, "decoding", threads)
        for index, result in zip(missing, results, strict=True):
            if isinstance(result, str):
                failed[index] = result
                continue
            values, *known = result
            with self.writing():
                self.file.write(np.ascontiguousarray(values))
                self.list.write(_line([keys[index], *known]))
            self._append(keys[index], Decoded(self.rows, *known))
        with self.writing():
            self.file.flush()
        return [failed.get(index) or self.images[key] for index, key in enumerate(keys)]

    def parts(self, images: Sequence[Decoded]) -> Iterator[np.ndarray]:
        """Yield the pixels of images, uint8 [n, channels, height, width], as many as memory is for.

        Raises:
            UserError: they cannot be read, or are not those that were decoded.
        """
        count = max(1, PART // self.bytes)
        for first in range(0, len(images), count):
            part = images[first : first + count]
            values = np.empty((len(part), *self.shape), np.uint8)
            for value, image in zip(values, part, strict=True):
                read_into(value, self.file.fileno(), self.path, image.row * self.bytes)
                if digest_of(value) != image.digest:
                    raise UserError(f"{self.path} was changed meanwhile: start again")
            yield values


def _line(value: Any) -> str:
    return json.dumps(value) + "\n"


def _key(item: Item) -> str:
    """Return what tells whether the image is the one that was decoded."""
    if not isinstance(item.source, Path):
        return str(item.source)
    try:
        found = item.source.stat()
    except (OSError, ValueError):
        return str(item.source)  # it cannot be read, which is found when it is
    return f"{item.source} {found.st_size} {found.st_mtime_ns}"
