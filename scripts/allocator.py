"""The C library's memory allocator, told what a training is like."""

import ctypes
from contextlib import suppress

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
ONE_GIB = 1 << 30


def keep_freed_memory() -> None:
    """Let glibc keep memory that is freed, rather than give it back to the system.

    Every step of a training frees what the next will ask for. By default glibc returns the larger
    blocks, and the system clears them, page by page, before it lends them out again. Elsewhere than
    on glibc this does nothing.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, ONE_GIB)
        libc.mallopt(M_TRIM_THRESHOLD, ONE_GIB)
