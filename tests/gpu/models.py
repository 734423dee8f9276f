"""Small networks for a GPU: a harmless one, one that waits for the device, one that fills it."""

import torch
from torch import nn


class Small(nn.Module):
    """Two convolutions and a mean over what is left."""

    resolution = 32

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GELU(), nn.Conv2d(16, 8, 3))

    def forward(self, images):
        return self.layers(images).mean((2, 3))


class Waiting(Small):
    """Looks at a value on the host, which no capture can do."""

    def forward(self, images):
        scores = super().forward(images)
        return scores[:, : 4 + int(scores.sum().item() > 1e9)]


class Filling(Small):
    """Asks for more memory than any device has."""

    def forward(self, images):
        return super().forward(images) + torch.empty(2**46, device=images.device)[0]


def small():
    return Small()


def waiting():
    return Waiting()


def filling():
    return Filling()


def filling_at_build():
    torch.empty(2**46, device="cuda")
    return Small()


def same(model):
    return model


def filling_later(model):
    """Fills the device after as many forwards as a probe makes."""
    original, calls = model.forward, [0]

    def forward(images):
        calls[0] += 1
        if calls[0] > 20:
            torch.empty(2**46, device=images.device)
        return original(images)

    model.forward = forward
    return model
