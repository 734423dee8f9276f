"""Peak memory of one forward, from three sides: live tensors, the allocator, and the process as its host sees it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from bench.errors import BenchError
from bench.flags import flag
from bench.host.visible_gpus import locate, nvml
from bench.meters import layer_memory, live
from bench.meters.allocator import pin_allocator_for_memory, pin_allocator_for_timing, pinned
from bench.meters.count_flags import eager_module
from bench.meters.inventory import WEIGHTS, Inventory, held_bytes, inventory
from bench.meters.live import Category
from bench.meters.reach import tensors_in
from bench.meters.resident import ResidentPeak, resident_peak
from bench.meters.stored import leaves
from bench.meters.threads import unseen_operators
from bench.reading import Provenance, Reading, reading, unavailable
from bench.workloads.counting import PartCall

__all__ = [
    "ForwardError",
    "MemoryPeaks",
    "ResidentPeak",
    "activation_peak_meta",
    "measure",
    "pin_allocator_for_memory",
    "pin_allocator_for_timing",
    "resident_peak",
]

Attention = Literal["fused", "explicit"]

#: From this share of the live tensors on, buffers inside kernels are worth a flag.
KERNEL_BUFFERS = 0.1
#: Why a case that replays a CUDA graph has no allocated peak.
INSIDE_A_GRAPH = (
    "activations live in the captured graph's own memory, which counts as reserved and not as allocated when it "
    "replays; see peak_reserved_bytes"
)


class ForwardError(BenchError):
    """The forward cannot run where its memory was to be followed; the message says at what and what to do."""


@dataclass(frozen=True)
class MemoryPeaks:
    """Peaks of one forward in bytes; what was not taken is None and `notes` says why, by metric.

    Attributes:
        peak_bytes: largest sum of live tensor bytes; `split` is what it was made of: weights, buffers, inputs,
            activations (they leave the module that made them, or a forward saved them) and temporaries (they do not);
            of a training step also gradients and optimizer state.
        peak_activation_bytes: largest sum of those that are neither weights nor buffers, gradients or optimizer state.
        peak_at: the operator that reached the peak and the module it ran in.
        allocator_bytes: CPU: what torch's allocator held at most, libraries' buffers included, on top of what was
            alive before; CUDA: the caching allocator's peak of allocated bytes.
        reserved_bytes: CUDA: what the caching allocator had from the driver at most.
        resident_bytes: CPU: largest resident size of the process; CUDA: the driver's view of the process.
        resident_before_bytes: the same before the forward: the interpreter, torch and the weights.
        operators: number of operators of the forward.
        unseen: operators that ran in threads which cannot be followed.
        layers: who holds the live bytes, layer by layer (`bench.meters.layer_memory`).
        course: the live bytes over the operators of the run.
    """

    device: str
    peak_bytes: int
    split: dict[Category, int]
    peak_activation_bytes: int
    peak_at: tuple[str, str] | None
    operators: int
    provenance: Provenance
    method_note: str
    allocator_bytes: int | None = None
    reserved_bytes: int | None = None
    resident_bytes: int | None = None
    resident_before_bytes: int | None = None
    resident_how: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    layers: tuple[layer_memory.LayerBytes, ...] = ()
    course: layer_memory.Course | None = None

    def readings(self) -> list[Reading]:
        """The memory metrics; what is missing is unavailable with its reason."""
        views: list[tuple[str, int | None, str]] = [
            ("peak_allocator_bytes", self.allocator_bytes, ""),
            ("peak_reserved_bytes", self.reserved_bytes, ""),
            ("peak_resident_bytes", self.resident_bytes, self.resident_how),
        ]
        live_tensors = [
            reading(metric, value, self.provenance, statistic="peak of live tensor bytes", method_note=self.method_note)
            for metric, value in (
                ("peak_memory_bytes", self.peak_bytes),
                ("peak_activation_bytes", self.peak_activation_bytes),
            )
        ]
        return live_tensors + [
            unavailable(metric, self.notes.get(metric, "not taken"))
            if value is None
            else reading(metric, value, "measured", method_note=note)
            for metric, value, note in views
        ]

    @property
    def flags(self) -> list[dict[str, str]]:
        """What the live tensors do not show, as flags of a record."""
        found = []
        if self.unseen:
            text = (
                "threads that were running before the forward execute operators during it "
                f"({', '.join(self.unseen[:5])}): what they allocate is not in the live tensors' peak"
            )
            found.append(flag("other_threads", "warn", text))
        inside = (self.allocator_bytes or 0) - self.peak_bytes
        if inside <= KERNEL_BUFFERS * self.peak_bytes:
            return found
        text = (
            f"kernels hold up to {inside} bytes inside that are no tensors: {100 * inside / self.peak_bytes:.0f} % more"
        )
        return [*found, flag("kernel_buffers", "info", text)]

    def as_dict(self) -> dict[str, Any]:
        """The peaks as plain JSON types."""
        return {**asdict(self), "flags": self.flags}


def measure(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    step: Callable[[], Any] | None = None,
    captured: bool = False,
    reset: Callable[[], None] | None = None,
) -> MemoryPeaks:
    """The peaks of one forward that is not the first; takes up to five forwards, one of them under the profiler.

    A compiled module is followed as the eager module that it wraps. The resident peak is taken only where the process
    is pinned for memory.

    Args:
        module: in evaluation mode, on the device of its inputs.
        args: positional inputs.
        kwargs: keyword inputs.
        step: what runs the forward as it is timed, for the views from outside; by default a call of the module.
        captured: whether that replays a CUDA graph: running the module beside it would count activations twice.
        reset: puts back what a forward changes of the module and the inputs.
    """
    kwargs = kwargs or {}
    run = step or (lambda: module(*args, **kwargs))
    eager = eager_module(module)
    note = "" if eager is module else "of the eager graph; a compiled one allocates inside its kernels"
    ready = partial(_renew, eager)
    with torch.no_grad():
        peaks = live_peaks(eager, args, kwargs, "measured", note, reset)
        device = torch.device(peaks.device)
        if device.type == "cuda":
            return with_cuda_views(peaks, run, captured, ready)
        return _with_host_views(peaks, run, ready)


def _own(module: nn.Module) -> nn.Module:
    """The network whose weights a module holds: a part's call reaches its cache or state as well, which are inputs."""
    subject = module._subject if isinstance(module, PartCall) else module
    return subject if isinstance(subject, nn.Module) else module


