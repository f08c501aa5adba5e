"""Which batch size fits, where memory runs out: the part that needs no GPU."""

import pytest
import torch

from lib.core.errors import UserError
from lib.training.gpu_memory import largest, ran_out


def attempt(size: int) -> None:
    """Run out of memory with more than 130 images, inside a model."""
    if size > 130:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError as error:
            raise UserError("model Net: OutOfMemoryError") from error


@pytest.mark.parametrize(("size", "fitting"), [(1000, 125), (130, 130), (131, 65), (1, 1)])
def test_the_largest_half_that_fits_is_found(size, fitting):
    assert largest(size, attempt) == fitting


def test_nothing_may_fit():
    def never(size):
        raise torch.OutOfMemoryError(f"CUDA out of memory with {size}")

    assert largest(64, never) is None


def test_another_error_is_not_taken_for_it():
    def broken(size):
        raise UserError(f"model Net: ZeroDivisionError with {size}")

    with pytest.raises(UserError, match="ZeroDivisionError with 64"):
        largest(64, broken)
    assert not ran_out(UserError("model Net: no memory"))


def test_libraries_say_it_in_their_own_words():
    error = UserError("model Net: ...")
    error.__cause__ = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublas")
    assert ran_out(error)
