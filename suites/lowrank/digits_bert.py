"""BERT's layers over patches of digits, small enough to learn in a minute (layer: Devlin et al. 2019, 1810.04805)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.bert import EPS, BertLayer
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES
from suites.common.initial import draw

__all__ = ["DigitsBert", "digits_bert", "layers_of", "load_checkpoint"]


class DigitsBert(nn.Module):
    """Patches of a digit, BERT's layers, the mean of the tokens, ten logits."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int, patch: int, resolution: int):
        super().__init__()
        self.resolution, self.channels, self.classes, self.width = resolution, 1, CLASSES, width
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.places = nn.Parameter(torch.zeros((resolution // patch) ** 2, width))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.blocks: Any = nn.ModuleList(BertLayer(width, heads, width // heads, hidden) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw(module.weight)
                nn.init.zeros_(module.bias)
        draw(self.places)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        x = self.norm(self.patches(images).flatten(2).mT + self.places)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        like = self.head.weight
        return (torch.randn(batch, 1, self.resolution, self.resolution, device=like.device).to(like.dtype),)


def digits_bert(
    *, width: PositiveInt = 64, heads: PositiveInt = 4, hidden: PositiveInt = 256, layers: PositiveInt = 3,
    patch: PositiveInt = 4, resolution: PositiveInt = 16,
) -> DigitsBert:  # fmt: skip
    """BERT's layers over patches of a digit in evaluation mode.

    Args:
        width: features of a token.
        heads: of every layer.
        hidden: of every network.
        layers: how many.
        patch: side of a patch in pixels.
        resolution: side of the picture in pixels.

    Raises:
        ValueError: the heads do not divide the width, or the patches the picture.
    """
    if width % heads:
        raise ValueError(f"heads={heads} does not divide width={width}: choose a divisor")
    if resolution % patch:
        raise ValueError(f"patch={patch} does not divide resolution={resolution}")
    return DigitsBert(width, heads, hidden, layers, patch, resolution).eval()


def layers_of(model: nn.Module) -> list[BertLayer]:
    """The BERT layers of a model, from input to output.

    Raises:
        ValueError: it has none.
    """
    layers = [module for module in model.modules() if isinstance(module, BertLayer)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BERT layers: take bert_base or digits_bert")
    return layers
