"""Choose the device and make its results repeatable."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib.core.errors import NodeError, TemporaryError, UserError

MPS = "CUDA_MPS_PIPE_DIRECTORY"  # set where NVIDIA's Multi-Process Service shares the GPU
GIB = 2**30
MOST_ALONE = 1.5 * GIB  # what is in use besides torch's own where one process has the GPU


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
        torch.zeros(1, device="cuda")  # starts CUDA: the seed and `random_state` know of it
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
        TemporaryError: other processes use its memory; or they use it by way of NVIDIA's MPS, by
            which a fault of one of them is one of all.
        UserError: its memory is too small.
    """
    try:
        yield
    except (torch.AcceleratorError, torch.OutOfMemoryError, UserError) as error:
        if ran_out(error):
            raise out_of_memory(error) from error
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


def ran_out(error: BaseException) -> bool:
    """Return whether an exception says that torch found no GPU memory, or comes from one."""
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "_STATUS_ALLOC_FAILED" in str(error)  # of cuBLAS and cuDNN
        or (error.__cause__ is not None and ran_out(error.__cause__))
    )


def out_of_memory(error: BaseException) -> UserError:
    """Return what to say where torch found no GPU memory: how much there is, and what to lower."""
    free, total = torch.cuda.mem_get_info()
    most = torch.cuda.max_memory_allocated()
    has = (
        f"{torch.cuda.get_device_name()} has {total / GIB:.1f} GiB of memory, {free / GIB:.1f} GiB "
        f"of it free, and this process had allocated {most / GIB:.1f} GiB at most"
    )
    if total - free - torch.cuda.memory_reserved() > MOST_ALONE:
        return TemporaryError(
            "the GPU has no memory left for this training beside the other processes on it: "
            f"{has}. Let fewer share it (cpus_per_job in the config); the same command resumes "
            "from the last checkpoint"
        )
    frames = traceback.walk_tb(error.__traceback__)
    evaluating = any(frame.f_code.co_name == "evaluate" for frame, _ in frames)
    return UserError(
        f"the GPU's memory is too small for this training: {has}. Lower "
        f"{'evaluation_batch_size' if evaluating else 'batch_size'}, make the model smaller, or "
        "ask for another GPU"
    )


def no_room(error: BaseException) -> TemporaryError:
    """Return what to say where CUDA itself has no room on the GPU: others use it."""
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
