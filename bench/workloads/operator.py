"""`operator`: one call of a bare function on tensors, beside a slow reference.

The subject's module is one whose forward is the function. Its inputs are those of the subject, or

- `example_args(shape, seed) -> tuple`: `shape` the numbers of this workload, null where the operator's own hold. Inputs
  are seeded and never constant: zeros hide errors.

It may offer

- `reference(*args)`: the same function by other means, slower and surer (float64, loops), on the same arguments;
- `check_args(seed) -> tuple`: a smaller instance of the same inputs, on which function and reference are compared; else
  the arguments of the call are;
- `tolerance` (1e-5): the largest relative L2 distance from the reference that is still the same function;
- `required_bytes(*args) -> int`: memory that the call needs beside its arguments; where that much is not there the call
  is refused before it is made (`unsupported`);
- `declares(*args) -> dict`: quantities that follow from shapes in closed form or from one run: `workspace_elements`,
  `fourier_operations`, `pointwise_macs`, `iterations`, `saved_activation_bytes`, of the whole call; `kept_mean`,
  `kept_min` and `kept_max` of a selection that keeps only about so many;
- `form`: what really runs (backend, algorithm), for the record;
- `call_in_spans(span, *args)`: the same call where it is several functions, each inside `with span(name):`. The median
  time of each by name is kept for every process beside that of the whole (`timing.invocations[].spans`); counts are
  those of the plain forward.

State: arguments may be changed in place; every run gets its own, copied outside the clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.errors import UsageError, did_you_mean
from bench.flags import flag
from bench.reading import Reading, reading, unavailable
from bench.workloads.deriving import Value
from bench.workloads.workload import (
    BATCH,
    RESOLUTION,
    Built,
    Facts,
    Part,
    Shape,
    ShapeAxis,
    Spans,
    Workload,
    ask,
    clock_of,
    on_meta,
    require,
)

WORKLOAD = Workload(
    "operator",
    unit="call",
    parts=("call",),
    axes=(
        BATCH,
        RESOLUTION,
        ShapeAxis("length", None, unit="position", doc="positions of a sequence or rows of a matrix"),
        ShapeAxis("heads", None, unit="head", doc="heads or groups"),
        ShapeAxis("width", None, unit="feature", doc="features of a position, of a head where there are several"),
    ),
    title="one call of a bare function",
)

TOLERANCE = 1e-5
#: What an operator may declare of itself.
DECLARED = (
    "workspace_elements",
    "fourier_operations",
    "pointwise_macs",
    "iterations",
    "saved_activation_bytes",
    "kept_mean",
    "kept_min",
    "kept_max",
)


class _Call:
    """The function on arguments of its own each time."""

    def __init__(self, subject: Built, shape: Shape) -> None:
        require(subject.module, WORKLOAD.name, "forward")
        self.module, self.kwargs = subject.module, subject.kwargs
        self._args = arguments(subject, shape)
        self.args: tuple[Any, ...] = ()
        self.spans = Spans(subject.synchronise, clock_of(subject))

    @property
    def in_spans(self) -> bool:
        """Whether the function is several, each to be timed by itself."""
        return callable(getattr(self.module, "call_in_spans", None))

    def prepare(self) -> None:
        """Copies of the arguments."""
        from bench.tensors import copy_of

        self.spans.clear()
        self.args = copy_of(self._args, self.module)

    def plain(self) -> Any:
        """What the function gives."""
        return self.module(*self.args, **self.kwargs)

    def stamped(self) -> Any:
        """The same, each of its functions in a span."""
        return self.module.call_in_spans(self.spans.span, *self.args)

    def reset(self) -> None:
        """Let go of the arguments."""
        self.args = ()


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The call.

    Raises:
        NotImplementedError: the memory that it says it needs is not there.
    """
    call = _Call(subject, shape)
    refuse_without_memory(subject, arguments(subject, shape))
    plain = Part("call", call.plain, prepare=call.prepare, reset=call.reset, held=lambda: call.args)
    if not call.in_spans or subject.device == "meta":
        return [plain]
    return [replace(plain, call=call.stamped, counted=call.plain, spans=call.spans.read)]


