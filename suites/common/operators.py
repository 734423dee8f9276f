"""A bare function of tensors as a subject: the function, its definition in float64, and its gradients where wanted.

A subclass gives `function` (what is timed), `definition` (the same, slow and obvious, in float64) and `example_inputs`.
What is learned in a network (a kernel, filters) is a parameter here, so that its bytes count as weights and its
gradient is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.tensors import storages_of, tensors_in, weights_of

#: How far rounding of a dtype moves a result, beside that of fp32: relative L2 distances that are still the same
#: function.
LOOSER = {torch.float64: 1e-4, torch.float32: 1.0, torch.float16: 200.0, torch.bfloat16: 2000.0}


class Operator(nn.Module):
    """A function of tensors that is timed bare.

    Attributes:
        tolerance_fp32: largest relative L2 distance from the definition in single precision.
        form: what really runs.
        backward: whether a run also takes the gradients of its outputs with respect to inputs and parameters.
    """

    like: Tensor
    tolerance_fp32 = 1e-5

    def __init__(self, *, form: str, backward: bool = False):
        super().__init__()
        self.form, self.backward = form, backward
        self.register_buffer("like", torch.zeros(()), persistent=False)

    @property
    def tolerance(self) -> float:
        """Largest relative L2 distance from the definition in the dtype that the operator has been put in."""
        return self.tolerance_fp32 * LOOSER.get(self.like.dtype, 1.0)

    def function(self, *args: Any) -> Any:
        """What is timed."""
        raise NotImplementedError(f"{type(self).__name__} does not define function")

    def definition(self, *args: Any) -> Any:
        """The same by its definition."""
        raise NotImplementedError(f"{type(self).__name__} does not define definition")

    def costs(self, *args: Any) -> Mapping[str, float | str]:
        """Quantities that follow from shapes, by metric; a text is the reason why there is none."""
        return {}

    def declares(self, *args: Any) -> dict[str, float | str]:
        """The operator's own costs, and with gradients the bytes that autograd keeps for them."""
        saved = {"saved_activation_bytes": saved_bytes(self, self.function, args)} if self.backward else {}
        return {**self.costs(*args), **saved}

    def forward(self, *args: Any) -> Any:
        """The function's result, and behind it the gradients where they are wanted."""
        return with_gradients(self, self.function, args) if self.backward else self.function(*args)

    def reference(self, *args: Any) -> Any:
        """What `forward` should give: the definition and autograd's gradients of it, in float64."""
        twin = copy.deepcopy(self).double()
        doubles = tuple(as_double(arg) for arg in args)
        return with_gradients(twin, twin.definition, doubles) if self.backward else twin.definition(*doubles)


def as_double(value: Any) -> Any:
    """A floating tensor in float64; anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def with_gradients(module: nn.Module, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A function's result and the gradients of inputs and parameters, for a seeded direction of the result.

    The direction is a cosine of the place, so that a constant or a permuted gradient does not pass for the right one.

    Args:
        module: whose parameters are learned.
        function: of the arguments; one tensor comes out.
        args: floating ones get a gradient.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [_leaf(arg) for arg in args]
        output = function(*leaves)
        learned = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        learned += [parameter for parameter in module.parameters() if parameter.requires_grad]
        found = torch.autograd.grad(output, learned, direction(output), allow_unused=True)
        return (output.detach(), *(gradient for gradient in found if gradient is not None))


def saved_bytes(module: nn.Module, function: Callable[..., Any], args: tuple[Any, ...]) -> float | str:
    """Bytes of distinct storages that autograd keeps after a forward, without arguments, parameters and buffers."""
    if any(isinstance(arg, Tensor) and arg.is_meta for arg in args):
        return "meta tensors have no storage"
    kept = list[Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.inference_mode(False), torch.enable_grad():
        leaves = [_leaf(arg) for arg in args]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = function(*leaves)
        known = storages_of([*tensors_in(leaves), *weights_of(module)])
        found = storages_of(kept)
        del output
    return float(sum(size for key, size in found.items() if key not in known))


def _leaf(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    own = value.clone() if value.is_inference() else value.detach()
    return own.requires_grad_()


def direction(output: Tensor) -> Tensor:
    """A tensor like the output that is neither constant nor random."""
    places = torch.arange(output.numel(), device=output.device, dtype=torch.float64)
    return torch.cos(places).reshape(output.shape).to(output.dtype)