def _renew(module: nn.Module) -> None:
    """Reset and prepare what a part of a workload changes before its memory is watched; no-op for a module."""
    if isinstance(module, PartCall):
        module.renew()


def outside_torch(run: Callable[[], Any], runtime: str, device: str = "cpu") -> tuple[list[Reading], dict[str, Any]]:
    """The memory metrics of a forward in another runtime, and details: only the process's view is to be had.

    Torch's tensors and allocator see its inputs and outputs alone, which would be a number of something else.

    Args:
        run: one forward that is not the first.
        runtime: its name, for the reasons.
        device: where it runs.
    """
    why = f"weights and activations live inside {runtime}, where torch sees no tensor; see peak_resident_bytes"
    missing = ("peak_memory_bytes", "peak_activation_bytes", "peak_allocator_bytes", "peak_reserved_bytes")
    held = f"the process also holds torch and the eager network, from which {runtime}'s was made"
    found = [unavailable(metric, why) for metric in missing]
    if device == "cpu":
        resident, reason = _pinned_resident(run)
        value, how = (resident.peak_bytes, resident.how) if resident else (None, reason)
    else:
        run()
        torch.cuda.synchronize(device)
        value, how = driver_bytes(torch.device(device))
    if value is None:
        return [*found, unavailable("peak_resident_bytes", how)], {"runtime": runtime}
    note = f"{how}; {held}" if how else held
    return [*found, reading("peak_resident_bytes", value, "measured", method_note=note)], {"runtime": runtime}


