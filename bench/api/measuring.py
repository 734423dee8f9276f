"""Any module measured like a case of a sweep, as `bench.measure` does it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.given import Given, checked_device, checked_threads, dtype_of, given_subject, name_of
from bench.errors import BenchError, DoesNotFit, UsageError, did_you_mean
from bench.meters.table import METERS
from bench.metrics import METRICS

if TYPE_CHECKING:
    import pandas
    import torch
    from torch import nn

    from bench.config.protocol import Protocol
    from bench.config.schema import Config
    from bench.plan.case import Case

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
#: Sections that come from timed processes.
TIMED = {"latency", "throughput"}
#: Section -> the meter that gives it; a score needs a task, which a module that was handed over has not.
METER_OF = {meter.section: meter.name for meter in METERS if meter.section not in ("", "quality")}
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
) -> pandas.DataFrame:
    """The tidy table (columns `bench.reading.COLUMNS`) of any module, one row per metric and part of the workload.

    `attrs["flags"]` holds what a reader of the numbers has to know, as flags of the records (docs/counting.md).

    Counted metrics (`params`, `macs` and their sections) are taken in this process. Everything timed is taken by the
    protocol, in fresh processes that get the module by cloudpickle; a script needs no `if __name__` guard.

    Args:
        module: any `torch.nn.Module`; it is measured in evaluation mode and left as it was. The rows' `dtype` is that
            of its first floating parameter.
        inputs: a tensor, a tuple of positional inputs, or a mapping of keyword inputs, in the types that the module
            takes: they are moved to the device and never cast.
        metrics: sections (`macs`, `latency`, ...) or single metrics (`peak_memory_bytes`). `macs` is in the matmul
            convention and per sample; other conventions are rows of their own.
        protocol: `quick`, `standard`, `publish`, or a `bench.config.protocol.Protocol`.
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

    Raises:
        UsageError: an unknown metric, protocol, workload, axis or device, inputs whose number of samples is not clear,
            or something that is no module or cannot be handed to another process.
        BenchError: the module failed, with the phase and the message.
    """
    from bench.meters import handed_over

    wanted = _wanted(metrics)
    sections = {METRICS[metric].section for metric in wanted}
    threads = checked_threads(threads)
    for one in (module,) if baseline is None else (module, baseline):
        handed_over.check_module(one)
    module, subject = given_subject(
        module, name, inputs, kwargs, batch, workload, shape or {}, backend, checked_device(device)
    )
    if sections and sections <= COUNTED and baseline is None and subject.is_plain:
        return _frame([_counted_record(module, subject, sections & COUNTED)], wanted)
    return _frame(_measured_records(module, baseline, subject, wanted, protocol_named(protocol), threads), wanted)


def protocol_named(protocol: str | Protocol) -> Protocol:
    """A protocol by the name of its file in `conf/protocol`; an object is given back as it is.

    Raises:
        UsageError: there is no such protocol.
    """
    from bench.config.paths import config_folder
    from bench.config.protocol import Protocol
    from bench.config.yaml_file import read_yaml

    if isinstance(protocol, Protocol):
        return protocol
    folder = config_folder() / "protocol"
    names = [path.stem for path in folder.glob("*.yaml")]
    if protocol not in names:
        raise UsageError(f'protocol "{protocol}" does not exist; {did_you_mean(protocol, names)}')
    values = read_yaml(folder / f"{protocol}.yaml")
    values.pop("defaults", None)  # what a file leaves out has the standard protocol's value, as in the model
    return Protocol(**values)


def _wanted(metrics: Iterable[str]) -> list[str]:
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


def _counted_record(module: nn.Module, given: Given, sections: set[str]) -> dict[str, Any]:
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


def _measured_records(
    module: nn.Module,
    baseline: nn.Module | None,
    given: Given,
    wanted: Sequence[str],
    protocol: Protocol,
    threads: int | None,
) -> list[dict[str, Any]]:
    """Records of fresh processes; the module's own comes first."""
    from bench.plan.plan import threads as default_threads

    sections = {METRICS[metric].section for metric in wanted}
    modules = {"none": module} if baseline is None else {"none": baseline, given.name: module}
    own = "none" if baseline is None else given.name
    with tempfile.TemporaryDirectory(prefix="bench-measure-") as scratch:
        config = _configuration(given, protocol, threads, Path(scratch))
        cases: dict[str, Case] = {}
        pickles: dict[str, Path] = {}
        for method, item in modules.items():
            path = _pickle(item, given.call, Path(scratch), hashlib.sha256(method.encode()).hexdigest()[:8])
            source = "given" if method == "none" else f"given+{hashlib.sha256(path.read_bytes()).hexdigest()}"
            cases[method] = given.case(
                model=given.name if baseline is None else name_of(baseline, None),
                method=method,
                dtype=dtype_of(item),
                threads=default_threads(config),
                protocol=protocol.hash,
                subject_digest=source,
            )
            pickles[cases[method].key] = path
        records = _swept(config, cases, pickles, sections)
    for record in records:
        _check_measured(record)
    return sorted(records, key=lambda record: record["case_key"] != cases[own].key)


def _configuration(given: Given, protocol: Protocol, threads: int | None, folder: Path) -> Config:
    """The configuration of a sweep of one group, whose results are gone afterwards."""
    from bench.config.schema import validate

    return validate(
        {
            "suite": {"name": "measure", "grids": {"default": [{"models": ["given"], "methods": ["none"]}]}},
            "protocol": protocol.model_dump(),
            "device": {"name": given.device, "threads": threads or "auto"},
            "tracking": {"enabled": False},
            "paths": {"results": str(folder / "results")},
        }
    )


def _swept(
    config: Config, cases: Mapping[str, Case], pickles: Mapping[str, Path], sections: set[str]
) -> list[dict[str, Any]]:
    """The records of these cases, timed together; `pickles` hold their modules by case key."""
    from bench.config.catalogue import Entry
    from bench.plan.plan import Group, Plan
    from bench.plan.recipe import Recipe
    from bench.sweep.loop import Driver

    first = next(iter(cases.values()))
    plan = Plan(config.suite, (Group(tuple(cases.values())),), {first.model: Entry(first.model, "")}, {}, {})
    driver = Driver(
        config,
        plan,
        recipes=lambda case: Recipe(case, pickle=str(pickles[case.key])),
        meters=_meters(sections),
        calibrated=False,
        timed=bool(sections - set(METER_OF)),
    )
    return driver.run({}).records


def _check_measured(record: dict[str, Any]) -> None:
    """Raise BenchError for a record of a failure, with its phase and message; DoesNotFit where memory ran out."""
    error = record["error"]
    if record["status"] not in ("ok", "contaminated") and error:
        kind = DoesNotFit if record["status"] == "oom" else BenchError
        raise kind(
            f"{record['case']['model']} {record['status']} in the phase {error['phase']}: "
            f"{error['type']}: {error['message']}"
        )


def _pickle(module: nn.Module, call: Any, folder: Path, name: str) -> Path:
    from bench.meters import handed_over

    path = folder / f"{name}.pickle"
    try:
        handed_over.write(path, module, call[0], call[1])
    except Exception as error:
        raise UsageError(
            f"{type(module).__name__} cannot be handed to a fresh process ({error}); measure it through a builder: "
            "`python -m bench model=package.module:Callable`"
        ) from error
    return path


def _meters(sections: set[str]) -> tuple[str, ...]:
    """The meters whose metrics are wanted; what no meter and no clock gives is the workload's own."""
    meters = [METER_OF[section] for section in METER_OF if section in sections]
    return tuple([*meters, "facts"] if sections - set(METER_OF) - TIMED else meters)
