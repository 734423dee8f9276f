"""What a model may change for everything beside it in a process: threads, default type, modes; read and put back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class GlobalState:
    """State of torch that outlives a forward and that others in the process run under."""

    threads: int
    default_dtype: torch.dtype
    default_device: str
    deterministic: bool
    gradients: bool
    tf32_products: bool
    tf32_convolutions: bool
    cudnn_benchmark: bool

    def changes_to(self, other: GlobalState) -> list[str]:
        """What differs, in words: `threads from 1 to 7`."""
        before, after = asdict(self), asdict(other)
        return [f"{name.replace('_', ' ')} from {before[name]} to {after[name]}" for name in before
                if before[name] != after[name]]  # fmt: skip


def read() -> GlobalState:
    """The state as it is now."""
    return GlobalState(
        threads=torch.get_num_threads(), default_dtype=torch.get_default_dtype(),
        default_device=str(torch.get_default_device()), deterministic=torch.are_deterministic_algorithms_enabled(),
        gradients=torch.is_grad_enabled(), cudnn_benchmark=torch.backends.cudnn.benchmark,
        tf32_products=_is_tf32(torch.backends.cuda.matmul), tf32_convolutions=_is_tf32(torch.backends.cudnn),
    )  # fmt: skip


def put_back(wanted: GlobalState) -> list[str]:
    """Make the state what it was; what had changed, in words."""
    found = read()
    changes = wanted.changes_to(found)
    if found.threads != wanted.threads:
        torch.set_num_threads(wanted.threads)
    if found.default_dtype != wanted.default_dtype:
        torch.set_default_dtype(wanted.default_dtype)
    if found.default_device != wanted.default_device:
        torch.set_default_device(None if wanted.default_device == "cpu" else wanted.default_device)
    if found.deterministic != wanted.deterministic:
        torch.use_deterministic_algorithms(wanted.deterministic)
    if found.gradients != wanted.gradients:
        torch.set_grad_enabled(wanted.gradients)
    if found.cudnn_benchmark != wanted.cudnn_benchmark:
        torch.backends.cudnn.benchmark = wanted.cudnn_benchmark
    if (found.tf32_products, found.tf32_convolutions) != (wanted.tf32_products, wanted.tf32_convolutions):
        set_tf32(wanted.tf32_products, wanted.tf32_convolutions)
    return changes


def set_tf32(products: bool, convolutions: bool) -> None:
    """Say whether matrix products and convolutions in single precision may use TF32 on CUDA."""
    if getattr(torch.backends, "fp32_precision", "none") != "none":
        setattr(torch.backends, "fp32_precision", "none")  # noqa: B010 - what holds for all backends would hold for these two as well
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


def _is_tf32(backend: Any) -> bool:
    """Whether a backend takes TF32, by torch's newer name where it has it: the older one raises once both were used."""
    newer = getattr(getattr(backend, "conv", backend), "fp32_precision", None)
    return bool(backend.allow_tf32) if newer is None else newer == "tf32"
