"""The instrument as a library: build a subject, measure any module, see its layers, load results.

Torch is imported by the functions that need it, so that `import bench` stays quick.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import backends, workloads
from bench.canonical import BASELINE_METHOD, settings_text
from bench.errors import BenchError, UsageError, did_you_mean
from bench.meters.table import METERS
from bench.metrics import METRICS
from bench.plan.case import Case

if TYPE_CHECKING:
    import pandas
    import torch
    from torch import nn

    from bench.config.protocol import Protocol
    from bench.meters.inputs import Batch

#: Names for whole sections of metrics, as `measure` takes them.
GROUPS = {
    "params": "size",
    "macs": "compute",
    "latency": "latency",
    "throughput": "throughput",
    "memory": "memory",
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


def build(
    model: str,
    method: str = BASELINE_METHOD,
    *,
    resolution: int | None = None,
    batch: int = 1,
    device: str = "cpu",
    dtype: str = "fp32",
    seed: int = 0,
    checkpoint: str | Path | None = None,
    task: str | None = None,
    cache: str | Path = "cache",
    **settings: Any,
) -> tuple[nn.Module, Any]:
    """A module in evaluation mode and its example inputs: positional ones, or keyword ones where it takes no others.

    `module(*inputs)` (or `module(**inputs)`) runs one forward.

    Args:
        model: a catalogue name, `timm:NAME`, or `package.module:Callable`.
        method: a catalogue name or dotted path; `none` is the model as it is.
        resolution: pixels of the square image; None takes the model's own.
        batch: images per forward.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `fp32`, `tf32`, `bf16`, `fp16` or `fp64`.
        seed: of the random weights and inputs.
        checkpoint: a weights file for the model.
        task: load the weights that the model was trained to for this task (training them now if need be).
        cache: where trained weights are kept.
        settings: of the model and the method, by name: `build("deit_small", "tome", r=13)`.

    Raises:
        UsageError: an unknown name, a setting that neither takes, or a value out of range.
    """
    from bench.config import catalogue as catalogues
    from bench.config.paths import extend_import_path
    from bench.plan.plan import default_resolution
    from bench.plan.recipe import Recipe
    from bench.worker import subject

    extend_import_path()
    device = _checked_device(device)
    batch = _checked_axes(dtype, batch, resolution, seed)
    catalogue = catalogues.load()
    model_entry = catalogue.model(model)
    method_entry = None if method == BASELINE_METHOD else catalogue.method(method)
    of_model, of_method = _split_settings(model_entry, method_entry, settings)
    resolution = resolution if resolution is not None else default_resolution(model_entry, of_model)
    weights = Path(checkpoint) if checkpoint is not None else None
    if weights is not None and not weights.is_file():
        raise UsageError(f"checkpoint: there is no file {weights}")
    case = Case(
        suite="build",
        model=model,
        method=method,
        model_settings=settings_text(of_model),
        setting=settings_text(of_method),
        device=device,
        dtype=dtype,
        batch=batch,
        resolution=resolution,
        seed=seed,
        task=task or "none",
    )
    task_entry = catalogue.task(task) if task else None
    recipe = Recipe(
        case,
        model_entry.path,
        {**model_entry.settings, **of_model},
        method_entry.path if method_entry else None,
        {**(method_entry.settings if method_entry else {}), **of_method},
        task_entry.path if task_entry else None,
        task_entry.settings if task_entry else {},
        str(weights) if weights else None,
        str(cache),
    )
    if task is not None:
        subject.make_task(recipe).prepare(model, lambda: subject.build_model(recipe)[0])
    made = subject.build(recipe)
    return made.module, made.kwargs or made.args


def _split_settings(model: Any, method: Any, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each setting to the model or the method, whichever takes it; checked."""
    from bench.config.catalogue import check_method, check_model
    from bench.config.signatures import signature

    of_method = signature(method.path).settings if method else {}
    of_model = signature(model.path).settings
    both = [name for name in settings if name in of_method and name in of_model]
    if both:
        raise UsageError(f'the setting "{both[0]}" is taken by model "{model.name}" and method "{method.name}" alike')
    known = [*of_method, *of_model]
    open_ended = signature(model.path).open or (method is not None and signature(method.path).open)
    for name in settings:
        if name not in known and not open_ended:
            raise UsageError(
                f'neither model "{model.name}" nor method "{getattr(method, "name", "none")}" has the '
                f'setting "{name}"; {did_you_mean(name, known)}'
            )
    for_method = {name: value for name, value in settings.items() if name in of_method}
    for_model = {name: value for name, value in settings.items() if name not in of_method}
    check_model(model, for_model)
    if method is not None:
        check_method(method, for_method)
    return for_model, for_method


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
            raise UsageError(f'metric "{metric}" does not exist; {did_you_mean(metric, [*GROUPS, *METRICS])}')
    return list(dict.fromkeys(names))


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
    threads = _checked_threads(threads)
    for one in (module,) if baseline is None else (module, baseline):
        handed_over.check_module(one)
    module, subject = _given(
        module, name, inputs, kwargs, batch, workload, shape or {}, backend, _checked_device(device)
    )
    if sections & COUNTED and sections <= COUNTED and baseline is None and (workload, backend) == ("forward", "eager"):
        return _frame([_counted_record(module, subject, sections & COUNTED)], wanted)
    return _frame(_measured_records(module, baseline, subject, wanted, protocol_named(protocol), threads), wanted)


