"""Operators of the bench that multiply: convolutions, products, fusions, pools, resizing, blocks of architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.initial import draw
from suites.ops.zoo import Entry, Spec
from suites.ops.zoo_pointwise import IMAGES, MANY_IMAGES


def _conv(function: Callable[..., Any], weights: Spec, small: Spec, full: Spec) -> Entry:
    return Entry("convolution", function, (small, weights), (full, weights), 1e-5)


class ConvBlock(nn.Module):
    """A residual block of two 3 x 3 convolutions."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, 1, 1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class InvertedResidual(nn.Module):
    """A mobile block: 1 x 1 to four times the width, depthwise 3 x 3, 1 x 1 back."""

    def __init__(self, width: int = 64):
        super().__init__()
        inner = 4 * width
        self.net = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.SiLU(),
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.SiLU(),
            nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return x + self.net(x)


class ConvNextBlock(nn.Module):
    """Depthwise 7 x 7, norm over channels, an MLP of four times the width."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.fc2(F.gelu(self.fc1(y))).permute(0, 3, 1, 2)


class Windows(nn.Module):
    """Attention within windows of 7 x 7 tokens with a learned bias."""

    def __init__(self, width: int = 96, heads: int = 3, window: int = 7):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.empty(heads, window**2, window**2))
        draw(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [batch, high, wide, width], both sides multiples of the window."""
        batch, high, wide, width = x.shape
        w = self.window
        tokens = x.unflatten(1, (high // w, w)).unflatten(3, (wide // w, w)).transpose(2, 3).reshape(-1, w * w, width)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.proj(F.scaled_dot_product_attention(q, k, v, self.bias.to(q.dtype)).transpose(1, 2).flatten(2))
        return y.reshape(batch, high // w, wide // w, w, w, width).transpose(2, 3).reshape(x.shape)


class MambaStep(nn.Module):
    """One step of a selective scan: h = exp(d A) h + d B x, y = C h, with d, B and C made of x."""

    def __init__(self, width: int = 512, state: int = 16):
        super().__init__()
        self.decay = nn.Parameter(torch.log(torch.arange(1, state + 1).float()).repeat(width, 1))
        self.step, self.both = nn.Linear(width, width), nn.Linear(width, 2 * state, bias=False)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [batch, width] and the new state [batch, width, state]."""
        d = F.softplus(self.step(x))[..., None]
        b, c = self.both(x).chunk(2, -1)
        new = torch.exp(-d * self.decay.exp()) * h + d * b[:, None] * x[..., None]
        return (new @ c[..., None]).squeeze(-1), new


def _encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)


def conv_bn_relu(x: Tensor, w: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Convolution, batch norm, ReLU."""
    return F.relu(F.batch_norm(F.conv2d(x, w, padding=1), mean, variance + 0.5))


def conv_pool_sigmoid(x: Tensor, w: Tensor) -> Tensor:
    """Convolution, max pool, sigmoid."""
    return F.max_pool2d(F.conv2d(x, w, padding=1), 2).sigmoid()


def residual_norm(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """A residual addition and a layer norm."""
    return F.layer_norm(x + y, (x.shape[-1],), w)


def grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples at places in -1..1."""
    return F.grid_sample(x, 2 * grid - 1, align_corners=False)


def int8_product(x: Tensor, y: Tensor) -> Tensor:
    """A product of int8 matrices in int32; of doubles in the reference."""
    return torch._int_mm(x, y) if x.dtype is torch.int8 else x @ y


FILTERS = ("n", 64, 64, 3, 3)

ENTRIES: dict[str, Entry] = {
    "conv1d": _conv(
        lambda x, w: F.conv1d(x, w, padding=2), ("n", 128, 64, 5), ("n", 8, 64, 1024), ("n", 128, 64, 16384)
    ),
    "conv2d": _conv(lambda x, w: F.conv2d(x, w, padding=1), FILTERS, IMAGES, ("n", 128, 64, 112, 112)),
    "depthwise": _conv(
        lambda x, w: F.conv2d(x, w, padding=1, groups=64), ("n", 64, 1, 3, 3), IMAGES, ("n", 128, 64, 112, 112)
    ),
    "grouped": _conv(
        lambda x, w: F.conv2d(x, w, padding=1, groups=8), ("n", 64, 8, 3, 3), IMAGES, ("n", 128, 64, 112, 112)
    ),
    "dilated": _conv(lambda x, w: F.conv2d(x, w, padding=2, dilation=2), FILTERS, IMAGES, ("n", 128, 64, 112, 112)),
    "transposed": _conv(
        lambda x, w: F.conv_transpose2d(x, w, stride=2),
        ("n", 64, 32, 2, 2),
        ("n", 8, 64, 28, 28),
        ("n", 128, 64, 112, 112),
    ),
    "conv3d": _conv(
        lambda x, w: F.conv3d(x, w, padding=1),
        ("n", 32, 16, 3, 3, 3),
        ("n", 2, 16, 16, 16, 16),
        ("n", 16, 16, 64, 64, 64),
    ),
    "square": Entry("matmul", torch.matmul, (("n", 512, 512), ("n", 512, 512)), (("n", 8192, 8192), ("n", 8192, 8192))),
    "tall": Entry("matmul", torch.matmul, (("n", 8192, 64), ("n", 64, 64)), (("n", 262144, 256), ("n", 256, 256))),
    "batched": Entry(
        "matmul", torch.bmm, (("n", 32, 128, 64), ("n", 32, 64, 128)), (("n", 512, 512, 128), ("n", 512, 128, 512))
    ),
    "triangular": Entry(
        "matmul", lambda x, y: x.tril() @ y, (("n", 512, 512), ("n", 512, 256)), (("n", 8192, 8192), ("n", 8192, 4096))
    ),
    "int8": Entry(
        "matmul", int8_product, (("i8", 512, 512), ("i8", 512, 512)), (("i8", 8192, 8192), ("i8", 8192, 8192))
    ),
    "matvec": Entry("matmul", torch.mv, (("n", 2048, 2048), ("n", 2048)), (("n", 16384, 16384), ("n", 16384))),
    "conv_bn_relu": Entry(
        "fuse",
        conv_bn_relu,
        (IMAGES, FILTERS, ("n", 64), ("u", 64)),
        (("n", 128, 64, 112, 112), FILTERS, ("n", 64), ("u", 64)),
    ),
    "linear_gelu": Entry(
        "fuse",
        lambda x, w, b: F.gelu(F.linear(x, w, b)),
        (("n", 512, 256), ("n", 1024, 256), ("n", 1024)),
        (("n", 32768, 1024), ("n", 4096, 1024), ("n", 4096)),
    ),
    "matmul_bias_softmax": Entry(
        "fuse",
        lambda x, y, b: (0.1 * (x @ y) + b).softmax(-1),
        (("n", 8, 256, 64), ("n", 8, 64, 256), ("n", 256)),
        (("n", 256, 1024, 64), ("n", 256, 64, 1024), ("n", 1024)),
        1e-4,
    ),
    "residual_norm": Entry(
        "fuse",
        residual_norm,
        (("n", 512, 768), ("n", 512, 768), ("n", 768)),
        (("n", 65536, 1024), ("n", 65536, 1024), ("n", 1024)),
        1e-4,
    ),
    "conv_pool_sigmoid": Entry("fuse", conv_pool_sigmoid, (IMAGES, FILTERS), (("n", 128, 64, 112, 112), FILTERS), 1e-4),
    "max_pool": Entry("pooling", lambda x: F.max_pool2d(x, 3, 2, 1), (IMAGES,), (MANY_IMAGES,)),
    "avg_pool": Entry("pooling", lambda x: F.avg_pool2d(x, 3, 2, 1), (IMAGES,), (MANY_IMAGES,)),
    "adaptive_pool": Entry("pooling", lambda x: F.adaptive_avg_pool2d(x, 7), (IMAGES,), (MANY_IMAGES,), 1e-4),
    "max_pool3d": Entry(
        "pooling", lambda x: F.max_pool3d(x, 2), (("n", 2, 16, 32, 32, 32),), (("n", 16, 32, 64, 64, 64),)
    ),
    "nearest": Entry("resize", lambda x: F.interpolate(x, scale_factor=2.0), (IMAGES,), (MANY_IMAGES,)),
    "bilinear": Entry(
        "resize", lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), (IMAGES,), (MANY_IMAGES,)
    ),
    "bicubic": Entry(
        "resize", lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"), (("n", 4, 16, 56, 56),), (MANY_IMAGES,)
    ),
    "trilinear": Entry(
        "resize",
        lambda x: F.interpolate(x, scale_factor=2.0, mode="trilinear"),
        (("n", 2, 8, 16, 16, 16),),
        (("n", 8, 32, 64, 64, 64),),
    ),
    "grid_sample": Entry(
        "resize",
        grid_sample,
        (("n", 4, 32, 56, 56), ("u", 4, 56, 56, 2)),
        (("n", 64, 64, 112, 112), ("u", 64, 112, 112, 2)),
        1e-4,
    ),
    "resnet_block": Entry("architecture", ConvBlock, (("n", 4, 64, 28, 28),), (("n", 128, 64, 56, 56),), 1e-4, True),
    "mbconv_block": Entry(
        "architecture", InvertedResidual, (("n", 4, 64, 28, 28),), (("n", 128, 64, 56, 56),), 1e-4, True
    ),
    "convnext_block": Entry(
        "architecture", ConvNextBlock, (("n", 4, 64, 28, 28),), (("n", 128, 64, 56, 56),), 1e-4, True
    ),
    "encoder_layer": Entry("architecture", _encoder, (("n", 4, 128, 256),), (("n", 64, 1024, 256),), 1e-4, True),
    "lstm_cell": Entry(
        "architecture", lambda: nn.LSTMCell(256, 256), (("n", 64, 256),), (("n", 4096, 256),), 1e-4, True
    ),
    "swin_window": Entry("architecture", Windows, (("n", 2, 28, 28, 96),), (("n", 64, 56, 56, 96),), 1e-4, True),
    "mamba_step": Entry(
        "architecture",
        MambaStep,
        (("n", 32, 512), ("n", 32, 512, 16)),
        (("n", 1024, 512), ("n", 1024, 512, 16)),
        1e-4,
        True,
    ),
}
