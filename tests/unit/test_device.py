"""What becomes of the failures of a GPU, as far as it needs none."""

import pytest
import torch

from lib.core.errors import NodeError, TemporaryError, UserError
from lib.training.device import MPS, errors_of_the_gpu

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