def activation_peak_meta(
    module: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    attention: Attention = "fused",
) -> MemoryPeaks:
    """The peak of live tensor bytes without any memory: one forward of shapes on the meta device.

    Args:
        module: built under `torch.device("meta")`.
        inputs: positional inputs; tensors of any device, only their shapes are used.
        kwargs: keyword inputs, likewise.
        attention: `fused` allocates the output and one number per query and head, as fused kernels do; `explicit`
            the whole attention matrix.

    Raises:
        ForwardError: parameters are not on the meta device, or the forward needs values that are not there.
    """
    real = next((name for name, tensor in module.named_parameters() if not tensor.is_meta), None)
    if real is not None:
        raise ForwardError(f'{real} is not on the meta device; build the module under `torch.device("meta")`')
    args, named = tree_map(_to_meta, (tuple(inputs), dict(kwargs or {})))
    with torch.no_grad(), _FusedAttention() if attention == "fused" else nullcontext():
        try:
            return live_peaks(module, args, named, "counted", f"shapes on the meta device, {attention} attention")
        except (NotImplementedError, RuntimeError) as error:
            raise ForwardError(
                f"the forward needs more than shapes ({type(error).__name__}: {error}); measure it with real tensors"
            ) from error


def _to_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


class _FusedAttention(TorchFunctionMode):
    """Gives fused attention's allocations where torch would take the explicit path: on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, _, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        query.new_empty(query.shape[:-1], dtype=torch.float32)  # the kernel's log-sum-exp, freed at once
        return output


def live_peaks(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    provenance: Provenance,
    note: str,
    reset: Callable[[], None] | None = None,
) -> MemoryPeaks:
    """The peak of live tensor bytes of one run that is not the first, and who holds them; takes two or three runs.

    Args:
        module: an eager module, on the device of its inputs, in the mode in which it is to run.
        args: positional inputs.
        kwargs: keyword inputs.
        provenance: of the numbers: `measured` with real tensors, `counted` with shapes alone.
        note: goes with them.
        reset: puts back what a run changes of the module and the inputs.
    """
    put_back = reset or (lambda: None)
    live.record(module, args, kwargs, ())  # the first forward fills caches, torch's and the module's own
    put_back()
    if isinstance(module, PartCall):
        args = module.inputs()  # its state was put back, in other tensors
    found = inventory(_own(module))
    named = module.named if isinstance(module, PartCall) else dict
    before = module.found if isinstance(module, PartCall) else tuple
    resident, known = resident_by_category(found, (args, kwargs), named())
    trace = live.record(module, args, kwargs, known, found=before, named=named)
    put_back()
    peak = trace.peak(resident)
    return MemoryPeaks(
        device=_device(found, (args, kwargs)),
        peak_bytes=peak.total,
        split=peak.split,
        peak_activation_bytes=peak.passing,
        peak_at=None if peak.operator is None else trace.operators[peak.operator],
        operators=len(trace.operators),
        provenance=provenance,
        method_note=note,
        unseen=tuple(unseen_operators(lambda: module(*args, **kwargs))) if trace.other_threads else (),
        layers=layer_memory.by_layer(trace, resident),
        course=layer_memory.course(trace, resident),
    )


def resident_by_category(
    found: Inventory, inputs: Any, named: Mapping[Category, list[Tensor]] = MappingProxyType({})
) -> tuple[dict[Category, int], set[int]]:
    """Bytes by category of what is alive before the forward, and the addresses of its storages.

    Args:
        found: what the network holds.
        inputs: of the forward.
        named: those of them that are of another category.
    """
    known: dict[int, int] = {}
    sizes: dict[Category, int] = {}
    weights = [item.tensor for item in found.held if item.kind in WEIGHTS and item.kind != "packed"]
    others = [item.tensor for item in found.held if item.kind in ("buffer", "loose")]
    given = tensors_in(inputs)
    groups: list[tuple[Category, list[Tensor]]] = [("weights", weights), ("buffers", others), *named.items()]
    groups.append(("inputs", given))
    for category, tensors in groups:
        storages = {part.untyped_storage()._cdata: part.untyped_storage() for t in tensors for part in leaves(t)}
        fresh = {key: storage.nbytes() for key, storage in storages.items() if key not in known}
        known |= fresh
        sizes[category] = sum(fresh.values())
    sizes["weights"] += held_bytes(item for item in found.held if item.kind == "packed")
    return sizes, set(known)


def _device(found: Inventory, inputs: Any) -> str:
    tensors = [item.tensor for item in found.held] + tensors_in(inputs)
    return str(tensors[0].device) if tensors else "cpu"


def _with_host_views(peaks: MemoryPeaks, run: Callable[[], Any], ready: Callable[[], None]) -> MemoryPeaks:
    """The peaks with the allocator's and the process's view on a CPU."""
    notes = {"peak_reserved_bytes": "there is no caching allocator on a CPU"}
    before = peaks.split["weights"] + peaks.split["buffers"] + peaks.split["inputs"]
    ready()
    allocator = before + profiled_growth(run)
    ready()
    resident, why = _pinned_resident(run)
    if resident is None:
        notes["peak_resident_bytes"] = why
    return MemoryPeaks(
        **{
            **_fields(peaks),
            "allocator_bytes": allocator,
            "resident_bytes": resident.peak_bytes if resident else None,
            "resident_before_bytes": resident.before_bytes if resident else None,
            "resident_how": resident.how if resident else "",
            "notes": notes,
        }
    )


def _fields(peaks: MemoryPeaks) -> dict[str, Any]:
    return {name: getattr(peaks, name) for name in peaks.__dataclass_fields__}


def _pinned_resident(run: Callable[[], Any]) -> tuple[ResidentPeak | None, str]:
    state = pinned()
    if state is None or state.purpose != "memory":
        return None, "the allocator of this process is not pinned for memory; see pin_allocator_for_memory"
    if not state.in_force:
        return None, state.reason
    found = resident_peak(run)
    return found, "" if found else "this system does not tell resident sizes"


def profiled_growth(run: Callable[[], Any]) -> int:
    """The most bytes that torch's CPU allocator held during a run beyond what it held before."""
    # not torch.profiler, which imports torch's compiler when it starts: a second of every probe
    with torch.autograd.profiler.profile(use_cpu=True, profile_memory=True) as profile:
        run()
    session: Any = profile
    events = [event for event in session.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()) if _on_cpu(event)]
    return max(accumulate(sizes), default=0)


