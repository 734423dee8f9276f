"""Outlier channels planted in a network that computes the same as before: random and tiny networks have none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def scaled_channels(norm: Any, readers: list[nn.Linear], factors: Tensor) -> None:
    """Multiply a norm's channels and divide them out of the layers that read it; exact for powers of two.

    Args:
        norm: with a weight (and perhaps a bias), [channels].
        readers: linear layers whose input is the norm's output and nothing else.
        factors: of each channel.
    """
    with torch.no_grad():
        norm.weight.mul_(factors)
        if getattr(norm, "bias", None) is not None:
            norm.bias.mul_(factors)
        for layer in readers:
            layer.weight.div_(factors)


def pairs_of(model: Any) -> list[tuple[Any, list[nn.Linear]]]:
    """Norms of a decoder or a ViT and the linear layers that alone read them.

    Raises:
        ValueError: no such blocks.
    """
    found: list[tuple[Any, list[nn.Linear]]] = []
    for block in getattr(model, "blocks", []):
        attention = getattr(block, "attention", None) or getattr(block, "attn", None)
        network = getattr(block, "network", None) or getattr(block, "mlp", None)
        for norm, part, names in ((block.norm1, attention, ("q", "k", "v", "qkv")), (block.norm2, network, _NETWORK)):
            layers = [getattr(part, name) for name in names if isinstance(getattr(part, name, None), nn.Linear)]
            if layers and getattr(norm, "weight", None) is not None:
                found.append((norm, layers))
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no blocks with norms that linear layers read: no outliers to plant"
        )
    return found


_NETWORK = ("gate", "up", "fc1")


def plant(model: Any, channels: int, factor: float, seed: int = 0) -> Any:
    """The network with so many channels of every block's norms multiplied by a power of two near `factor`.

    The outputs are the same, bit for bit where sums are not reordered; activations have outliers.

    Args:
        model: a decoder or a ViT.
        channels: of each norm; 0 leaves the network.
        factor: of their values.
        seed: which channels.

    Raises:
        ValueError: a factor below 1.
    """
    if factor < 1:
        raise ValueError(f"factor={factor}: outliers are larger than other channels, so 1 or more")
    if channels == 0:
        return model
    power = 2.0 ** round(float(torch.log2(torch.tensor(factor))))
    generator = torch.Generator().manual_seed(seed)
    for norm, layers in pairs_of(model):
        pick = torch.randperm(len(norm.weight), generator=generator, device="cpu")[:channels]
        factors = torch.ones(len(norm.weight))
        factors[pick.to(factors.device)] = power
        scaled_channels(norm, layers, factors.to(norm.weight))
    return model
