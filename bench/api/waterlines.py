"""`bench.waterline`: where a module's time goes on this machine, layer by layer, as a drawing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.given import checked_device, checked_threads, given_subject
from bench.api.measuring import protocol_named
from bench.api.processes import Asked, measured_records

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.api.drawn import Drawing
    from bench.config.protocol import Protocol


def waterline(
    module: nn.Module,
    inputs: Any = None,
    protocol: str | Protocol = "glance",
    *,
    kwargs: dict[str, Any] | None = None,
    name: str | None = None,
    device: str | torch.device = "cpu",
    batch: int | None = None,
    threads: int | None = None,
    workload: str = "forward",
    shape: Mapping[str, Any] | None = None,
    backend: str = "eager",
    results: str | Path | None = None,
    progress: bool | None = None,
) -> Drawing:
    """The waterline of any module: what its shape allows on this machine and what its kernels reach, drawn by layer.

    What the machine could do is measured first, which takes ten seconds or more, and kept: in the results folder, or
    without one for as long as this process lives.

    Args:
        module: any `torch.nn.Module`; it is measured in evaluation mode and left as it was.
        inputs: of one forward, as `bench.measure` takes them.
        protocol: as `bench.measure` takes it; the layers' times come from the timed processes.
        kwargs: keyword inputs beside positional ones.
        name: what the drawing calls the module; default its class.
        device: where to run.
        batch: samples per forward; by default told from the inputs.
        threads: of the timed processes.
        workload: what one run is.
        shape: the workload's axes by name.
        backend: `eager` or another in whose layers one can look.
        results: folder that keeps what the machine could do; default `results`, where that folder is there.
        progress: whether a bar is drawn; by default on a terminal and in a notebook.

    Raises:
        UsageError: as `bench.measure` raises it.
        BenchError: the module failed, with the phase and the message.

    Source: after A. Lavin, arXiv 2404.03617; the geometry is in `bench.analysis.roofline`.
    """
    from bench.api.drawn import waterline_of
    from bench.meters import handed_over

    handed_over.check_module(module)
    threads = checked_threads(threads)
    module, subject = given_subject(
        module, name, inputs, kwargs, batch, workload, shape or {}, backend, checked_device(device)
    )
    sections = frozenset(("compute", "latency"))
    asked = Asked(sections, protocol_named(protocol), threads, progress, calibrations=_kept(results))
    return waterline_of(measured_records(module, None, subject, asked)[0])


def _kept(results: str | Path | None) -> Path:
    """The folder that keeps calibrations."""
    if results is not None:
        return Path(results)
    return Path("results") if Path("results").is_dir() else Path(_of_process().name)


@cache
def _of_process() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone with this process."""
    return tempfile.TemporaryDirectory(prefix="bench-machine-")