def _on_cpu(event: Any) -> bool:
    return event.device_type() == torch._C._autograd.DeviceType.CPU


def with_cuda_views(
    peaks: MemoryPeaks, run: Callable[[], Any], captured: bool, ready: Callable[[], None] = lambda: None
) -> MemoryPeaks:
    """The peaks with the caching allocator's and the driver's view on a CUDA device."""
    device = torch.device(peaks.device)
    ready()
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    driver, how = driver_bytes(device)
    notes = {} if driver is not None else {"peak_resident_bytes": how}
    notes |= {"peak_allocator_bytes": INSIDE_A_GRAPH} if captured else {}
    return MemoryPeaks(
        **{
            **_fields(peaks),
            "allocator_bytes": None if captured else torch.cuda.max_memory_allocated(device),
            "reserved_bytes": torch.cuda.max_memory_reserved(device),
            "resident_bytes": driver,
            "resident_how": how,
            "notes": notes,
        }
    )


def driver_bytes(device: torch.device) -> tuple[int | None, str]:
    """What the driver says that this process holds on the device, and how it was read; or None and the reason."""
    try:
        with nvml() as lib:
            gpu = locate(lib, f"cuda:{torch.cuda.current_device() if device.index is None else device.index}")
            processes = {p.pid: p.usedGpuMemory for p in lib.nvmlDeviceGetComputeRunningProcesses(gpu.own)}
    except Exception as error:  # NVML raises its own classes, and is absent from some builds
        return None, f"the driver does not answer: {error}"
    if processes.get(os.getpid()) is not None:
        return int(processes[os.getpid()]), "the driver's view of this process after the forward"
    if len(processes) == 1 and None not in processes.values():
        return int(next(iter(processes.values()))), "the driver's view of the only process on the device"
    return None, f"the driver lists {len(processes)} processes and none under this process's number"
