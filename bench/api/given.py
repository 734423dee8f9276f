"""A module of the caller's as a subject: what it is called, its inputs, its conditions, and whether they are valid."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import backends, workloads
from bench.canonical import settings_text
from bench.errors import UsageError, did_you_mean
from bench.plan.case import Case

if TYPE_CHECKING:
    from torch import nn

    from bench.meters.inputs import Batch


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

    @property
    def is_plain(self) -> bool:
        """Whether it is an eager forward, whose counts need no process of their own."""
        return (self.workload, self.backend) == (workloads.FORWARD, backends.EAGER)

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


def given_subject(
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
    from bench.backends.onnx_file import OnnxFile
    from bench.meters import handed_over
    from bench.meters.inputs import as_call, batch_for

    args, keywords = as_call(inputs, kwargs)
    check_given(module, args, keywords, workload)
    if isinstance(module, OnnxFile) and backend == backends.EAGER:
        backend = "onnxruntime"  # torch cannot run it
    given = dict(shape)
    asked = batch if batch is not None else given.pop("batch", None)
    samples = batch_for(module, args, keywords, asked)
    whole = workloads.find(workload).shape({**given, "batch": samples.size})
    if args or keywords:
        module = handed_over.initialised(module, args, keywords)
    return module, Given(name_of(module, name), (args, keywords), workload, whole, backend, device, samples)


def check_given(module: nn.Module, args: tuple[Any, ...], keywords: Mapping[str, Any], workload: str) -> None:
    """Raise UsageError where a forward takes inputs and none were given."""
    made_elsewhere = hasattr(module, "example_inputs") or bool(module._forward_pre_hooks)
    if args or keywords or workload != workloads.FORWARD or made_elsewhere:
        return
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # a compiled one says nothing
        return
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [one.name for one in parameters if one.kind in plain and one.default is one.empty]
    if needed:
        raise UsageError(
            f"the forward of {type(module).__name__} takes {', '.join(needed)} and no inputs were given: give them "
            "behind the module, as in bench.measure(module, inputs)"
        )


def name_of(module: nn.Module, name: str | None) -> str:
    """What a module is called in its rows: the caller's name for it, else its class."""
    return name or type(module).__name__


def dtype_of(module: nn.Module) -> str:
    """The suite's name of the type that a module computes in: that of its first floating parameter, else `fp32`."""
    from bench.analysis.roofline_of_record import dtype_name

    return next((dtype_name(str(p.dtype)) for p in module.parameters() if p.is_floating_point()), "fp32")


def checked_axes(dtype: str, batch: Any, resolution: int | None, seed: Any) -> int:
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


def checked_device(device: Any) -> str:
    """The device's name, for a `torch.device` as well.

    Raises:
        UsageError: there is no such device here.
    """
    from bench.plan.plan import check_device

    name = str(device)
    check_device(name)
    return name


def checked_threads(threads: Any) -> int | None:
    """The number of threads as a plain number, None for the machine's own; UsageError for what is no such number."""
    if threads is None:
        return None
    if not hasattr(threads, "__index__") or isinstance(threads, bool) or threads.__index__() < 1:
        raise UsageError(f"threads={threads!r} is not valid: it is 1 or more, or None for the machine's own number")
    return int(threads.__index__())
