"""NVIDIA's Multi-Process Service (MPS): processes that share a GPU use it at the same time.

Without it they take turns, and small trainings that share a GPU are no faster than one after the
other; see docs/performance.md. The results are the same bytes.
https://docs.nvidia.com/deploy/mps/
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

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


class Mps:
    """The service for the commands of this process. Use it in a `with` statement.

    It needs no rights but those of the user. If it is not there, or does not work, the commands run
    without it. One that the site has started is left alone.
    """

    def __init__(self, clients: int):
        """Prepare it for so many processes at once."""
        self.clients, self.folder = clients, None

    def __enter__(self) -> Self:
        """Start it, and say whether it is used."""
        if self.clients == 1 or VARIABLES[0] in os.environ:
            return self
        self.control = shutil.which(CONTROL)
        if not self.control:
            why_not = f"there is no {CONTROL} here"
        elif self.clients > MOST_CLIENTS:
            why_not = f"NVIDIA MPS is for {MOST_CLIENTS} at most"
        else:
            why_not = self._start()
        if why_not:
            print(f"the runs take turns on the GPU: {why_not}", flush=True)
        else:
            print("the runs use the GPU at the same time (NVIDIA MPS)", flush=True)
        return self

    def _start(self) -> str:
        """Start it; return why it is not used, if it is not."""
        self.folder = Path(tempfile.mkdtemp(prefix="mps-"))
        self.environment = dict.fromkeys(VARIABLES, str(self.folder))
        if self._works("-d") and self._works("-c", PROBE, program=sys.executable):
            os.environ.update(self.environment)
            return ""
        self.__exit__()
        return "NVIDIA MPS does not work here"

    def _works(self, *options: str, program: str | None = None, says: str = "") -> bool:
        try:
            return not subprocess.run(
                [program or self.control, *options], env=os.environ | self.environment,
                input=says, text=True, timeout=SECONDS,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ).returncode  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return False

    def __exit__(self, *_) -> None:
        """End it."""
        if not self.folder:
            return
        self._works(says="quit\n")
        for name in self.environment:
            os.environ.pop(name, None)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = None
