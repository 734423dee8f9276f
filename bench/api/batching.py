"""`bench.largest_batch`: the largest batch that fits into memory, throughput up to it, and where it stops to pay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.api.measuring import measure, protocol_named
from bench.errors import DoesNotFit, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.analysis.batch_curve import Growth, Throughput
    from bench.api.results import Batches
    from bench.config.protocol import Protocol

#: Batches whose peak is taken to see how memory grows.
PROBED = (1, 2, 4)
#: Share of the memory that is free which a run may take, unless a limit is given.
SHARE = 0.8
#: A batch that did not fit, although it was expected to, is made smaller by this much, so many times.
SHRINK, TRIES = 0.85, 4
COLUMNS = (
    "batch", "expected_bytes", "peak_bytes", "throughput_per_s", "throughput_low", "throughput_high", "latency_ms",
    "latency_low", "latency_high", "state",
)  # fmt: skip


def largest_batch(
    module: nn.Module,
    inputs: Any,
    *,
    kwargs: dict[str, Any] | None = None,
    limit_bytes: float | None = None,
    most: int = 1024,
    protocol: str | Protocol = "quick",
    device: str | torch.device = "cpu",
    threads: int | None = None,
    name: str | None = None,
    progress: bool | None = None,
) -> Batches:
    """Memory and throughput by batch, one row for each batch that was tried, the smallest first.

    Memory is followed at batches of one, two and four, and grows by a line from there, which gives the largest batch to
    expect. Throughput is timed in fresh processes at 1, 2, 4, ... until a doubling no longer gains anything for
    certain or memory ends; the largest batch is then run in a process of its own, which the system would end first if
    memory ran out, and made smaller until it runs. The table ends with the answer; `attrs` has it as numbers:
    `largest`, `best` (the smallest batch that cannot be told from the fastest), `bend` (from which no doubling gains a
    tenth; None where the last one still did), `limit_bytes` and `growth` (bytes that are there anyway, and for each
    sample).

    Args:
        module: any `torch.nn.Module`; it is measured in evaluation mode and left as it was.
        inputs: of one forward, as `bench.measure` takes them, in any batch; samples are repeated to make larger ones.
        kwargs: keyword inputs beside positional ones.
        limit_bytes: memory that a run may take; by default 0.8 of what is free now.
        most: no batch above it is tried.
        protocol: as `bench.measure` takes it; here all processes take throughput windows, for intervals.
        device: where to run.
        threads: of the timed processes.
        name: what errors call the module; default its class.
        progress: whether a bar is drawn for each batch; by default on a terminal and in a notebook.

    Raises:
        UsageError: not one sample fits, or the inputs' samples cannot be told.
        BenchError: the module failed for another reason than memory.
    """
    from bench.analysis import batch_curve
    from bench.api.results import Batches

    options = {"protocol": _with_rates(protocol), "threads": threads, "name": name, "progress": progress}
    search = _Search(module, inputs, kwargs, str(device), options)
    limit = float(limit_bytes) if limit_bytes is not None else SHARE * _free(str(device))
    line = batch_curve.growth(search.peaks())
    expected = line.largest(limit, most)
    if expected < 1:
        raise UsageError(
            f"not one sample fits: a run of one takes about {line.at(1) / 1e6:.0f} MB of {limit / 1e6:.0f} MB; give a "
            "larger limit_bytes, or a smaller model or input"
        )
    rows = list(_timed(search, line, expected))
    largest, tried = _fitting(search, line, expected, {row["batch"] for row in rows if row["state"] == "timed"})
    frame = Batches(sorted([*rows, *tried], key=lambda row: row["batch"]), columns=list(COLUMNS))
    points = [_point(row) for row in rows if row["state"] == "timed"]
    top = batch_curve.best(points)
    frame.attrs |= {
        "largest": largest,
        "best": top.batch if top else None,
        "bend": batch_curve.bend(points),
        "limit_bytes": limit,
        "growth": (line.base, line.per_sample),
    }
    return frame


def _with_rates(protocol: str | Protocol) -> Protocol:
    """The protocol with throughput windows in every process: what is sought here are rates."""
    asked = protocol_named(protocol)
    latency = asked.latency.model_copy(update={"throughput_processes": None})
    return asked.model_copy(update={"latency": latency})


class _Search:
    """The module at any batch: its inputs are the caller's samples, again and again."""

    def __init__(self, module: nn.Module, inputs: Any, kwargs: Any, device: str, options: dict[str, Any]) -> None:
        from bench.meters import handed_over
        from bench.meters.inputs import as_call, batch_for

        handed_over.check_module(module)
        self._module, self._device, self._options = module, device, options
        self._call = as_call(inputs, kwargs)
        self._samples = batch_for(module, *self._call, None).size

    def inputs(self, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs of a forward of so many samples."""
        import torch
        from torch.utils._pytree import tree_map

        rows = torch.arange(batch) % self._samples

        def of_batch(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or value.dim() == 0 or value.shape[0] != self._samples:
                return value
            return value.index_select(0, rows.to(value.device))

        args, kwargs = tree_map(of_batch, self._call)
        return args, kwargs

    def peaks(self) -> dict[int, float]:
        """Peak bytes of live tensors at the batches that show how memory grows."""
        import torch

        from bench.meters import handed_over, memory

        found = {}
        with handed_over.evaluating(self._module), torch.no_grad():
            for batch in PROBED:
                args, kwargs = self.inputs(batch)
                with handed_over.user_errors(type(self._module).__name__, [*args, *kwargs.values()]):
                    found[batch] = float(memory.live_peaks(self._module, args, kwargs, "measured", "").peak_bytes)
        return found

    def measured(self, batch: int, metrics: tuple[str, ...]) -> dict[str, dict[str, Any]] | None:
        """The rows of a batch by metric; None where it did not fit into memory.

        Raises:
            BenchError: it failed for another reason.
        """
        args, kwargs = self.inputs(batch)
        try:
            frame = measure(
                self._module, args, metrics, kwargs=kwargs, batch=batch, device=self._device, **self._options
            )
        except DoesNotFit:
            return None
        return {row["metric"]: row for row in frame.to_dict("records")}


def _timed(search: _Search, line: Growth, expected: int) -> Iterator[dict[str, Any]]:
    """Rows of 1, 2, 4, ... samples, until a doubling gains nothing for certain or memory ends."""
    before, batch, flat = None, 1, 0
    while batch <= expected and flat < 2:
        found = search.measured(batch, ("latency_ms", "throughput_per_s", "peak_memory_bytes"))
        row = _row(batch, line, found)
        yield row
        if found is None:
            return
        now = _point(row)
        flat = flat + 1 if before is not None and (now.low or now.value) <= (before.high or before.value) else 0
        before, batch = now, 2 * batch


def _fitting(search: _Search, line: Growth, expected: int, run: set[int]) -> tuple[int, list[dict[str, Any]]]:
    """The largest batch that ran, and a row for each that was tried for its size alone."""
    tried, batch = [], expected
    for _ in range(TRIES):
        if batch <= max(run, default=0):
            break
        found = search.measured(batch, ("peak_memory_bytes",))
        tried.append(_row(batch, line, found, state="fits"))
        if found is not None:
            return batch, tried
        batch = int(batch * SHRINK)
    return max(run, default=0), tried


def _row(batch: int, line: Growth, found: dict[str, dict[str, Any]] | None, state: str = "timed") -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"batch": batch, "expected_bytes": line.at(batch), "state": state if found is not None else "does not fit"}
    for metric, names in (
        ("peak_memory_bytes", ("peak_bytes",)),
        ("throughput_per_s", ("throughput_per_s", "throughput_low", "throughput_high")),
        ("latency_ms", ("latency_ms", "latency_low", "latency_high")),
    ):
        taken = (found or {}).get(metric) or {}
        row |= dict(zip(names, (taken.get("value"), taken.get("low"), taken.get("high")), strict=False))
    return row


def _point(row: dict[str, Any]) -> Throughput:
    from bench.analysis.batch_curve import Throughput

    return Throughput(row["batch"], row["throughput_per_s"], row["throughput_low"], row["throughput_high"])


def _free(device: str) -> float:
    """Bytes that are free where the module would run.

    Raises:
        UsageError: the device does not tell.
    """
    from bench.host import gpus
    from bench.worker.client import memory_limit

    if device == "cpu":
        return float(memory_limit(1.0))
    free = gpus.free_memory(device)
    if free is None:
        raise UsageError(f"{device} does not tell how much of its memory is free; give limit_bytes")
    return float(free)
