"""What becomes of the failures of a GPU, as far as it needs none."""

import pytest
import torch

import models
from lib.core.errors import NodeError, TemporaryError, UserError
from lib.data.batches import Split
from lib.training.device import GIB, MPS, errors_of_the_gpu
from lib.training.metrics import evaluate

NO_ROOM = "CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"
BROKEN = "CUDA error: uncorrectable ECC error encountered.\nmore"
ASSERTION = "CUDA error: device-side assert triggered"


def fail(text: str, in_model: bool) -> None:
    """Fail as a GPU does, in torch itself or in a model's code."""
    try:
        raise torch.AcceleratorError(text)
    except torch.AcceleratorError as error:
        if not in_model:
            raise
        raise UserError(f"model Net: {error}") from error


@pytest.mark.parametrize(
    ("text", "in_model", "shared", "kind", "said"),
    [
        (BROKEN, False, False, NodeError, "the GPU of this node fails: CUDA error: uncorrectable"),
        (NO_ROOM, False, False, TemporaryError, "the GPU of this node has no memory left: CUDA"),
        (NO_ROOM, True, False, TemporaryError, "has no memory left"),
        (ASSERTION, True, False, UserError, "model Net: CUDA error: device-side assert"),
        (BROKEN, False, True, TemporaryError, "The cause may be another run that shares this GPU"),
        (ASSERTION, True, True, TemporaryError, "The cause may be another run"),
    ],
)
def test_who_is_to_blame(monkeypatch, text, in_model, shared, kind, said):
    monkeypatch.setenv(MPS, "folder") if shared else monkeypatch.delenv(MPS, raising=False)
    with pytest.raises(kind, match=said) as error, errors_of_the_gpu():
        fail(text, in_model)
    assert type(error.value) is kind


def test_other_errors_pass():
    with pytest.raises(UserError, match="batch_size"), errors_of_the_gpu():
        raise UserError("batch_size")


@pytest.fixture
def gpu(monkeypatch):
    """Simulate a GPU of 8 GiB with 1 GiB free; return a function that says what torch holds."""

    def holds(reserved: float) -> None:
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: reserved * GIB)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 6.25 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    holds(6.5)
    return holds


FIGURES = (
    "Some GPU has 8.0 GiB of memory, 1.0 GiB of it free, and this process had allocated 6.2 GiB at "
    "most. "
)
IN_TORCH = torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"
IN_CUBLAS = RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"


class NoMemory(torch.nn.Module):
    """Finds no memory, in an evaluation or in its `step`."""

    def __init__(self, kind: type[Exception], text: str):
        super().__init__()
        self.kind, self.text = kind, text

    def forward(self, images):
        raise self.kind(self.text)

    def step(self):
        with models.errors_named("NoMemory"):
            self(None)


@pytest.mark.parametrize("error", [IN_TORCH, IN_CUBLAS], ids=["torch", "cuBLAS"])
def test_too_little_memory_says_what_there_is_and_what_to_lower(gpu, error):
    scale = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    images = Split("test", torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), *scale)
    model = NoMemory(*error)
    small = "the GPU's memory is too small for this training: "
    with pytest.raises(UserError) as in_a_step, errors_of_the_gpu():
        model.step()
    assert str(in_a_step.value).startswith(f"{small}{FIGURES}Lower batch_size, make the model")
    with pytest.raises(UserError) as in_an_evaluation, errors_of_the_gpu():
        evaluate(model, images, None, 2)
    assert str(in_an_evaluation.value).startswith(f"{small}{FIGURES}Lower evaluation_batch_size, ")
    assert type(in_a_step.value) is type(in_an_evaluation.value) is UserError


def test_too_little_memory_outside_of_a_model(gpu):
    with pytest.raises(UserError, match="Lower batch_size"), errors_of_the_gpu():
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_others_use_may_be_free_later(gpu):
    gpu(5)
    with pytest.raises(TemporaryError) as error, errors_of_the_gpu():
        NoMemory(*IN_TORCH).step()
    assert "no memory left for this training beside the other processes on it" in str(error.value)
    assert FIGURES in str(error.value)