def arguments(subject: Built, shape: Shape) -> tuple[Any, ...]:
    """The arguments of a call, on the subject's device."""
    own = ask(subject.module, "example_args", dict(shape), subject.seed)
    return subject.args if own is None else _placed(tuple(own), subject)


def refuse_without_memory(subject: Built, args: tuple[Any, ...]) -> None:
    """Raise NotImplementedError unless the memory that the call says it needs is free.

    Raises:
        NotImplementedError: which gives the row the status `unsupported`.
    """
    needed = ask(subject.module, "required_bytes", *args)
    if needed is None:
        return
    free = free_bytes(subject.device)
    if free is not None and needed > free:
        raise NotImplementedError(
            f"{type(subject.module).__name__} needs {needed} bytes beside its arguments, and {free} are free on "
            f"{subject.device}: take a smaller shape"
        )


def free_bytes(device: str) -> int | None:
    """Bytes that are free on the device; None where it has no memory (meta)."""
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    if device == "meta":
        return None
    import psutil

    return int(psutil.virtual_memory().available)


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Bytes in and out, agreement with the reference, and a flag that makes a wrong function's row invalid."""
    from bench.tensors import copy_of, ordinary_tensors, storages_of, tensors_in, weights_of

    module = subject.module
    with ordinary_tensors():
        args = copy_of(arguments(subject, shape), module)
        before = storages_of(tensors_in([args, subject.kwargs, weights_of(module)]))
        output = module(*args, **subject.kwargs)
        moved = before | storages_of(tensors_in(output))
        note = "storages of inputs, weights and outputs, each once"
        readings = [reading("io_bytes", sum(moved.values()), "counted", part="call", method_note=note)]
        agreement, flags = _agreement(subject, shape)
        told = declared(module, args)
    details = {"form": str(getattr(module, "form", "not told")), "tolerance": _tolerance(module)}
    return Facts([*readings, *told, *agreement], details=details, flags=flags)


def declared(module: Any, args: tuple[Any, ...]) -> list[Reading]:
    """What the operator says of itself, as readings; a text is the reason why a quantity is not there.

    Raises:
        UsageError: it declares what this workload does not know.
    """
    told = ask(module, "declares", *args) or {}
    for name in told:
        if name not in DECLARED:
            raise UsageError(f"{type(module).__name__}.declares: {name}; {did_you_mean(name, DECLARED)}")
    found = [_told(name, value) for name, value in told.items()]
    elements = told.get("workspace_elements")
    return found if elements is None or isinstance(elements, str) else [*found, _buffer_bytes(elements, args)]


def _told(name: str, value: float | str) -> Reading:
    if isinstance(value, str):
        return unavailable(name, value, "call")
    return reading(name, float(value), "counted", part="call", method_note="declared by the operator")


def _buffer_bytes(elements: float, args: tuple[Any, ...]) -> Reading:
    """Declared elements at the size of those of the first floating argument."""
    from bench.tensors import tensors_in

    sizes = [tensor.element_size() for tensor in tensors_in(args) if tensor.is_floating_point()]
    if not sizes:
        return unavailable(
            "buffer_bytes", "no argument is floating, so that the size of an element is not known", "call"
        )
    note = f"workspace_elements x {sizes[0]} bytes, as the first floating argument has them"
    return reading("buffer_bytes", elements * sizes[0], "counted", part="call", method_note=note)


def _tolerance(module: Any) -> float:
    return float(getattr(module, "tolerance", TOLERANCE))


def _agreement(subject: Built, shape: Shape) -> tuple[list[Reading], list[dict[str, str]]]:
    """Errors against the reference, and a flag where they are above the tolerance."""
    from bench.tensors import copy_of

    module = subject.module
    metrics = ("reference_error", "reference_max_error")
    own = ask(module, "check_args", subject.seed)
    args = arguments(subject, shape) if own is None else _placed(tuple(own), subject)
    if any(on_meta(arg) for arg in args):
        return [unavailable(name, "meta tensors have no values", "call") for name in metrics], []
    if not callable(getattr(module, "reference", None)):
        return [unavailable(name, "the module offers no reference", "call") for name in metrics], []
    expected = module.reference(*copy_of(args, module))
    found = module(*copy_of(args, module), **subject.kwargs)
    relative, largest, wrong = errors(found, expected)
    limit = _tolerance(module)
    if wrong is None and relative > limit:
        wrong = f"{relative:.3g} from the reference (relative L2), more than its tolerance of {limit:g}"
    flags = [] if wrong is None else [flag("wrong_result", "invalid", f"the function is {wrong}")]
    if relative == float("inf"):
        return [unavailable(name, f"the function is {wrong}", "call") for name in metrics], flags
    where = "a smaller instance" if own is not None else "the arguments of the call"
    note = f"on {where}; tolerance {limit:g}"
    values = zip(metrics, (relative, largest), strict=True)
    return [reading(name, value, "measured", part="call", method_note=note) for name, value in values], flags


