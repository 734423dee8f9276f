"""Which layers of a network are pruned, and how a mask or a kernel gets into them, for any network of torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from suites.pruning.examples import check_runs
from suites.pruning.kernels import Kernel, place
from suites.pruning.structures import Pattern

#: Layers whose weights are matrices or filters.
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def prunable(
    model: nn.Module,
    method: str,
    which: Callable[[str, nn.Module], bool] | None = None,
    wanted: str = "linear or convolutional layers",
) -> dict[str, nn.Module]:
    """Linear and convolutional layers by name, in the order of the network; tied weights are left out.

    Args:
        model: any network.
        method: for the message.
        which: of them; None for all.
        wanted: what they are, for the message.

    Raises:
        ValueError: there is none.
    """
    held = Counter(id(p) for part in model.modules() for p in part.parameters(recurse=False))
    found: dict[str, nn.Module] = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, WEIGHTED) and held[id(layer.weight)] == 1 and (which is None or which(name, layer))
    }
    if not found:
        others = [name for name, p in model.named_parameters() if p.ndim > 1][:3]
        told = f"; {', '.join(others)} are tied, or of other layers, or of none" if others else ""
        raise ValueError(f"{method}: {type(model).__name__} has no {wanted} with weights of their own{told}")
    return found


def weights_of(layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The weight of each layer, without its gradient."""
    return {name: layer.weight.detach() for name, layer in layers.items()}  # type: ignore[operator]


@torch.no_grad()
def write_zeros(layer: nn.Module, mask: Tensor) -> None:
    """Set what the mask drops to zero in the layer's own weight: the permanent form, no second tensor, no multiply."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if not weight.is_meta:
        weight.mul_(mask)


def install(model: nn.Module, patterns: Mapping[str, Pattern], kernel: Kernel) -> nn.Module:
    """The network whose named layers hold their patterns and run by the kernel.

    Counts are left on every layer as `weight_counts`, so that products are known dense, non-zero and executed also
    where the trace cannot see them. Layers that a kernel does not run (depthwise, grouped) keep zeros in a dense one.

    Raises:
        ValueError: the kernel does not run this structure, or none of the layers; or the network reads their weights
            itself.
    """
    replaced = False
    for name, pattern in patterns.items():
        layer = model.get_submodule(name)
        write_zeros(layer, pattern.mask)
        replacement = place(layer, pattern, kernel)
        _counted(replacement, pattern)
        if replacement is not layer:
            swap(model, name, replacement)
            replaced = True
    if kernel != "mask" and not replaced:
        raise ValueError(
            f"kernel={kernel!r} runs plain linear layers and ungrouped convolutions whose sides it takes, and none of "
            f"the {len(patterns)} pruned layers of {type(model).__name__} is one: take kernel='mask'"
        )
    if replaced:
        check_runs(model, kernel)
    model.kernel = kernel  # type: ignore[assignment]
    return model


def _counted(layer: nn.Module, pattern: Pattern) -> None:
    """Leave the three counts of a layer's weights on it."""
    dense = pattern.mask.numel()
    executed = getattr(layer, "executed_weights", dense)
    layer.weight_counts = {"dense": dense, "nonzero": pattern.count, "executed": executed}  # type: ignore[assignment]


def hold(layer: nn.Module, mask: Tensor) -> None:
    """Let no gradient reach dropped weights, for as long as the layer lives, and tell so beside its counts."""
    if hasattr(layer, "held"):
        layer.held = mask
    else:
        layer.register_buffer("held", mask, persistent=False)
        weight: nn.Parameter = layer.weight  # type: ignore[assignment]
        weight.register_hook(lambda gradient: gradient * layer.held)
    counts: dict[str, int] | None = getattr(layer, "weight_counts", None)
    if counts is not None:
        layer.weight_counts = {**counts, "trained": counts["nonzero"]}  # type: ignore[assignment]


def install_to_train(model: nn.Module, patterns: Mapping[str, Pattern], kernel: Kernel) -> nn.Module:
    """The same, and where masks run dense kernels no gradient reaches what they drop: it trains sparse.

    Raises:
        ValueError: as of `install`.
    """
    install(model, patterns, kernel)
    if kernel == "mask":
        for name, pattern in patterns.items():
            hold(model.get_submodule(name), pattern.mask)
    return model


def swap(model: nn.Module, name: str, replacement: nn.Module) -> None:
    """Put another module at a place of the network.

    Raises:
        ValueError: the network is that layer itself.
    """
    if not name:
        raise ValueError(f"the network itself is the {type(model).__name__} to be replaced: put it into a Sequential")
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, replacement)


def sparsity_of(model: nn.Module, names: Iterable[str]) -> float:
    """Share of zeros among the weights of named layers."""
    weights: list[Tensor] = [model.get_submodule(name).weight for name in names]  # type: ignore[misc]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)