def _given(
    module: nn.Module,
    name: str | None,
    inputs: Any,
    kwargs: dict[str, Any] | None,
    batch: int | None,
    workload: str,
    shape: Mapping[str, Any],
    backend: str,
    device: str,
) -> tuple[nn.Module, Given]:
    """The module, its lazy parameters made, and the subject that it is with its inputs and conditions."""
    from bench.meters import handed_over
    from bench.meters.inputs import as_call, batch_for

    args, keywords = as_call(inputs, kwargs)
    given = dict(shape)
    asked = batch if batch is not None else given.pop("batch", None)
    samples = batch_for(module, args, keywords, asked)
    whole = workloads.find(workload).shape({**given, "batch": samples.size})
    if args or keywords:
        module = handed_over.initialised(module, args, keywords)
    return module, Given(_name(module, name), (args, keywords), workload, whole, backend, device, samples)


def _frame(records: list[dict[str, Any]], wanted: Sequence[str]) -> pandas.DataFrame:
    """The rows of the metrics asked for, in that order; `attrs["flags"]` is what a reader has to know of them."""
    from bench.analysis import table

    frame = table.from_records(records)
    order = {metric: place for place, metric in enumerate(wanted)}
    kept = frame[frame["metric"].isin(wanted)]
    kept = kept.sort_values("metric", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)
    kept.attrs["flags"] = [{**flag, "model": record["case"]["model"]} for record in records for flag in record["flags"]]
    return kept


@dataclass(frozen=True)
class Given:
    """A module of the caller's as a subject: its name, its inputs and the conditions it is measured under."""

    name: str
    call: tuple[tuple[Any, ...], dict[str, Any]]
    workload: str
    shape: dict[str, Any]
    backend: str
    device: str
    samples: Batch

    def case(self, **further: Any) -> Case:
        """The case of these conditions."""
        axes = {name: value for name, value in self.shape.items() if name not in ("batch", "resolution")}
        return Case(
            suite="measure",
            device=self.device,
            workload=self.workload,
            shape=settings_text(axes),
            backend=self.backend,
            compile="default" if self.backend == backends.COMPILE else "off",
            **{"batch": self.shape["batch"], **further},
        )


def _checked_axes(dtype: str, batch: Any, resolution: int | None, seed: Any) -> int:
    """The batch as a plain number.

    Raises:
        UsageError: a dtype that does not exist, a batch or resolution below 1, or a seed that is none.
    """
    from bench.config.schema import DTYPES
    from bench.meters.inputs import checked_batch

    if dtype not in DTYPES:
        raise UsageError(f'dtype "{dtype}" does not exist; {did_you_mean(str(dtype).replace("float", "fp"), DTYPES)}')
    if resolution is not None and (not hasattr(resolution, "__index__") or resolution.__index__() < 1):
        raise UsageError(
            f"resolution={resolution!r} is not valid: it is a number of pixels, or None for the model's own"
        )
    if not hasattr(seed, "__index__") or not 0 <= seed.__index__() < 2**31:
        raise UsageError(f"seed={seed!r} is not valid: it is a whole number from 0 to {2**31 - 1}")
    return checked_batch(batch)


def _checked_device(device: Any) -> str:
    """The device's name, for a `torch.device` as well.

    Raises:
        UsageError: there is no such device here.
    """
    from bench.plan.plan import check_device

    name = str(device)
    check_device(name)
    return name


def _checked_threads(threads: Any) -> int | None:
    if threads is None:
        return None
    if not hasattr(threads, "__index__") or isinstance(threads, bool) or threads.__index__() < 1:
        raise UsageError(f"threads={threads!r} is not valid: it is 1 or more, or None for the machine's own number")
    return int(threads.__index__())


def _name(module: nn.Module, name: str | None) -> str:
    return name or type(module).__name__


def _dtype(module: nn.Module) -> str:
    """The suite's name of the type that a module computes in: that of its first floating parameter, else `fp32`."""
    from bench.analysis.roofline import dtype_name

    return next((dtype_name(str(p.dtype)) for p in module.parameters() if p.is_floating_point()), "fp32")


