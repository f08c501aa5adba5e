"""Work on many images at once: files are read and decoded by several threads, in order."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from lib.core.errors import UserError
from lib.data.pixels import Form, pixels_of

AT_ONCE = 256  # images that are in work
CORES = len(os.sched_getaffinity(0))


def each_of(items: Sequence, function: Callable, what: str, threads: int = CORES) -> Iterator[Any]:
    """Yield what a function returns for each item, in order, or the text of its `UserError`.

    On a terminal, a bar shows how far it is, and elsewhere a line from time to time.
    """

    def safe(item):
        try:
            return function(item)
        except UserError as error:
            return str(error)

    bar = tqdm(total=len(items), desc=what, unit="image", disable=None, leave=False)
    next_line = time.monotonic() + 10
    with ThreadPoolExecutor(threads) as pool, bar:
        for first in range(0, len(items), AT_ONCE):
            yield from pool.map(safe, items[first : first + AT_ONCE])
            bar.update(min(AT_ONCE, len(items) - first))
            if bar.disable and time.monotonic() > next_line:
                done = f"{what}: {first + AT_ONCE:,} of {len(items):,} images"
                print(done, file=sys.stderr, flush=True)
                next_line = time.monotonic() + 10


def decoded(items: Sequence, read: Callable, form: Form) -> tuple[np.ndarray, list[str | None]]:
    """Read and decode images.

    Args:
        items: what `read` takes.
        read: returns the content of an image.
        form: of all images, with size and channels.

    Returns:
        uint8 [N, channels, height, width], and for each image None, or why it cannot be read.
    """
    images = np.zeros((len(items), form.channels, *form.image_size), dtype=np.uint8)

    def decode(number: int) -> None:
        images[number], _ = pixels_of(read(items[number]), form)

    return images, list(each_of(range(len(items)), decode, "decoding"))
