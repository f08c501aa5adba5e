"""Choose the device and make its results repeatable."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib.core.errors import NodeError, TemporaryError, UserError

MPS = "CUDA_MPS_PIPE_DIRECTORY"  # set where NVIDIA's Multi-Process Service shares the GPU


def choose(asked: str) -> torch.device:
    """Return the device for `cpu`, `cuda` or `auto`, which is a GPU if there is one.

    On a GPU, switch on deterministic algorithms and switch off TF32, so that float32 is float32
    (https://docs.pytorch.org/docs/stable/notes/randomness.html).

    Raises:
        NodeError: `cuda` is asked for and torch sees no GPU, or one that does not work.
    """
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise NodeError(
            "device cuda: torch sees no GPU here. Check `nvidia-smi` on this node, that the job "
            f"asked for a GPU (CUDA_VISIBLE_DEVICES is {visible}), and that the driver is new "
            f"enough for CUDA {torch.version.cuda}; or set device to cpu or auto"
        )
    if asked == "cpu" or not available:
        return torch.device("cpu")
    with errors_of_the_gpu():
        try:
            torch.zeros(1, device="cuda")  # starts CUDA: the seed and `random_state` know of it
        except torch.OutOfMemoryError as error:
            raise no_room(error) from error
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling memory that is about to be written takes a kernel each time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.cuda.set_stream(torch.cuda.Stream())  # the default one cannot be captured
    return torch.device("cuda")


@contextmanager
def errors_of_the_gpu() -> Iterator[None]:
    """Turn a failure of the GPU itself, within the `with` block, into an error that says so.

    Raises:
        NodeError: it fails, and another one may not.
        TemporaryError: it has no memory left; or other processes use it by way of NVIDIA's MPS, by
            which a fault of one of them is one of all.
    """
    try:
        yield
    except (torch.AcceleratorError, UserError) as error:
        fault = of_the_gpu(error)
        if fault is None:
            raise
        if "out of memory" in str(fault):
            raise no_room(fault) from error
        if MPS in os.environ:
            raise TemporaryError(
                f"{first_line(error)}. The cause may be another run that shares this GPU; the same "
                "command resumes from the last checkpoint"
            ) from error
        if isinstance(error, UserError):  # it was the model that ran
            raise
        raise NodeError(f"the GPU of this node fails: {first_line(error)}") from error


def of_the_gpu(error: BaseException | None) -> torch.AcceleratorError | None:
    """Return the failure of a GPU that an exception is, or comes from."""
    while error is not None and not isinstance(error, torch.AcceleratorError):
        error = error.__cause__
    return error


def no_room(error: BaseException) -> TemporaryError:
    """Return what to say where not even the start has room on the GPU: others use it."""
    return TemporaryError(
        f"the GPU of this node has no memory left: {first_line(error)}. Other processes use it; "
        "the same command resumes from the last checkpoint"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says; of CUDA's, the others are advice."""
    return str(error).partition("\n")[0].rstrip(".")


def describe(asked: str, device: torch.device, cuda_graph: bool) -> dict:
    """Return what `run.json` says of the device. On a CPU, torch is always deterministic."""
    cuda = device.type == "cuda"
    return {
        "device_asked": asked,
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "gpu_peak_memory_mb": torch.cuda.max_memory_allocated(device) / 2**20 if cuda else None,
        "cuda_version": torch.version.cuda if cuda else None,
        "cuda_graph": cuda_graph if cuda else None,
        "tf32": torch.backends.cuda.matmul.allow_tf32 if cuda else None,
        "deterministic": torch.are_deterministic_algorithms_enabled() if cuda else True,
    }
