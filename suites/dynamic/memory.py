"""Keys by which a cascade remembers pictures, and the memory itself (Dual Complementary CNNs, arXiv 2412.01039)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Parts of a moment's fraction that are told apart.
FRACTIONS = 2**20


def dhash(images: Tensor) -> Tensor:
    """64 bits of each image, [batch] int64: grey, averaged to 8 x 9, whether a pixel exceeds its left neighbour."""
    small = F.interpolate(images.float().mean(dim=1, keepdim=True), size=(8, 9), mode="area")[:, 0]
    bits = (small[:, :, 1:] > small[:, :, :-1]).flatten(1).long()
    return (bits << torch.arange(64, device=bits.device)).sum(dim=1)


def moments(images: Tensor) -> Tensor:
    """The fraction of |c_21|^2 of each image, [batch] int64: a complex moment of order 3, the same for turned images.

    c_21 is the sum of r^2 (x + i y) f about the centre of mass over the mass^2.5; f starts at the image's minimum.
    """
    grey = images.double().mean(dim=1)
    f = grey - grey.amin(dim=(1, 2), keepdim=True)
    mass = f.sum(dim=(1, 2)).clamp(min=1e-9)
    side = torch.arange(grey.shape[-1], device=grey.device, dtype=torch.double)
    down = torch.arange(grey.shape[-2], device=grey.device, dtype=torch.double)
    x = side - ((f * side).sum(dim=(1, 2)) / mass)[:, None]
    y = down - ((f * down[:, None]).sum(dim=(1, 2)) / mass)[:, None]
    weighted = f * (x.square()[:, None] + y.square()[:, :, None])
    real = (weighted * x[:, None]).sum(dim=(1, 2)) / mass**2.5
    imaginary = (weighted * y[:, :, None]).sum(dim=(1, 2)) / mass**2.5
    invariant = 1e4 * (real.square() + imaginary.square())
    return ((invariant % 1) * FRACTIONS).round().long()


KEYS = {"dhash": dhash, "moments": moments}


class Memory(nn.Module):
    """Answers by exact key; it is filled beforehand, so that a forward changes nothing and can be repeated."""

    charged_to = "method"
    keys: Tensor
    values: Tensor

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.register_buffer("keys", torch.empty(0, dtype=torch.long))
        self.register_buffer("values", torch.empty(0, dtype=torch.long))

    def fill(self, images: Tensor, classes: Tensor) -> None:
        """Remember the classes [n] of images; of several with one key the first stays."""
        keys = KEYS[self.kind](images)
        order = torch.argsort(keys, stable=True)
        keys, classes = keys[order], classes[order]
        first = torch.ones_like(keys, dtype=torch.bool)
        first[1:] = keys[1:] != keys[:-1]
        self.keys, self.values = keys[first], classes[first]

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each image's key is known, and its class where it is, both [batch]."""
        asked = KEYS[self.kind](images)
        if not len(self.keys):
            return torch.zeros_like(asked, dtype=torch.bool), torch.zeros_like(asked)
        place = torch.searchsorted(self.keys, asked).clamp(max=len(self.keys) - 1)
        return self.keys[place] == asked, self.values[place]

    @property
    def bytes(self) -> int:
        """Bytes of keys and classes."""
        return self.keys.numel() * 8 + self.values.numel() * 8
