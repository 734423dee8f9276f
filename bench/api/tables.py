"""Tables of what was measured and of a module's layers: `bench.load`, `bench.curves`, `bench.layers`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import workloads
from bench.api.given import Given, check_given, name_of
from bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from bench.api.results import Layers


def layers(
    module: nn.Module,
    inputs: Any = None,
    *,
    kwargs: dict[str, Any] | None = None,
    repeats: int = 10,
    workload: str = "forward",
    shape: Mapping[str, Any] | None = None,
    part: str | None = None,
) -> Layers:
    """The per-layer table of one run: MACs, bytes read and written, intensity, time with interval, share, memory.

    Taken in this process. The frame's `attrs["info"]` has the end-to-end time and the part that no layer explains;
    `attrs["memory"]` has the peak of live bytes, the operator and layer that reached it, and their course over the run.
    Columns of memory are those of `bench.meters.layer_memory.LayerBytes`: all bytes alive at most while a layer ran,
    its own at the peak of the run, and of a training step those that it keeps for the backward.

    Args:
        module: any `torch.nn.Module`; it is run in evaluation mode and left as it was.
        inputs: a tensor, a tuple of positional inputs, or a dict of keyword inputs.
        kwargs: keyword inputs beside positional ones.
        repeats: timed passes.
        workload: what one run is, as `measure` takes it.
        shape: the workload's axes by name.
        part: which part of the workload; default the whole run.

    Raises:
        UsageError: an unknown workload, axis or part, or a module that does not offer what the workload needs.
    """
    from bench.api.results import Layers
    from bench.meters import handed_over, layer_memory, memory
    from bench.meters import layers as meter
    from bench.meters.inputs import as_call, batch_for
    from bench.meters.state import state_kept
    from bench.worker import parts as made
    from bench.worker.subject import Subject

    handed_over.check_module(module)
    args, keywords = as_call(inputs, kwargs)
    check_given(module, args, keywords, workload)
    asked = (shape or {}).get("batch")
    samples = batch_for(module, args, keywords, asked)
    whole = workloads.find(workload).shape({**(shape or {}), "batch": samples.size})
    given = Given(name_of(module, None), (args, keywords), workload, whole, "eager", "cpu", samples)
    with handed_over.evaluating(module), handed_over.user_errors(type(module).__name__), made.running(workload):
        subject = Subject(given.case(model=given.name), module, args, keywords, {})
        chosen = _part(made.parts_of(subject), part)
        with state_kept(module, args, keywords), made.as_forward(subject, chosen) as call:
            found = meter.table(*call, repeats=repeats)
            peaks = memory.live_peaks(*call, "measured", "")
    rows = layer_memory.joined(found.rows, [layer.as_row() for layer in peaks.layers])
    frame = Layers(rows, columns=None if rows else [*meter.COLUMNS, *layer_memory.COLUMNS])
    frame.attrs["info"] = found.info
    frame.attrs["memory"] = {name: peaks.as_dict()[name] for name in ("peak_bytes", "split", "peak_at", "course")}
    return frame


def _part(parts: Sequence[Any], name: str | None) -> Any:
    """The part of this name; the whole without one."""
    if name is None:
        return parts[0]
    names = [part.name for part in parts]
    if name not in names:
        raise UsageError(f'part "{name}" does not exist; {did_you_mean(name, names)}')
    return parts[names.index(name)]


def load(results: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "results") -> pandas.DataFrame:
    """The tidy table of one or several results folders, one row per reading.

    Raises:
        UsageError: a folder or file does not exist, or holds no records.
    """
    import warnings

    from bench.analysis import table

    places = _places(results)
    frame = table.load(places)
    problems = frame.attrs.get("problems", [])
    if frame.empty:
        why = f": {problems[0]}" if problems else ""
        raise UsageError(f"results: {', '.join(map(str, places)) or 'no folder'} holds no readable records{why}")
    if problems:
        warnings.warn(f"{len(problems)} records were left out, the first: {problems[0]}", stacklevel=2)
    return frame


def across_machines(results: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "results") -> pandas.DataFrame:
    """Whether savings travel: a row per suite, method and class of machines, over the cases that all its classes have.

    Columns are `bench.analysis.portability_table.COLUMNS`. `attrs["pairs"]` is a frame with the rank correlation of the
    speed-ups of every two classes, its interval and the number of cases; `attrs["flips"]` one of the cases that gain on
    one class and lose on another for certain; `attrs["reason"]` says why there may be nothing to set side by side.

    Args:
        results: results folders, as many as there are; `pool.json` in them names classes.

    Raises:
        UsageError: a folder does not exist, or none holds a record.
    """
    from bench.analysis import portability, portability_table, table
    from bench.store import classes

    places = _places(results)
    records = table.read_records(places).records
    if not records:
        raise UsageError(f"results: {', '.join(map(str, places)) or 'no folder'} holds no readable records")
    labels = classes.by_machine(classes.joined(classes.read(place) for place in places))
    return portability_table.frame(portability.across(records, labels))


def curves(results: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "results") -> pandas.DataFrame:
    """Every curve of one or several results folders, one row per value: MACs of each step, time of each input, ...

    Raises:
        UsageError: a folder or file does not exist.
    """
    import warnings

    from bench.analysis import curves as tidy

    frame = tidy.load(_places(results))
    problems = frame.attrs["problems"]
    if problems:
        warnings.warn(f"{len(problems)} records or curves were left out, the first: {problems[0]}", stacklevel=2)
    return frame


def _places(results: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The folders and files that are meant.

    Raises:
        UsageError: one does not exist.
    """
    places = [Path(place) for place in ([results] if isinstance(results, (str, os.PathLike)) else results)]
    for place in places:
        if not place.exists():
            raise UsageError(f"results: there is no folder or file {place}; it is looked for from {Path.cwd()}")
    return places