def _counted_record(module: nn.Module, given: Given, sections: set[str]) -> dict[str, Any]:
    """A record of counts alone, taken in this process."""
    import torch

    from bench.analysis import assemble
    from bench.config.protocol import Protocol
    from bench.host.code import code_version
    from bench.host.environment import environment
    from bench.host.identity import machine_key
    from bench.meters import handed_over, macs, params
    from bench.sweep.writing import utc_now

    (args, kwargs), samples, device = given.call, given.samples, given.device
    started, readings, details = utc_now(), [], {}
    flags: list[dict[str, Any]] = []
    with handed_over.evaluating(module), torch.no_grad(), handed_over.user_errors(given.name):
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
    case = given.case(model=given.name, dtype=_dtype(module), batch=samples.size)
    found_here = environment(device)
    context = assemble.Context(Protocol(), found_here, machine_key(found_here), {}, code_version())
    rows = [reading.as_dict() for reading in readings]
    probe = {"started_at": started, "readings": rows, "details": details, "flags": flags, "weights": {"kind": "given"}}
    return assemble.finished(case, context, probe, None, utc_now())


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


def _measured_records(
    module: nn.Module,
    baseline: nn.Module | None,
    given: Given,
    wanted: Sequence[str],
    protocol: Protocol,
    threads: int | None,
) -> list[dict[str, Any]]:
    """Records of fresh processes; the module's own comes first."""
    from bench.config.catalogue import Entry
    from bench.config.schema import validate
    from bench.plan.plan import Group, Plan
    from bench.plan.plan import threads as default_threads
    from bench.plan.recipe import Recipe
    from bench.sweep.loop import Driver

    sections = {METRICS[metric].section for metric in wanted}
    with tempfile.TemporaryDirectory(prefix="bench-measure-") as scratch:
        folder = Path(scratch)
        config = validate(
            {
                "suite": {"name": "measure", "grids": {"default": [{"models": ["given"], "methods": ["none"]}]}},
                "protocol": protocol.model_dump(),
                "device": {"name": given.device, "threads": threads or "auto"},
                "tracking": {"enabled": False},
                "paths": {"results": str(folder / "results")},
            }
        )
        modules = {"none": module} if baseline is None else {"none": baseline, given.name: module}
        cases, pickles = {}, {}
        for method, item in modules.items():
            path = _pickle(item, given.call, folder, hashlib.sha256(method.encode()).hexdigest()[:8])
            case = given.case(
                model=given.name if baseline is None else _name(baseline, None),
                method=method,
                dtype=_dtype(item),
                threads=default_threads(config),
                protocol=protocol.hash,
                subject_digest="given"
                if method == "none"
                else f"given+{hashlib.sha256(path.read_bytes()).hexdigest()}",
            )
            cases[method], pickles[case.key] = case, path
        first = next(iter(cases.values()))
        plan = Plan(config.suite, (Group(tuple(cases.values())),), {first.model: Entry(first.model, "")}, {}, None)
        driver = Driver(
            config,
            plan,
            recipes=lambda case: Recipe(case, pickle=str(pickles[case.key])),
            meters=_meters(sections),
            calibrated=False,
            timed=bool(sections - set(METER_OF)),
        )
        records = driver.run({}).records
    for record in records:
        if record["status"] not in ("ok", "contaminated") and record["error"]:
            error = record["error"]
            raise BenchError(
                f"{record['case']['model']} {record['status']} in the phase {error['phase']}: "
                f"{error['type']}: {error['message']}"
            )
    own = cases[given.name if baseline is not None else "none"].key
    return sorted(records, key=lambda record: record["case_key"] != own)


def _meters(sections: set[str]) -> tuple[str, ...]:
    """The meters whose metrics are wanted; what no meter and no clock gives is the workload's own."""
    meters = [METER_OF[section] for section in METER_OF if section in sections]
    return tuple([*meters, "facts"] if sections - set(METER_OF) - TIMED else meters)


def layers(
    module: nn.Module,
    inputs: Any = None,
    *,
    kwargs: dict[str, Any] | None = None,
    repeats: int = 10,
    workload: str = "forward",
    shape: Mapping[str, Any] | None = None,
    part: str | None = None,
) -> pandas.DataFrame:
    """The per-layer table of one run: MACs, bytes read and written, intensity, time with interval, share.

    Taken in this process; the frame's `attrs["info"]` has the end-to-end time and the part that no layer explains.

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
    import pandas

    from bench.meters import handed_over
    from bench.meters import layers as meter
    from bench.meters.inputs import as_call, batch_for
    from bench.meters.state import state_kept
    from bench.worker import parts as made
    from bench.worker.subject import Subject

    handed_over.check_module(module)
    args, keywords = as_call(inputs, kwargs)
    asked = (shape or {}).get("batch")
    samples = batch_for(module, args, keywords, asked)
    whole = workloads.find(workload).shape({**(shape or {}), "batch": samples.size})
    given = Given(_name(module, None), (args, keywords), workload, whole, "eager", "cpu", samples)
    with handed_over.evaluating(module), handed_over.user_errors(type(module).__name__), made.running(workload):
        subject = Subject(given.case(model=given.name), module, args, keywords, {})
        chosen = _part(made.parts_of(subject), part)
        with state_kept(module, args, keywords), made.as_forward(subject, chosen) as call:
            found = meter.table(*call, repeats=repeats)
    frame = pandas.DataFrame(found.rows, columns=None if found.rows else list(meter.COLUMNS))
    frame.attrs["info"] = found.info
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
