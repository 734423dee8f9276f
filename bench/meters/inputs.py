"""What a user hands over beside the module, read one way everywhere: arguments of a forward, and how many samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.errors import UsageError
from bench.flags import flag
from bench.meters.reach import tensors_in

_IMAGE_CHANNELS = (1, 3)


def as_call(inputs: Any, kwargs: Mapping[str, Any] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs of one forward from what a user hands over.

    Args:
        inputs: a tensor (or another single argument), a tuple or list of positional inputs, or a mapping of keyword
            inputs (a dict, a tokenizer's output).
        kwargs: keyword inputs beside positional ones.

    Raises:
        UsageError: a shape was given in place of tensors.
    """
    if inputs is None:
        return (), dict(kwargs or {})
    if isinstance(inputs, torch.Size) or _is_shape(inputs):
        shape = tuple(inputs)
        raise UsageError(
            f"inputs are the tensors of one forward, not a shape: give torch.rand({shape}), say, for {shape}"
        )
    if isinstance(inputs, Mapping) and all(isinstance(key, str) for key in inputs):
        return (), {**inputs, **(kwargs or {})}
    named = hasattr(inputs, "_fields")  # a named tuple, such as a packed sequence, is one argument
    many = isinstance(inputs, tuple | list) and not named
    return (tuple(inputs) if many else (inputs,)), dict(kwargs or {})


def _is_shape(inputs: Any) -> bool:
    whole = isinstance(inputs, tuple | list) and len(inputs) > 1
    return whole and all(isinstance(size, int) and not isinstance(size, bool) for size in inputs)


@dataclass(frozen=True)
class Batch:
    """How many samples the inputs of one forward hold: `size`, which input says so, and whether it is beyond doubt."""

    size: int
    source: str
    sure: bool = True


def batch_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Batch:
    """The number of samples that inputs hold, from the inputs alone.

    It is the first dimension of the tensors, wherever they are; those with none or of size 1 are left aside where
    others are larger. A list of images counts as many as it has; a nested tensor its members, a packed sequence its
    sequences. Where first dimensions disagree the first one is given, and it is not sure.
    """
    sizes: dict[str, int] = {}
    for name, value in [
        *((f"input {i + 1}", v) for i, v in enumerate(args)),
        *((f'"{k}"', v) for k, v in kwargs.items()),
    ]:
        sizes |= _sizes(name, value)
    if not sizes:
        return Batch(1, "no input is a tensor with dimensions", sure=True)
    large = {name: size for name, size in sizes.items() if size != 1} or sizes
    name, size = next(iter(large.items()))
    return Batch(size, name, sure=len(set(large.values())) == 1)


def _sizes(name: str, value: Any) -> dict[str, int]:
    if isinstance(value, nn.utils.rnn.PackedSequence):
        return {name: int(value.batch_sizes[0])}
    if isinstance(value, list | tuple) and _are_images(value):
        return {f"the length of {name}": len(value)}
    tensors = [tensor for tensor in tensors_in(value) if tensor.dim() > 0]
    if len(tensors) == 1:
        return {name: int(tensors[0].size(0))}
    return {f"tensor {index + 1} of {name}": int(tensor.size(0)) for index, tensor in enumerate(tensors)}


def _are_images(values: Any) -> bool:
    """Whether a list holds images one by one, as detectors take them."""
    return bool(values) and all(
        isinstance(v, Tensor) and v.dim() == 3 and not v.is_nested and v.shape[0] in _IMAGE_CHANNELS for v in values
    )


def batch_for(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: int | None = None) -> Batch:
    """The number of samples of a call: the given one, else what the inputs and the module's first layer say.

    Raises:
        UsageError: it is not a whole number of at least 1, or the inputs disagree about it.
    """
    if given is not None:
        return Batch(checked_batch(given), "given")
    first = next(iter([*args, *kwargs.values()]), None)
    if isinstance(first, Tensor) and not first.is_nested:
        said = layout_of(_first_layer(module), first)
        if said is not None:
            return said
    found = batch_of(args, kwargs)
    if not found.sure:
        raise UsageError(
            f"the inputs' first dimensions disagree, so that the number of samples is not clear ({found.source} has "
            f"{found.size}): say it with batch=..."
        )
    return found if found.size > 0 else Batch(1, f"{found.source} is empty")


def checked_batch(value: Any) -> int:
    """The value as a whole number of samples.

    Raises:
        UsageError: it is none, or below 1.
    """
    whole = hasattr(value, "__index__") and not isinstance(value, bool | Tensor)
    if not whole or value.__index__() < 1:
        raise UsageError(f"batch={value!r} is not valid: it is the number of samples of one forward, 1 or more")
    return int(value.__index__())


def _first_layer(module: nn.Module) -> nn.Module:
    """The layer that a module hands its input to unchanged: itself, or the first of a sequence."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0]
    return module


def layout_of(layer: nn.Module, tensor: Tensor) -> Batch | None:
    """The number of samples of a tensor that a layer takes, where it is not the first dimension; None where it may be.

    torch's layers take a sample without a batch dimension, and recurrent and attention layers the time first.
    """
    name, dims = type(layer).__name__, tensor.dim()
    if isinstance(layer, nn.TransformerEncoder | nn.TransformerDecoder):
        layer = layer.layers[0]
    if dims == _dimensions_of_one(layer):
        return Batch(1, f"{name} takes one sample without a batch dimension")
    if isinstance(layer, _SEQUENCES) and dims == 3 and not _batch_first(layer):
        return Batch(int(tensor.shape[1]), f"{name} takes the time first, the batch second (batch_first=False)")
    return None


_SEQUENCES = (nn.RNNBase, nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def _dimensions_of_one(layer: nn.Module) -> int | None:
    """Dimensions of one sample without a batch, for the layers that tell it from a batch by them."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        return len(layer.kernel_size) + 1  # a lazy one has no weight yet
    if isinstance(layer, nn.Linear | nn.Bilinear | nn.RNNCellBase):
        return 1
    return 2 if isinstance(layer, _SEQUENCES) else None


def _batch_first(layer: Any) -> bool:
    attention = getattr(layer, "self_attn", layer)
    return bool(getattr(attention, "batch_first", False))


def batch_flags(known: Batch | None, batch: int) -> list[dict[str, str]]:
    """A flag where the layer that takes the input says another number of samples than the row has."""
    if known is None or known.size == batch:
        return []
    text = (
        f"the row counts {batch} samples a forward, but {known.source}, which makes it {known.size}: say it with "
        "batch=..."
    )
    return [flag("batch_unclear", "warn", text)]


def can_be_shuffled(value: Any) -> bool:
    """Whether the value is a plain tensor of floating-point numbers."""
    plain = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_nested
    return plain and value.is_floating_point()


def shuffled(tensor: Tensor) -> Tensor:
    """The tensor's values in another order."""
    return tensor.flatten()[torch.randperm(tensor.numel(), device=tensor.device)].reshape(tensor.shape)


def tokens_of(args: Any, kwargs: Mapping[str, Any]) -> int:
    """Tokens of a sample: positions of `input_ids`, else of the first two-dimensional integer input; 0 without one."""
    named = kwargs.get("input_ids")
    given = [named] if isinstance(named, Tensor) else tree_leaves((args, dict(kwargs)))
    whole = {torch.int64, torch.int32, torch.int16, torch.uint8}
    ids = [leaf for leaf in given if isinstance(leaf, Tensor) and leaf.dtype in whole and leaf.dim() == 2]
    return int(ids[0].shape[1]) if ids else 0
