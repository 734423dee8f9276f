"""Small networks with known counts, and networks that lie about their cost."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A pre-norm transformer block with fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attention(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class TinyViT(nn.Module):
    """DeiT's shape at any width, heads, depth, patch and resolution."""

    def __init__(self, width: int, heads: int, depth: int, patch: int = 16, resolution: int = 224) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (resolution // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image).flatten(2).mT
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class MaskedTokens(nn.Module):
    """Claims to prune tokens but only multiplies them by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(32, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](x)
        keep = torch.arange(x.shape[1]) < x.shape[1] // 2
        return self.blocks[1](x * keep[None, :, None])


class PrunedByContent(nn.Module):
    """Keeps the tokens whose first channel is positive: the cost depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x[:, x[0, :, 0] > 0])


class InNumpy(nn.Module):
    """Does its matrix product outside torch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        outside = np.asarray(self.inner(x)) @ np.ones((8, 4), dtype=np.float32)
        return torch.from_numpy(outside)


class SlowPython(nn.Module):
    """Spends processor time in plain Python, where no operator is seen."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        total = 0
        for i in range(self.rounds):
            total += i * i
        return self.inner(x) + (total & 1)
