"""What a model may change for everything beside it in a process: threads, default type, kernels; read and put back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

#: What reads a setting, and what sets it.
Access = tuple[Callable[[], Any], Callable[[Any], Any]]


def _backend(path: str) -> Access:
    """A setting of `torch.backends` by its path; it reads None where this torch has none of that name."""
    *owners, name = path.split(".")

    def read() -> Any:
        try:
            return getattr(functools.reduce(getattr, owners, torch.backends), name)
        except AttributeError:
            return None

    return read, lambda value: setattr(functools.reduce(getattr, owners, torch.backends), name, value)


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
    "cudnn_enabled": _backend("cudnn.enabled"),
    "cudnn_benchmark": _backend("cudnn.benchmark"),
    "cudnn_deterministic": _backend("cudnn.deterministic"),
    "mkldnn_enabled": _backend("mkldnn.enabled"),
    "flash_attention": (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    "memory_efficient_attention": (
        torch.backends.cuda.mem_efficient_sdp_enabled,
        torch.backends.cuda.enable_mem_efficient_sdp,
    ),
    "math_attention": (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    "cudnn_attention": (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
    "attention_layer_fast_path": (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    "bf16_reduced_precision": _backend("cuda.matmul.allow_bf16_reduced_precision_reduction"),
    "fp16_reduced_precision": _backend("cuda.matmul.allow_fp16_reduced_precision_reduction"),
    "fp16_accumulation": _backend("cuda.matmul.allow_fp16_accumulation"),
    "fp32_precision": _backend("fp32_precision"),
    "mkldnn_products": _backend("mkldnn.matmul.fp32_precision"),
    "mkldnn_convolutions": _backend("mkldnn.conv.fp32_precision"),
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
    tf32_products: bool
    tf32_convolutions: bool

    def changes_to(self, other: GlobalState) -> list[str]:
        """What differs, in words: `threads from 1 to 7`."""
        before, after = asdict(self), asdict(other)
        return [f"{name.replace('_', ' ')} from {before[name]} to {after[name]}" for name in before
                if before[name] != after[name]]  # fmt: skip


def read() -> GlobalState:
    """The state as it is now."""
    return GlobalState(
        **{name: get() for name, (get, _) in ACCESS.items()},
        tf32_products=_is_tf32(torch.backends.cuda.matmul), tf32_convolutions=_is_tf32(torch.backends.cudnn),
    )  # fmt: skip


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
