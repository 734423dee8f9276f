"""What a worker does on a CUDA device: choose it, time by events, capture graphs, flush its cache.

No setting is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.errors import UsageError
from bench.host.visible_gpus import index_of

#: Forwards on a side stream before a capture, as torch asks for: libraries choose kernels and allocate in them.
CAPTURE_WARMUP = 3
#: The flushing buffer is this many times the L2 cache.
FLUSH_MULTIPLE = 2


class CaptureFailed(NotImplementedError):
    """A forward that cannot become a CUDA graph, with what CUDA said."""


def select(device: str) -> None:
    """Make a CUDA device the current one: events, streams and graphs belong to whichever is. Nothing on a CPU.

    Raises:
        UsageError: torch cannot use it.
    """
    if device == "cpu":
        return
    try:
        torch.cuda.init()
        torch.cuda.set_device(index_of(device))
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device} cannot be used by torch {torch.__version__}: {error}") from error


class EventClock:
    """A pair of CUDA events in the current stream, used again and again."""

    def __init__(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._stop = torch.cuda.Event(enable_timing=True)

    def start(self) -> None:
        """Mark the beginning."""
        self._start.record()

    def stop(self) -> None:
        """Mark the end."""
        self._stop.record()

    def elapsed_ms(self) -> float:
        """Milliseconds between the marks; only after waiting for the device."""
        return float(self._start.elapsed_time(self._stop))


@dataclass(frozen=True)
class Captured:
    """A step as a CUDA graph: called, it replays; its inputs and its output stay where they were at the capture."""

    graph: Any
    output: Any

    def __call__(self) -> Any:
        """The output, once the device has replayed."""
        self.graph.replay()
        return self.output


def captured(step: Callable[[], Any]) -> Captured:
    """The step as a CUDA graph, captured once after a warm-up on a stream of its own.

    Raises:
        CaptureFailed: the step waits for the device, allocates by what it finds there, or else cannot be recorded.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(CAPTURE_WARMUP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            output = step()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise CaptureFailed(
            "the forward cannot be captured as a CUDA graph: it waits for the device, or its shapes depend on values "
            f"({_first(error)}); measure it with device.cuda_graphs=false"
        ) from error
    return Captured(graph, output)


def _first(error: BaseException) -> str:
    """What went wrong first: ending a broken capture raises an error of its own, which says less."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


@dataclass(frozen=True)
class L2Flush:
    """Writes a buffer larger than the L2 cache, so that nothing of a forward is left in it."""

    buffer: torch.Tensor
    l2_bytes: int

    def __call__(self) -> None:
        """Write it all."""
        self.buffer.zero_()

    def as_dict(self) -> dict[str, Any]:
        """Sizes as plain JSON types."""
        return {"setting": "cold", "l2_bytes": self.l2_bytes, "flushed_bytes": self.buffer.numel()}


def l2_flush(device: str) -> L2Flush:
    """What flushes the L2 cache of a CUDA device.

    Raises:
        UsageError: CUDA does not tell how large the cache is.
    """
    size = int(getattr(torch.cuda.get_device_properties(index_of(device)), "L2_cache_size", 0) or 0)
    if size <= 0:
        raise UsageError(
            f"protocol.latency.l2=cold clashes with device {device}, of which CUDA does not tell the size of the L2 "
            "cache: use protocol.latency.l2=warm"
        )
    return L2Flush(torch.empty(FLUSH_MULTIPLE * size, dtype=torch.uint8, device=device), size)
