"""A chain of equal layers, the same chain again, and half of it: cases whose order no load may turn round."""

import torch
from torch import nn


class Chain(nn.Module):
    """Linear layers one after another; time is proportional to their number."""

    def __init__(self, depth, width):
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)))

    def example_inputs(self, batch):
        return torch.randn(batch, 64, self.width)

    def forward(self, tokens):
        return self.layers(tokens)


def chain(*, depth: int = 16, width: int = 256):
    return Chain(depth, width)


def same(model):
    return model


def half(model):
    model.layers = model.layers[: len(model.layers) // 2]
    return model
