"""The rows beside the systems: activations in place or not, batch norms folded, channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suites.common.folding import fold_batch_norms
from suites.tiny_memory.mcunetv2 import chain_net


def inplace(model: nn.Module, *, enabled: bool = True, fold: bool = False) -> nn.Module:
    """The network whose activations overwrite their inputs, or with `enabled=False` allocate outputs of their own.

    torchvision builds MobileNets in place already: there `enabled=False` is the row that differs.

    Args:
        model: a network with torch's activation modules.
        enabled: whether in place.
        fold: whether batch norms are folded first; one in evaluation allocates an output whatever follows it.

    Raises:
        ValueError: no activation in it can be in place.
    """
    if fold:
        fold_batch_norms(model)
    found = [part for part in model.modules() if isinstance(getattr(part, "inplace", None), bool)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no activation that could be in place")
    for part in found:
        part.inplace = enabled  # type: ignore[assignment]
    return model


def folded(model: nn.Module) -> nn.Module:
    """The network with batch norms folded into their convolutions, as engines deploy it.

    Raises:
        ValueError: it has none that could be folded.
    """
    if not fold_batch_norms(model):
        raise ValueError(f"{type(model).__name__} has no batch norm behind a convolution or linear layer")
    return model


class _ChannelsLast(nn.Module):
    """Convolutions on maps whose channels lie side by side."""

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        """Maps of the last layer, of pictures in any layout."""
        return self.features(images.contiguous(memory_format=torch.channels_last))


def channels_last(model: nn.Module) -> nn.Module:
    """The network in channels-last layout; a picture in another layout is copied first.

    Raises:
        ValueError: not a MobileNetV2 of this suite.
    """
    net = chain_net(model, "channels_last")
    net.net.features = _ChannelsLast(net.net.features.to(memory_format=torch.channels_last))
    return net
