"""The cost of a method: seconds, passes, samples and memory that it takes before anything is measured.

A method wraps its work once and leaves the result on the network that it returns; the record then has the readings
`method_seconds`, `method_forwards`, `method_backwards`, `method_peak_bytes` and `method_samples`, and `method_macs_run`
where the method tells its products::

    from bench import costs

    def apply(module, steps=100):
        with costs.recorded(module) as cost:
            for images, labels in batches(steps):
                loss(module(images), labels).backward()
                cost.samples += len(images)
        module.method_cost = cost.as_dict()
        return module

Who keeps trained weights keeps the dict with them (it is plain JSON) and puts it back, so that a case whose weights
come from a cache still says what they cost.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Cost:
    """Running totals of one method on one case.

    Attributes:
        seconds: wall time inside the blocks.
        forwards: calls of the module inside the blocks, whatever their batch.
        backwards: backward passes that came back to an output of the module.
        samples: what the method was given to calibrate or learn on, each time; the method adds to it.
        peak_bytes: growth of the process's resident size at its peak, on CUDA of the allocator; None where neither is
            told.
        macs: products that the method executed, forwards and backwards, where it counts them; the method adds to it.
        note: said beside every reading.
    """

    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    samples: int = 0
    peak_bytes: int | None = None
    macs: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types: what `module.method_cost` is set to."""
        return asdict(self)


@contextmanager
def recorded(module: nn.Module, cost: Cost | None = None, *, memory: bool = True) -> Iterator[Cost]:
    """A block whose time, passes and memory are added up; hooks are gone afterwards, also after an error.

    Args:
        module: the network whose passes are counted.
        cost: of an earlier block, to go on adding to: times and counts are summed, peaks are not.
        memory: whether the peak is watched; to prepare that takes longer than a block of milliseconds.
    """
    total = Cost() if cost is None else cost
    hook = module.register_forward_hook(_counting(total))
    peak = _Peak(module) if memory else None
    start = time.perf_counter()
    try:
        yield total
    finally:
        total.seconds += time.perf_counter() - start
        hook.remove()
        found = peak.growth() if peak is not None else None
        if found is not None:
            total.peak_bytes = max(found, total.peak_bytes or 0)


def _counting(total: Cost) -> Any:
    """A forward hook that counts calls, and a backward pass when the gradient of an output arrives."""
    from bench.tensors import tensors_in

    def came_back(gradient: Any) -> Any:
        total.backwards += 1
        return gradient

    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        total.forwards += 1
        for tensor in tensors_in(output):
            if tensor.requires_grad and tensor.grad_fn is not None:
                tensor.register_hook(came_back)
                return

    return hook


class _Peak:
    """The largest memory from now on, over what is held now."""

    def __init__(self, module: nn.Module):
        self._device = next((p.device for p in module.parameters() if p.is_cuda), None)
        gc.collect()
        if self._device is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
            self._before: int | None = torch.cuda.memory_allocated(self._device)
        else:
            from bench.meters import resident

            self._before = resident.watch_peak()

    def growth(self) -> int | None:
        """Bytes at the peak over what was held before; None where the kernel does not tell."""
        if self._before is None:
            return None
        if self._device is not None:
            import torch

            return max(0, torch.cuda.max_memory_allocated(self._device) - self._before)
        from bench.meters import resident

        peak = resident.status_bytes("VmHWM")
        return None if peak is None else max(0, peak - self._before)
