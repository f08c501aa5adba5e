"""NVIDIA's Multi-Process Service (MPS): processes that share a GPU use it at the same time.

Without it they take turns, and small trainings that share a GPU are no faster than one after the
other; see docs/performance.md. The results are the same bytes.
https://docs.nvidia.com/deploy/mps/
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lib.forks.start import socket_folder

CONTROL = "nvidia-cuda-mps-control"
VARIABLES = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
MOST_CLIENTS = 48  # of one GPU
SECONDS = 60  # that it may take to start, or to end
# What a program does first on a GPU. Where the service is started and does not work, this fails.
PROBE = """
import ctypes
cuda, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
raise SystemExit(bool(
    cuda.cuInit(0)
    or cuda.cuDeviceGet(ctypes.byref(device), 0)
    or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
))
"""


@contextmanager
def shared_gpu(clients: int) -> Iterator[None]:
    """Let the commands of this process use the GPU at the same time, and say whether they do.

    The service needs no permissions beyond those of the user. If it is not available, or does not
    work, the commands run without it. One that the site has started is left alone.

    Args:
        clients: how many processes use the GPU at once.
    """
    if clients == 1 or VARIABLES[0] in os.environ:
        yield
        return
    folder = socket_folder("mps-")
    environment = dict.fromkeys(VARIABLES, str(folder))
    why_not = start(clients, environment)
    if why_not:
        print(f"the runs take turns on the GPU: {why_not}", flush=True)
    else:
        print("the runs use the GPU at the same time (NVIDIA MPS)", flush=True)
        os.environ.update(environment)
    try:
        yield
    finally:
        succeeds([CONTROL], environment, "quit\n")
        for name in environment:
            os.environ.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)


def start(clients: int, environment: dict[str, str]) -> str:
    """Start the service; return why it cannot be used, or nothing if it can."""
    if not shutil.which(CONTROL):
        return f"there is no {CONTROL} on this node"
    if clients > MOST_CLIENTS:
        return f"NVIDIA MPS serves {MOST_CLIENTS} processes at most"
    for command in ([CONTROL, "-d"], [sys.executable, "-c", PROBE]):
        if not succeeds(command, environment):
            return "NVIDIA MPS does not work on this node"
    return ""


def succeeds(command: list[str], environment: dict[str, str], text: str = "") -> bool:
    """Return whether a command that reads a text succeeds in an environment."""
    try:
        done = subprocess.run(
            command, env=os.environ | environment, input=text, text=True, timeout=SECONDS,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
