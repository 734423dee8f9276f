"""Small blocks with closed-form MACs that the installed torch must count right before any count is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Block = Callable[[], tuple[nn.Module, tuple[Any, ...], int]]


class _Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)


class _Products(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.einsum("bij,bkj->bik", left, right) + left @ right.mT


def convolution() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Grouped and strided: 2 x 6 x (8 x 8) outputs x (2 x 3 x 3) taps."""
    return nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (torch.zeros(2, 4, 16, 16),), 2 * 6 * 64 * 18


def transposed() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Transposed: 1 x 3 x (5 x 5) inputs x (4 x 2 x 2) taps."""
    return nn.ConvTranspose2d(3, 4, 2, stride=2), (torch.zeros(1, 3, 5, 5),), 75 * 16


def linear() -> tuple[nn.Module, tuple[Any, ...], int]:
    """10 rows of 7 by 7 x 5."""
    return nn.Linear(7, 5), (torch.zeros(2, 5, 7),), 10 * 35


def products() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Two batched products of 2 x (3 x 5) x 4."""
    return _Products(), (torch.zeros(2, 3, 5), torch.zeros(2, 4, 5)), 2 * 2 * 3 * 5 * 4


def attention() -> tuple[nn.Module, tuple[Any, ...], int]:
    """2 x 3 heads, 5 queries, 7 keys, width 4 + 4."""
    query, key = torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 7, 4)
    return _Attention(False), (query, key, key), 6 * 5 * 7 * 8


def causal_attention() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Causal attention in full: 2 heads, 6 x 6 scores, width 4 + 4."""
    tokens = torch.zeros(1, 2, 6, 4)
    return _Attention(True), (tokens, tokens, tokens), 2 * 36 * 8


def recurrent() -> tuple[nn.Module, tuple[Any, ...], int]:
    """LSTM: 4 steps x 2 sequences x 4 gates x 3 x (5 + 3)."""
    return nn.LSTM(5, 3), (torch.zeros(4, 2, 5),), 8 * 4 * 3 * 8


def encoder() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Transformer layer: 2 x 5 tokens x (4 d^2 + 2 d f) + 2 x 2 x 5^2 d, for d = 8 and f = 16."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    return layer, (torch.zeros(2, 5, 8),), 10 * (4 * 64 + 2 * 128) + 2 * 2 * 25 * 8


BLOCKS: tuple[Block, ...] = (convolution, transposed, linear, products, attention, causal_attention, recurrent, encoder)
