"""What a model may change for everything beside it in a process: threads, default type, kernels; read and put back."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch

#: What reads a setting, and what sets it.
Access = tuple[Callable[[], Any], Callable[[Any], Any]]


def backend_setting(path: str) -> Access:
    """A setting of `torch.backends` by its path; it reads None where this torch has none of that name."""
    *owners, name = path.split(".")

    def read() -> Any:
        try:
            return getattr(functools.reduce(getattr, owners, torch.backends), name)
        except AttributeError:
            return None

    return read, lambda value: setattr(functools.reduce(getattr, owners, torch.backends), name, value)


class Hooks:
    """What torch calls around every forward of every module in the process, by identity; told as its number."""

    def __init__(self, tables: dict[str, dict[Any, Any]]):
        self.tables = tables

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hooks) and self._ids() == other._ids()

    def __hash__(self) -> int:
        return hash(str(self))

    def __deepcopy__(self, memo: Any) -> Hooks:
        return self

    def __str__(self) -> str:
        return str(sum(map(len, self.tables.values())) or "none")

    def _ids(self) -> dict[str, list[tuple[Any, int]]]:
        return {name: [(key, id(hook)) for key, hook in table.items()] for name, table in self.tables.items()}


def _hook_tables() -> dict[str, dict[Any, Any]]:
    """Torch's own tables of hooks on every module, those that this torch has."""
    found = {name: getattr(torch.nn.modules.module, name, None) for name in HOOKS}
    return {name: table for name, table in found.items() if isinstance(table, dict)}


#: Names of torch's tables of hooks on every module.
HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_forward_hooks_always_called",
    "_global_forward_hooks_with_kwargs",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
    "_global_module_registration_hooks",
    "_global_parameter_registration_hooks",
    "_global_buffer_registration_hooks",
)


def _read_hooks() -> Hooks:
    return Hooks({name: dict(table) for name, table in _hook_tables().items()})


def _put_hooks(wanted: Hooks) -> None:
    for name, table in _hook_tables().items():
        table.clear()
        table.update(wanted.tables.get(name, {}))


def _flushes_denormals() -> bool:
    """Whether the smallest numbers become zero in this thread, which torch sets and does not tell."""
    smallest = sys.float_info.min
    return smallest / 2 == 0.0


def _processors() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def _put_processors(wanted: tuple[int, ...]) -> None:
    if wanted:
        os.sched_setaffinity(0, wanted)


#: Field of the state -> access to it, in the order in which they are set; TF32 comes after them, see `set_tf32`.
ACCESS: dict[str, Access] = {
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default_device": (
        lambda: str(torch.get_default_device()),
        lambda device: torch.set_default_device(None if device == "cpu" else device),
    ),
    "deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "cudnn_enabled": backend_setting("cudnn.enabled"),
    "cudnn_benchmark": backend_setting("cudnn.benchmark"),
    "cudnn_deterministic": backend_setting("cudnn.deterministic"),
    "mkldnn_enabled": backend_setting("mkldnn.enabled"),
    "flash_attention": (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    "memory_efficient_attention": (
        torch.backends.cuda.mem_efficient_sdp_enabled,
        torch.backends.cuda.enable_mem_efficient_sdp,
    ),
    "math_attention": (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    "cudnn_attention": (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
    "attention_layer_fast_path": (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    "bf16_reduced_precision": backend_setting("cuda.matmul.allow_bf16_reduced_precision_reduction"),
    "fp16_reduced_precision": backend_setting("cuda.matmul.allow_fp16_reduced_precision_reduction"),
    "fp16_accumulation": backend_setting("cuda.matmul.allow_fp16_accumulation"),
    "fp32_precision": backend_setting("fp32_precision"),
    "mkldnn_products": backend_setting("mkldnn.matmul.fp32_precision"),
    "mkldnn_convolutions": backend_setting("mkldnn.conv.fp32_precision"),
    "module_hooks": (_read_hooks, _put_hooks),
    "flush_denormal": (_flushes_denormals, torch.set_flush_denormal),
    "anomaly_detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "processors": (_processors, _put_processors),
    "python_tracing": (sys.gettrace, sys.settrace),
    "python_profiling": (sys.getprofile, sys.setprofile),
    "thread_switching": (sys.getswitchinterval, sys.setswitchinterval),
}


@dataclass(frozen=True)
class GlobalState:
    """State of torch that outlives a forward and that others in the process run under; None where torch has no such."""

    threads: int
    default_dtype: torch.dtype
    default_device: str
    deterministic: bool
    gradients: bool
    cudnn_enabled: bool
    cudnn_benchmark: bool
    cudnn_deterministic: bool
    mkldnn_enabled: bool
    flash_attention: bool
    memory_efficient_attention: bool
    math_attention: bool
    cudnn_attention: bool
    attention_layer_fast_path: bool
    bf16_reduced_precision: bool | None
    fp16_reduced_precision: bool | None
    fp16_accumulation: bool | None
    fp32_precision: str | None
    mkldnn_products: str | None
    mkldnn_convolutions: str | None
    module_hooks: Hooks
    flush_denormal: bool
    anomaly_detection: bool
    processors: tuple[int, ...]
    python_tracing: Any
    python_profiling: Any
    thread_switching: float
    tf32_products: bool
    tf32_convolutions: bool

    def changes_to(self, other: GlobalState) -> list[str]:
        """What differs, in words: `threads from 1 to 7`."""
        before, after = ({item.name: getattr(state, item.name) for item in fields(state)} for state in (self, other))
        return [
            f"{name.replace('_', ' ')} from {_in_words(before[name])} to {_in_words(after[name])}"
            for name in before
            if before[name] != after[name]
        ]


def _in_words(value: Any) -> str:
    """A setting as text; of a function of Python's only that there is one."""
    return "a function" if callable(value) and not isinstance(value, torch.dtype) else str(value)


def read() -> GlobalState:
    """The state as it is now."""
    return GlobalState(
        **{name: get() for name, (get, _) in ACCESS.items()},
        tf32_products=_is_tf32(torch.backends.cuda.matmul),
        tf32_convolutions=_is_tf32(torch.backends.cudnn),
    )


def put_back(wanted: GlobalState) -> list[str]:
    """Make the state what it was; what had changed, in words."""
    found = read()
    for name, (_, put) in ACCESS.items():
        if getattr(found, name) != getattr(wanted, name):
            put(getattr(wanted, name))
    if (found.tf32_products, found.tf32_convolutions) != (wanted.tf32_products, wanted.tf32_convolutions):
        set_tf32(wanted.tf32_products, wanted.tf32_convolutions)
    return wanted.changes_to(found)


def set_tf32(products: bool, convolutions: bool) -> None:
    """Say whether matrix products and convolutions in single precision may use TF32 on CUDA."""
    if getattr(torch.backends, "fp32_precision", "none") != "none":
        setattr(torch.backends, "fp32_precision", "none")  # noqa: B010 - what holds for all backends would hold for these two as well
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


def _is_tf32(backend: Any) -> bool:
    """Whether a backend takes TF32, by torch's newer name where it has it: the older one raises once both were used."""
    newer = getattr(getattr(backend, "conv", backend), "fp32_precision", None)
    return bool(backend.allow_tf32) if newer is None else newer == "tf32"
