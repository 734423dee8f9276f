"""Any module measured like a case of a sweep, as `bench.measure` does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.api.given import Given, checked_device, checked_threads, dtype_of, given_subject
from bench.api.processes import Asked, measured_records
from bench.errors import UsageError, did_you_mean
from bench.metrics import METRICS

if TYPE_CHECKING:
    import pandas
    import torch
    from torch import nn

    from bench.api.results import Results
    from bench.config.protocol import Protocol

#: Names for whole sections of metrics, as `measure` takes them.
GROUPS = {
    "params": "size",
    "macs": "compute",
    "latency": "latency",
    "throughput": "throughput",
    "memory": "memory",
    "hardware": "hardware",
    "energy": "energy",
    "fidelity": "fidelity",
}
#: Sections that are counted rather than measured: they need no fresh process.
COUNTED = {"size", "compute"}
#: What `measure` takes when nothing is asked for.
DEFAULT_METRICS = ("params", "macs", "latency", "throughput", "memory")


def measure(
    module: nn.Module,
    inputs: Any = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    protocol: str | Protocol = "quick",
    *,
    kwargs: dict[str, Any] | None = None,
    baseline: nn.Module | None = None,
    name: str | None = None,
    device: str | torch.device = "cpu",
    batch: int | None = None,
    threads: int | None = None,
    workload: str = "forward",
    shape: Mapping[str, Any] | None = None,
    backend: str = "eager",
    progress: bool | None = None,
) -> Results:
    """What was asked of any module: a table of one row per metric and part, which reads in a notebook.

    Its columns are the metric, the value with the ends of its interval, the unit, the provenance and a note. `long` is
    the whole tidy table (columns `bench.reading.COLUMNS`), and `attrs["flags"]` what a reader of the numbers has to
    know, as flags of the records (docs/counting.md).

    Counted metrics (`params`, `macs` and their sections) are taken in this process. Everything timed is taken by the
    protocol, in fresh processes that get the module by cloudpickle; a script needs no `if __name__` guard.

    Args:
        module: any `torch.nn.Module`; it is measured in evaluation mode and left as it was. The rows' `dtype` is that
            of its first floating parameter.
        inputs: a tensor, a tuple of positional inputs, or a mapping of keyword inputs, in the types that the module
            takes: they are moved to the device and never cast.
        metrics: sections (`macs`, `latency`, ...) or single metrics (`peak_memory_bytes`). `macs` is in the matmul
            convention and per sample; other conventions are rows of their own.
        protocol: `glance` (one process, seconds, no interval), `quick`, `standard`, `publish`, or a
            `bench.config.protocol.Protocol`.
        kwargs: keyword inputs beside positional ones.
        baseline: a module for the same inputs, timed interleaved; then the row `speedup` compares the two.
        name: what the rows call the module; default its class.
        device: where to run.
        batch: samples per forward; by default the first dimension that the inputs have in common, or what the layer
            that takes them says (a sample without a batch dimension, the time first).
        threads: of the timed processes; default one on a small host, else the physical cores.
        workload: what one run is: `forward`, `generate`, `sample`, ... (docs/workloads.md says what each needs of the
            module, and which make their own inputs, so that `inputs` may be `None`).
        shape: the workload's axes by name, such as `{"context": 512, "new_tokens": 32}`; what is left out has its
            default.
        backend: `eager`, `compile`, `onnxruntime`, ... (docs/backends.md).
        progress: whether a bar is drawn; by default on a terminal and in a notebook.

    Raises:
        UsageError: an unknown metric, protocol, workload, axis or device, inputs whose number of samples is not clear,
            or something that is no module or cannot be handed to another process.
        BenchError: the module failed, with the phase and the message.
    """
    from bench.api.results import Results
    from bench.meters import handed_over

    wanted = wanted_metrics(metrics)
    asked_protocol = protocol_named(protocol)
    sections = frozenset(METRICS[metric].section for metric in wanted)
    threads = checked_threads(threads)
    for one in (module,) if baseline is None else (module, baseline):
        handed_over.check_module(one)
    module, subject = given_subject(
        module, name, inputs, kwargs, batch, workload, shape or {}, backend, checked_device(device)
    )
    if sections and sections <= COUNTED and baseline is None and subject.is_plain:
        return Results.of(_frame([_counted_record(module, subject, sections & COUNTED)], wanted))
    asked = Asked(sections, asked_protocol, threads, progress)
    return Results.of(_frame(measured_records(module, baseline, subject, asked), wanted))


def protocol_named(protocol: str | Protocol) -> Protocol:
    """A protocol by the name of its file in `conf/protocol`, as `quick` or `v2/quick`; an object is given back.

    Raises:
        UsageError: there is no such protocol.
    """
    from bench.config.protocol import Protocol
    from bench.config.protocol_files import protocol_values

    if isinstance(protocol, Protocol):
        return protocol
    return Protocol(**protocol_values(protocol))


def wanted_metrics(metrics: Iterable[str]) -> list[str]:
    """The metrics that were asked for, by name."""
    names: list[str] = []
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        if metric in GROUPS:
            names += [name for name, row in METRICS.items() if row.section == GROUPS[metric]]
        elif metric in METRICS:
            names.append(metric)
        else:
            if metric.lower().rstrip("s") == "flop":
                raise UsageError("FLOPs are 2 x MACs here: ask for metrics=['macs'] and double it")
            raise UsageError(f'metric "{metric}" does not exist; {did_you_mean(metric, [*GROUPS, *METRICS])}')
    return list(dict.fromkeys(names))


def _frame(records: list[dict[str, Any]], wanted: Sequence[str]) -> pandas.DataFrame:
    """The rows of the metrics asked for, in that order; `attrs["flags"]` is what a reader has to know of them."""
    from bench.analysis import table

    frame = table.from_records(records)
    order = {metric: place for place, metric in enumerate(wanted)}
    kept = frame[frame["metric"].isin(wanted)]
    kept = kept.sort_values("metric", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)
    kept.attrs["flags"] = [{**flag, "model": record["case"]["model"]} for record in records for flag in record["flags"]]
    return kept


def _counted_record(module: nn.Module, given: Given, sections: frozenset[str]) -> dict[str, Any]:
    """A record of counts alone, taken in this process."""
    import torch

    from bench.analysis import assemble
    from bench.config.protocol import Protocol
    from bench.host.code import code_version
    from bench.host.environment import environment
    from bench.host.identity import machine_key
    from bench.meters import handed_over, macs, params
    from bench.moment import utc_second

    (args, kwargs), samples, device = given.call, given.samples, given.device
    started, readings, details = utc_second(), [], {}
    flags: list[dict[str, Any]] = []
    with (
        handed_over.evaluating(module),
        torch.no_grad(),
        handed_over.user_errors(given.name, [*args, *kwargs.values()]),
    ):
        if "size" in sections:
            size = params.measure(module)
            readings += size.readings()
            details["params"] = size.as_dict()
            flags += size.flags
        if "compute" in sections:
            macs.self_test()
            found = macs.count(module, args, kwargs)
            samples = found.batch if found.batch is not None and samples.source != "given" else samples
            readings += [replace(item, part=given.workload) for item in macs.readings(found, samples.size)]
            details["macs"] = {**found.as_dict(), "batch_source": samples.source}
            flags += found.flags
    case = given.case(model=given.name, dtype=dtype_of(module), batch=samples.size)
    found_here = environment(device)
    context = assemble.Context(Protocol(), found_here, machine_key(found_here), {}, code_version())
    rows = [reading.as_dict() for reading in readings]
    probe = {"started_at": started, "readings": rows, "details": details, "flags": flags, "weights": {"kind": "given"}}
    return assemble.finished(case, context, probe, None, utc_second())
