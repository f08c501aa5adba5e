"""The training step as a CUDA graph: captured once per epoch, then replayed.

A step of a small network is some dozens of kernels of a few microseconds each. Python takes several
times as long to launch them one by one as the GPU takes to run them; a graph launches them all at
once (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). The kernels and their
arguments are those of the step in Python, so the results are the same bits.

What Python computes is captured as it was at the capture. So a model must declare that its
`forward` does the same each time, by a class attribute `cuda_graph = True`. A learning rate is
captured too, which is why there is a new capture in each epoch.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress

import torch

from lib.core.errors import UserError
from lib.core.settings import Settings
from lib.data.batches import Split


def allowed(model: torch.nn.Module, optimizer: torch.optim.Optimizer, settings: Settings) -> bool:
    """Return whether a step of them may be captured; then let the optimizer count on the GPU.

    That decides its last bits. It is set for the steps that are not captured too, and where
    capturing is off. A step whose learning rate is that of no other, or that Python has a part in,
    may not be.
    """
    on_gpu = all(parameter.is_cuda for parameter in model.parameters())
    if not on_gpu or not vars(type(model)).get("cuda_graph"):  # not inherited
        return False
    if settings.every_step or settings.accumulate > 1 or settings.clip_norm or settings.ema:
        return False
    if isinstance(optimizer, torch.optim.SGD):  # it counts nothing
        return True
    if not all("capturable" in group for group in optimizer.param_groups):
        return False
    for group in optimizer.param_groups:
        group["capturable"] = True
    # The first step, and the last one of an epoch, are not captured.
    warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
    return True


def has_room_for_graph() -> bool:
    """Return whether the GPU has three times the memory free that a step has taken at most.

    That is one time for the graph, one for the steps that are not captured, and one to spare: a
    capture that runs out of memory does not give back what it has.
    """
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    limit = torch.cuda.get_per_process_memory_fraction() * total - torch.cuda.memory_reserved()
    step = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    return min(free, limit) > 3 * step


class StepGraph:
    """Does the full batches of an epoch by replaying one captured step.

    The GPU finds its batch and the place for its loss by a count of its own, so that a replay needs
    nothing of the CPU but its launch.
    """

    def __init__(
        self,
        step: Callable[[list[torch.Tensor]], torch.Tensor],
        training_set: Split,
        batch_size: int,
    ):
        """Make an object that captures when it is first needed.

        Args:
            step: does a training step on batches, int64 [n] each; returns the loss.
            training_set: on the GPU.
            batch_size: images per step.
        """
        self.step, self.training_set, self.batch_size = step, training_set, batch_size
        device = training_set.labels.device
        self.full_batches = len(training_set) // batch_size
        self.offsets = torch.arange(batch_size, device=device)
        self.number = torch.zeros(1, dtype=torch.int64, device=device)  # of the next step
        self.pool = torch.cuda.graph_pool_handle()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = self.captured = False
        self.has_room: bool | None = None  # None: not known yet

    def start_epoch(self, order: torch.Tensor | None, losses: torch.Tensor) -> None:
        """Forget the captured step: another order [N], other losses [steps], maybe another rate."""
        self.order, self.losses, self.captured = order, losses, False
        self.steps = torch.arange(len(losses), device=losses.device)

    def replay(self, number: int) -> bool:
        """Do a step, counted from 0 in the epoch, if it is one for the graph; return whether.

        The first step of a process is not: libraries get ready in it, and the optimizer makes its
        state. Neither is a last batch of fewer images, nor any step where memory is short: a graph
        has its own, as much again as a step takes.
        """
        if number >= self.full_batches:
            return False
        if not self.warm:
            self.warm = True
            return False
        if self.has_room is None:
            self.has_room = has_room_for_graph()
        if not self.has_room:
            return False
        if not self.captured:
            self._capture(number)
        self.graph.replay()
        return True

    def _capture(self, number: int) -> None:
        """Capture a step, without doing it; the first replay will be of step `number`."""
        self.number.fill_(number)
        graph = torch.cuda.CUDAGraph()
        # Not `with torch.cuda.graph(...)`, which gives all free memory back each time.
        graph.capture_begin(pool=self.pool)
        try:
            self._next_step()
        except Exception as error:
            with suppress(RuntimeError):  # it says only that the capture has failed
                graph.capture_end()
            no_memory = isinstance(error.__cause__, torch.OutOfMemoryError)
            if no_memory or not isinstance(error, UserError):
                raise
            raise UserError(
                f"{error}\nIn a CUDA graph, a model must not wait for the GPU, as .item() does. "
                "Remove `cuda_graph = True` from its class if it has to"
            ) from error
        graph.capture_end()
        self.graph = graph  # only now: the graph before it keeps the memory for this one
        self.captured = True

    def _next_step(self) -> None:
        """Do the step that the GPU's count is at."""
        batch = torch.add(self.offsets, self.number, alpha=self.batch_size)
        if self.order is not None:
            batch = self.order[batch]
        loss = self.step([batch])
        torch.where(self.steps == self.number, loss, self.losses, out=self.losses)
        self.number.add_(1)
