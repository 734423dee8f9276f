"""Batch normalisations folded into the layers before them, as networks are deployed.

This is exact in real numbers: y = g (w * x + b - mean) / sqrt(var + eps) + beta is a convolution with weights
w g / s and bias (b - mean) g / s + beta, s = sqrt(var + eps) (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from bench.errors import UsageError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
#: Operators through which a tensor's shape is asked for: no use of its values.
_SHAPE = ("size", "dim", "ndim", "shape")


class _Tracer(fx.Tracer):
    """Follows a network down to its convolutions, linear layers and normalisations."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node: torch's own layers, and subclasses of them with a forward of their own."""
        return isinstance(m, (*CONVOLUTIONS, *NORMS, nn.Linear)) or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms(network: nn.Module) -> int:
    """How many batch normalisations were folded into the convolution or linear layer before them, in place.

    A pair is folded where the layer's output goes to the normalisation and nowhere else, and each of them is used once.
    What a normalisation does besides (timm's activate as well) stays in its place.

    Raises:
        UsageError: the network's data flow depends on values, so that pairs cannot be told apart.
    """
    network.eval()
    try:
        graph = _Tracer().trace(network)
    except Exception as error:  # whatever the network's own code says to a proxy
        raise UsageError(
            f"{type(network).__name__} cannot be folded: its graph cannot be followed ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'})"
        ) from error
    modules = dict(network.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    often = {node.target for node in calls if sum(other.target == node.target for other in calls) > 1}
    folded = 0
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(modules[node.target], NORMS) or not isinstance(before, fx.Node):
            continue
        if before.op != "call_module" or before.target in often or node.target in often or _uses(before) != 1:
            continue
        folded += _fold(network, modules, str(before.target), str(node.target))
    return folded


def _uses(node: fx.Node) -> int:
    """How many nodes take the values of this one."""
    return sum(not _asks_for_shape(user) for user in node.users)


def _asks_for_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _SHAPE
    return node.target is getattr and node.args[1] in _SHAPE


def _fold(network: nn.Module, modules: dict[str, nn.Module], layer_name: str, norm_name: str) -> bool:
    """Whether the layer could take the normalisation in; both are changed in the network then."""
    layer, norm = modules[layer_name], modules[norm_name]
    if not isinstance(layer, (*CONVOLUTIONS, nn.Linear)) or getattr(norm, "running_var", None) is None:
        return False
    layer.weight, layer.bias = (nn.Parameter(value) for value in folded_weights(layer, norm))
    _put(network, norm_name, _rest_of(norm))
    return True


def folded_weights(layer: nn.Module, norm: Any) -> tuple[Tensor, Tensor]:
    """Weights and bias of a convolution or linear layer with the normalisation that follows it inside."""
    weight = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    bias = torch.zeros_like(norm.running_var) if norm.bias is None else norm.bias
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    made = fuse(layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, weight, bias)  # type: ignore[arg-type]
    return made[0].detach(), made[1].detach()


def fold_sequences(network: nn.Module) -> int:
    """How many normalisations were folded that directly follow a layer in a sequence, in place; nothing is traced."""
    folded = 0
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place in range(len(sequence) - 1):
            layer, norm = sequence[place], sequence[place + 1]
            if isinstance(layer, (*CONVOLUTIONS, nn.Linear)) and isinstance(norm, NORMS):
                layer.weight, layer.bias = (nn.Parameter(value) for value in folded_weights(layer, norm))
                sequence[place + 1] = _rest_of(norm)
                folded += 1
    return folded


def _rest_of(norm: nn.Module) -> nn.Module:
    """What a normalisation does after it has normalised: nothing, or timm's dropout and activation."""
    rest = [getattr(norm, name) for name in ("drop", "act", "aa") if isinstance(getattr(norm, name, None), nn.Module)]
    rest = [module for module in rest if not isinstance(module, nn.Identity)]
    return rest[0] if len(rest) == 1 else nn.Sequential(*rest) if rest else nn.Identity()


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
