"""Parameters and size: how many values a module holds, in how many bytes, and which of them save nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.flags import flag
from bench.meters.checkpoint import checkpoint_bytes
from bench.meters.inventory import WEIGHTS, Held, Inventory, held_bytes, inventory
from bench.meters.stored import covered_bytes, extent, is_wrapper, leaves
from bench.reading import Reading, reading, unavailable
from bench.words import plural, them

#: From this share of exact zeros in a dense matrix on, the zeros are taken for a mask.
MASK_SHARE = 0.1


@dataclass(frozen=True)
class ParamsCount:
    """Values and bytes of a module; a count that could not be taken is None and `notes` says why, by field.

    Attributes:
        total: values of distinct weights, packed ones as the values they stand for.
        trainable: those in parameters that require a gradient.
        nonzero: those that are not exactly zero, after pruning masks.
        weight_bytes: bytes of distinct weights as stored, with scales, zero points and indices.
        effective_bits: stored bits per value.
        buffer_elements, buffer_bytes: registered buffers (statistics, tables, masks).
        held_bytes: bytes of the whole storages that weights and buffers keep alive.
        checkpoint_bytes: length of the saved state; `checkpoint_format` says of which format and how it was found.
        by_dtype: values and bytes of the weights by the dtype they are stored in.
        zero_share: share of exact zeros in dense matrices that are not zero throughout.
        flags: `{code, severity, text}` as in a record.
    """

    total: int
    trainable: int
    nonzero: int | None
    weight_bytes: int
    effective_bits: float | None
    packed: int
    buffer_elements: int
    buffer_bytes: int
    loose_elements: int
    loose_bytes: int
    held_bytes: int
    checkpoint_bytes: int | None
    checkpoint_format: str
    by_dtype: dict[str, dict[str, int]]
    shared: dict[str, str]
    zero_share: float | None
    flags: tuple[dict[str, str], ...] = ()
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Weights and buffers as stored."""
        return self.weight_bytes + self.buffer_bytes

    def readings(self) -> list[Reading]:
        """The size metrics; what is missing is unavailable with its reason."""
        written = "measured" if self.checkpoint_format.startswith("torch.save") else "counted"
        masked = any(flag["code"] == "masked_but_dense" for flag in self.flags)
        rows: list[tuple[str, float | None, Any, str]] = [
            ("params", self.total, "counted", ""),
            ("params_trainable", self.trainable, "counted", ""),
            ("params_nonzero", self.nonzero, "counted", "theoretical only: zeros in dense storage" if masked else ""),
            ("effective_bits", self.effective_bits, "counted", ""),
            ("size_bytes", self.size_bytes, "counted", ""),
            ("checkpoint_bytes", self.checkpoint_bytes, written, self.checkpoint_format),
        ]
        return [
            unavailable(metric, self.notes[metric])
            if value is None
            else reading(metric, value, provenance, method_note=note)
            for metric, value, provenance, note in rows
        ]

    def as_dict(self) -> dict[str, Any]:
        """The count as plain JSON types."""
        return {**asdict(self), "flags": list(self.flags), "size_bytes": self.size_bytes}


def measure(module: nn.Module, *, checkpoint: bool = True) -> ParamsCount:
    """Values, bytes and checkpoint size of a module; works on the meta device, where only values are unknown.

    Args:
        module: any module: plain, pruned, quantised (torch.ao packed or tensor subclasses), scripted, compiled.
        checkpoint: whether to write the state into a counting sink (half a second per gigabyte).

    Raises:
        ParamsError: a lazy module has not seen its first input.
    """
    found = inventory(module)
    weights = [item for item in found.held if item.kind in WEIGHTS]
    total, weight_bytes = found.elements_of(*WEIGHTS), found.bytes_of(*WEIGHTS)
    nonzero, why_no_zeros = _nonzero(weights)
    saved, saved_as = checkpoint_bytes(module) if checkpoint else (None, "not asked for")
    notes = {"params_nonzero": why_no_zeros} if nonzero is None else {}
    if saved is None:
        notes["checkpoint_bytes"] = saved_as
    if not total:
        notes["effective_bits"] = "the module has no parameters"
    zeros = _dense_zeros(weights)
    return ParamsCount(
        total=total,
        trainable=sum(i.tensor.numel() for i in weights if i.kind == "parameter" and i.tensor.requires_grad),
        nonzero=nonzero,
        weight_bytes=weight_bytes,
        effective_bits=8 * weight_bytes / total if total else None,
        packed=found.elements_of("packed", "constant"),
        buffer_elements=found.elements_of("buffer"),
        buffer_bytes=found.bytes_of("buffer"),
        loose_elements=found.elements_of("loose"),
        loose_bytes=found.bytes_of("loose"),
        held_bytes=held_bytes(item for item in found.held if item.kind != "loose"),
        checkpoint_bytes=saved,
        checkpoint_format=saved_as,
        by_dtype=_by_dtype(weights),
        shared=found.shared,
        zero_share=None if zeros is None else _share(zeros),
        flags=tuple(_flags(found, zeros)),
        notes=notes,
    )


