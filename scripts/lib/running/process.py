"""What makes a training process start, run and end faster than a plain Python process.

No number depends on any of it: with SLURM_CLASSIFIERS_PLAIN_PROCESS=1 in the environment, all of
it is off, and so are CUDA graphs (`graph.py`); the results are the same bytes. docs/performance.md
has what each part gains.

Written for torch 2.14, whose private module `torch._dynamo` it replaces. Nothing else of the
project touches private names of torch.
"""

import ctypes
import importlib
import os
import sys
import types
from contextlib import suppress
from typing import NoReturn

from lib.core.plain import PLAIN, is_plain

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
ONE_GIB = 1 << 30


def prepare() -> None:
    """Prepare this process for a training. Call it before the first optimizer is made."""
    if not is_plain():
        postpone_compiler()
        keep_freed_memory()


def exit_without_teardown() -> NoReturn:
    """End a command that has done its work, without unloading torch first.

    Unloading its libraries takes 0.4 s of the 5.4 s that a training of the MLP takes.
    """
    if is_plain():
        sys.exit()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def keep_freed_memory() -> None:
    """Let glibc keep memory that is freed, rather than return it to the operating system.

    Every step of a training frees what the next one allocates. By default glibc returns the larger
    blocks, and the operating system clears them, page by page, before it hands them out again.
    Without glibc this does nothing. A step of the CNN takes 76 ms instead of 105 ms; the MLP, whose
    tensors are small, gains nothing.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, ONE_GIB)
        libc.mallopt(M_TRIM_THRESHOLD, ONE_GIB)


def postpone_compiler() -> None:
    """Do not import torch's compiler until something needs it.

    Every optimizer of torch 2.14 imports `torch._dynamo` for two functions that do nothing where
    nothing is compiled. Without them, a training of the MLP takes 5.4 s instead of 6.7 s.
    `import torch._dynamo` looks into `sys.modules` first.
    """
    sys.modules.setdefault("torch._dynamo", CompilerOnDemand("torch._dynamo"))


class CompilerOnDemand(types.ModuleType):
    """Takes the place of `torch._dynamo` until something else of it is needed."""

    def graph_break(self) -> None:
        """Do nothing, as the original does outside a compiled function."""

    def disable(self, function, *_, **__):
        """Return the function as it is: it is not going to be compiled."""
        return function

    def __getattr__(self, name: str):
        """Import the real module, and return the attribute.

        Code that only inspects `sys.modules` asks every module for names such as `__file__`: that
        needs no import.

        Raises:
            ImportError: this torch has no such module.
        """
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        del sys.modules[self.__name__]
        try:
            return getattr(importlib.import_module(self.__name__), name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"this torch has no {self.__name__}; lib/running/process.py was written for "
                f"torch 2.14. Set {PLAIN}=1 to do without it"
            ) from error
