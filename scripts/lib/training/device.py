"""Choose the device and make its results repeatable."""

import os

import torch

from lib.core.errors import UserError


def choose(asked: str) -> torch.device:
    """Return the device for `cpu`, `cuda` or `auto`, which is a GPU if there is one.

    On a GPU, switch on deterministic algorithms and switch off TF32, so that float32 is float32
    (https://docs.pytorch.org/docs/stable/notes/randomness.html).

    Raises:
        UserError: `cuda` is asked for and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise UserError(
            "device cuda: torch sees no GPU here. Check `nvidia-smi` on this node, that the job "
            f"asked for a GPU (CUDA_VISIBLE_DEVICES is {visible}), and that the driver is new "
            f"enough for CUDA {torch.version.cuda}; or set device to cpu or auto"
        )
    if asked == "cpu" or not available:
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling memory that is about to be written takes a kernel each time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.cuda.init()  # now, so that the seed and `random_state` know of it
    torch.cuda.set_stream(torch.cuda.Stream())  # the default one cannot be captured
    return torch.device("cuda")


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