def _nonzero(weights: list[Held]) -> tuple[int | None, str]:
    """Values that are not exactly zero, or None and the reason."""
    count = 0
    for item in weights:
        if item.tensor.is_meta:
            return None, "weights on the meta device have no values"
        if item.stands_for is not None:
            return None, f"{item.path} holds codes, which are not the values that they stand for"
        try:
            count += _nonzero_of(item)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            return None, f"{item.path} ({type(item.tensor).__name__}) cannot be read as numbers: {error}"
    return count, ""


def _nonzero_of(item: Held) -> int:
    tensor = item.tensor.detach()
    if is_wrapper(tensor) or tensor.is_quantized:
        tensor = tensor.dequantize()
    elif tensor.layout is not torch.strided:
        return int(torch.count_nonzero(tensor.coalesce().values() if tensor.is_sparse else tensor.values()))
    if item.mask is not None:
        tensor = tensor * item.mask
    return int(torch.count_nonzero(tensor))


def _dense_zeros(weights: list[Held]) -> dict[str, tuple[int, int]] | None:
    """Zeros and values, by name, of dense matrices in floating point that are not zero throughout; None on meta."""
    found = {}
    for item in weights:
        tensor = item.tensor
        if tensor.is_meta:
            return None
        dense = tensor.layout is torch.strided and not is_wrapper(tensor) and tensor.is_floating_point()
        if dense and tensor.ndim >= 2:
            zeros = tensor.numel() - _nonzero_of(item)
            if zeros < tensor.numel():
                found[item.path] = (zeros, tensor.numel())
    return found


def _share(zeros: dict[str, tuple[int, int]]) -> float:
    values = sum(count for _, count in zeros.values())
    return sum(count for count, _ in zeros.values()) / values if values else 0.0


def _flags(found: Inventory, zeros: dict[str, tuple[int, int]] | None) -> Iterator[dict[str, str]]:
    yield from _zero_flags(found, zeros)
    yield from _unregistered_flags(found)
    wasted = held_bytes(i for i in found.held if i.kind != "loose") - found.bytes_of(*WEIGHTS, "buffer")
    if wasted > 0:
        yield flag("views_keep_storage", "info", f"{wasted} further bytes are kept alive by views of larger storages")


def _zero_flags(found: Inventory, zeros: dict[str, tuple[int, int]] | None) -> Iterator[dict[str, str]]:
    """Weights that are zero and yet stored, read and multiplied."""
    masked = [path for path, (none, of) in (zeros or {}).items() if none >= MASK_SHARE * of]
    pruned = [item.path for item in found.held if item.mask is not None]
    if masked or pruned:
        names = sorted({*masked, *pruned})
        yield flag(
            "masked_but_dense",
            "warn",
            f"theoretical only: {100 * _share(zeros or {}):.1f} % of the dense weights are exact zeros "
            f"({_some(names)}); they are stored, read and multiplied like any other value",
        )
    empty = [i.path for i in found.held if i.kind in WEIGHTS and i.tensor.ndim >= 2 and _all_zero(i)]
    if empty:
        yield flag("zero_weights", "info", f"zero throughout: {_some(empty)}; not trained yet, or pruned as a whole")


def _unregistered_flags(found: Inventory) -> Iterator[dict[str, str]]:
    """What the network holds where torch does not look, and integers that may be weights."""
    if found.opaque:
        yield flag(
            "opaque_objects",
            "warn",
            f"{_some(list(found.opaque))} cannot be looked into; all counts are at least, not exact",
        )
    if found.hidden:
        yield flag(
            "unregistered_modules",
            "warn",
            f"modules in plain attributes ({_some(list(found.hidden))}) are counted, but torch neither trains, saves "
            "nor moves them: hold them in nn.ModuleList or nn.ModuleDict, or, if they are no part of the network, "
            "outside of it",
        )
    loose = [item for item in found.held if item.kind == "loose"]
    if loose:
        count = sum(i.tensor.numel() for i in loose)
        said = f"{plural(count, 'value')} in plain attributes ({_some([i.path for i in loose])})"
        yield flag(
            "loose_tensors",
            "info",
            f"{said} {'is' if count == 1 else 'are'} in no count here: register {them(count)} as buffers or parameters",
        )
    integers = [i for i in found.held if i.kind == "buffer" and i.tensor.ndim >= 2 and _is_integer(i.tensor)]
    if integers:
        yield flag(
            "integer_buffers",
            "info",
            f"{sum(i.tensor.numel() for i in integers)} integers in buffers ({_some([i.path for i in integers])}) are "
            "counted as buffers; if they are quantised weights, the parameter count leaves them out",
        )


def _all_zero(item: Held) -> bool:
    tensor = item.tensor
    plain = not tensor.is_meta and tensor.layout is torch.strided and not is_wrapper(tensor) and not tensor.is_quantized
    return plain and tensor.numel() > 0 and not bool(tensor.any())


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _by_dtype(weights: list[Held]) -> dict[str, dict[str, int]]:
    """Values and bytes by storage dtype; a wrapper's values go to the widest of its parts, its bytes to each part's."""
    table: dict[str, dict[str, int]] = {}
    for item in weights:
        parts = list(leaves(item.tensor))
        for part in parts:
            row = table.setdefault(_dtype_name(part), {"elements": 0, "bytes": 0})
            row["bytes"] += covered_bytes([extent(part)])
        if parts:
            main = max(parts, key=lambda part: covered_bytes([extent(part)]))
            table[_dtype_name(main)]["elements"] += item.values
    return table


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