def errors(found: Any, expected: Any) -> tuple[float, float, str | None]:
    """Relative L2 distance, largest difference over the largest expected value, and what is wrong beyond numbers.

    Both over all tensors of the result together, in float64. Shapes that differ and values that are not finite where
    the reference's are give infinity and the reason.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    mine, theirs = (
        [leaf for leaf in tree_leaves(side) if isinstance(leaf, torch.Tensor)] for side in (found, expected)
    )
    shapes = [[list(tensor.shape) for tensor in side] for side in (mine, theirs)]
    if shapes[0] != shapes[1]:
        return float("inf"), float("inf"), f"of another shape than the reference: {shapes[0]} instead of {shapes[1]}"
    flat = [torch.cat([_doubles(tensor) for tensor in side]) for side in (mine, theirs)] if mine else []
    if not flat:
        return float("inf"), float("inf"), "without a tensor in its result"
    distance = torch.where(flat[0] == flat[1], 0.0, flat[0] - flat[1])  # infinities that agree are no distance
    if not bool(torch.isfinite(distance).all()):
        return float("inf"), float("inf"), "not finite where the reference is, or the other way round"
    finite = flat[1][torch.isfinite(flat[1])]
    norm, top = (float(finite.norm()), float(finite.abs().max())) if finite.numel() else (0.0, 0.0)
    return float(distance.norm()) / (norm or 1.0), float(distance.abs().max()) / (top or 1.0), None


def _doubles(tensor: Any) -> Any:
    import torch

    plain = tensor.detach().to("cpu")
    plain = plain.to_dense() if plain.layout is not torch.strided else plain
    real = torch.view_as_real(plain) if plain.is_complex() else plain
    return real.double().flatten()


def _placed(args: tuple[Any, ...], subject: Built) -> tuple[Any, ...]:
    from bench.tensors import placed

    return tuple(placed(args, subject.device, subject.dtype))


def derive(shape: Shape, value: Value) -> list[Reading]:
    """What the call takes at its peak beside inputs and outputs, and its operations for each byte that has to move."""
    return [_workspace(value), *_intensity(shape, value)]


def _workspace(value: Value) -> Reading:
    peak, moved = value("peak_memory_bytes", "call"), value("io_bytes", "call")
    if peak is None or moved is None or peak.value is None or moved.value is None:
        return unavailable("workspace_bytes", "the peak or the bytes in and out were not measured", "call")
    note = "peak of live tensors less inputs, weights and outputs; buffers inside kernels are not tensors"
    size = max(0.0, peak.value - moved.value)
    return reading("workspace_bytes", size, peak.provenance, part="call", method_note=note)


def _intensity(shape: Shape, value: Value) -> list[Reading]:
    """Operations per byte, without and with the operator's own buffers."""
    macs, moved, buffers = (value(name, "call") for name in ("macs", "io_bytes", "buffer_bytes"))
    if macs is None or moved is None or macs.value is None or not moved.value:
        return [unavailable("op_per_byte", "the products or the bytes in and out were not counted", "call")]
    work = 2 * macs.value * int(shape.get("batch") or 1)
    found = [reading("op_per_byte", work / moved.value, "counted", part="call", method_note="2 x MACs / io_bytes")]
    if buffers is None or buffers.value is None:
        return found
    note = "2 x MACs / (io_bytes + 2 x buffer_bytes)"
    copied = work / (moved.value + 2 * buffers.value)
    return [*found, reading("op_per_byte_copied", copied, "counted", part="call", method_note=note)]
