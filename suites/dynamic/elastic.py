"""What elastic networks share: sub-networks as slices of one store, and as small networks of their own.

`slice` runs on views of the large tensors; `extract` copies them into small ones. Both make the same products.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["slice", "extract"]


class SlicedLinear(nn.Module):
    """The first outputs and inputs of a linear layer's weight, as a view of it."""

    def __init__(self, whole: nn.Linear, inputs: int, outputs: int):
        super().__init__()
        self.whole, self.inputs, self.outputs = whole, inputs, outputs

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        bias = None if self.whole.bias is None else self.whole.bias[: self.outputs]
        return F.linear(x, self.whole.weight[: self.outputs, : self.inputs], bias)

    def extracted(self) -> nn.Linear:
        """A layer of its own with the same weights."""
        small = nn.Linear(self.inputs, self.outputs, bias=self.whole.bias is not None).to(self.whole.weight)
        with torch.no_grad():
            small.weight.copy_(self.whole.weight[: self.outputs, : self.inputs])
            if self.whole.bias is not None:
                small.bias.copy_(self.whole.bias[: self.outputs])
        return small


def extracted(module: nn.Module, left_out: Iterable[nn.Module] = ()) -> Any:
    """A copy in which every sliced part is a small part of its own; nothing else of the store is copied.

    Args:
        module: the network as it is sliced now.
        left_out: parts that do not run, in whose place the copy has nothing.
    """
    task = getattr(module, "task", None)
    made: dict[int, Any] = {id(part): nn.Identity() for part in left_out}
    for part in module.modules():
        own: Any = getattr(part, "extracted", None)
        if own is not None and id(part) not in made:
            made[id(part)] = own()
    made[id(task)] = task  # a task is shared, not copied
    return copy.deepcopy(module, made).eval()


def touched(module: nn.Module) -> int:
    """Parameters that a sub-network touches: those of its extracted form."""
    return sum(p.numel() for p in extracted(module).parameters())


def bytes_of(module: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def storage_share(store: nn.Module, subnetworks: list[nn.Module]) -> float:
    """Bytes of one store over those of its sub-networks kept apart."""
    return bytes_of(store) / sum(bytes_of(extracted(one)) for one in subnetworks)


def first_part(whole: Tensor, shape: torch.Size, *, centre: int = 0) -> Tensor:
    """The view of a tensor with this shape: the first entries of each axis, the middle ones of some.

    Args:
        whole: of the store.
        shape: of the sub-network's tensor.
        centre: how many axes are taken from the middle: of a convolution's weight the last, of others the first.
    """
    axes = range(whole.dim() - centre, whole.dim()) if whole.dim() == 4 else range(centre)
    for axis, size in enumerate(shape):
        start = (whole.shape[axis] - size) // 2 if axis in axes else 0
        whole = whole.narrow(axis, start, size)
    return whole


def parts_of(store: nn.Module, small: nn.Module) -> dict[str, Tensor]:
    """Views of the store's parameters and buffers by the names and in the shapes of a smaller network of its kind."""
    own = {**dict(store.named_parameters()), **dict(store.named_buffers())}
    wanted = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    return {
        name: first_part(own[name], value.shape, centre=2 if value.dim() == 4 or name.endswith("offsets") else 0)
        for name, value in wanted.items()
    }


def take(store: nn.Module, small: nn.Module, form: Form) -> nn.Module:
    """The smaller network with the store's weights: as strided views of the same memory, or as copies."""
    for name, view in parts_of(store, small).items():
        path, _, leaf = name.rpartition(".")
        module = small.get_submodule(path)
        value = view.detach() if form == "slice" else view.detach().clone(memory_format=torch.contiguous_format)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(value, requires_grad=value.is_floating_point())
        else:
            module._buffers[leaf] = value
    return small.eval()
