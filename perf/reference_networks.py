"""Ten networks whose multiply-accumulates are known from a closed form, written down beside each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Reference:
    """A network, its inputs and its exact MACs for one forward of the whole batch; `form` says how they come about."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    macs: int
    form: str


# ---------------------------------------------------------------- vision transformers
class _Block(nn.Module):
    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def attention(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _NativeBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class _ViT(nn.Module):
    def __init__(self, width: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 16, 16)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 197, width))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


def _vit_macs(width: int) -> int:
    return 196 * width * 768 + 12 * (12 * 197 * width**2 + 2 * 197**2 * width) + 1000 * width


_VIT_FORM = "196 C 768 + 12 (12 N C^2 + 2 N^2 C) + 1000 C, N = 197"


# ---------------------------------------------------------------- convolutions
class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_unit(inputs, width, 1), nn.ReLU(), *_unit(width, width, 3, stride), nn.ReLU(), *_unit(width, 4 * width, 1)
        )
        same = inputs == 4 * width and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(*_unit(inputs, 4 * width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


_RESNET = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))


def _resnet() -> nn.Module:
    layers: list[nn.Module] = [*_unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for count, width, stride in _RESNET:
        for i in range(count):
            layers.append(_Bottleneck(inputs, width, stride if i == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def _resnet_macs() -> int:
    total, side, inputs = 112**2 * 64 * 3 * 49, 56, 64
    for count, width, stride in _RESNET:
        for i in range(count):
            step = stride if i == 0 else 1
            total += side**2 * inputs * width
            total += (side // step) ** 2 * (inputs * 4 * width if i == 0 else 0)
            side //= step
            total += side**2 * (9 * width**2 + 4 * width**2)
            inputs = 4 * width
    return total + 2048 * 1000


_MOBILE = ((16, 1, 16, 1), (16, 6, 24, 2), (24, 6, 24, 1), (24, 6, 40, 2), (40, 6, 80, 2), (80, 6, 112, 1))


def _mobile() -> nn.Module:
    layers: list[nn.Module] = [*_unit(3, 16, 3, 2), nn.ReLU6()]
    for inputs, factor, outputs, stride in _MOBILE:
        hidden = inputs * factor
        layers += [*_unit(inputs, hidden, 1), nn.ReLU6(), *_unit(hidden, hidden, 3, stride, hidden), nn.ReLU6()]
        layers += [*_unit(hidden, outputs, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(112, 1000))


def _mobile_macs() -> int:
    total, side = 112**2 * 16 * 27, 112
    for inputs, factor, outputs, stride in _MOBILE:
        hidden = inputs * factor
        total += side**2 * inputs * hidden
        side //= stride
        total += side**2 * (9 * hidden + hidden * outputs)
    return total + 112 * 1000


# ---------------------------------------------------------------- the rest
class _Filter(nn.Module):
    """Global filter layers: a Fourier transform over the grid, a product, the inverse, and a pointwise MLP."""

    def __init__(self, width: int, side: int, depth: int) -> None:
        super().__init__()
        self.filters = nn.ParameterList(
            torch.randn(width, side, side // 2 + 1, dtype=torch.cfloat) for _ in range(depth)
        )
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for weight, mix in zip(self.filters, self.mix, strict=True):
            x = x + mix(torch.fft.irfft2(torch.fft.rfft2(x) * weight, s=x.shape[-2:]))
        return x


class _Prototypes(nn.Module):
    """A metric head: features, distances to prototypes, and a bilinear score."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(512, 256)
        self.prototypes = nn.Parameter(torch.randn(400, 256))
        self.score = nn.Bilinear(256, 256, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        return torch.cdist(y, self.prototypes).sum() + self.score(y, y).sum()


class _SparseMLP(nn.Module):
    """A linear layer with a tenth of its weights, stored as CSR, and a dense one."""

    def __init__(self) -> None:
        super().__init__()
        dense = torch.zeros(1024, 512)
        dense.view(-1)[::10] = 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.weight = nn.Parameter(dense.to_sparse_csr(), requires_grad=False)
        self.out = nn.Linear(1024, 256)

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.weight @ x.t()).t())


def _int8_vit() -> nn.Module:
    network = _ViT(384, [_Block(384, 6, True) for _ in range(12)]).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)


def _image() -> tuple[Tensor]:
    return (torch.randn(1, 3, 224, 224),)


_STORED = (1024 * 512 + 9) // 10

REFERENCES: tuple[Reference, ...] = (
    Reference("ResNet-50", _resnet, _image, _resnet_macs(), "sum of H W K^2 Ci Co over convolutions + 2048 x 1000"),
    Reference("inverted residuals", _mobile, _image, _mobile_macs(), "likewise; 9 H W C for depthwise"),
    Reference(
        "DeiT-S, fused attention",
        lambda: _ViT(384, [_Block(384, 6, True) for _ in range(12)]),
        _image,
        _vit_macs(384),
        _VIT_FORM,
    ),
    Reference(
        "DeiT-S, explicit matmul",
        lambda: _ViT(384, [_Block(384, 6, False) for _ in range(12)]),
        _image,
        _vit_macs(384),
        _VIT_FORM,
    ),
    Reference(
        "ViT-B, nn.MultiheadAttention",
        lambda: _ViT(768, [_NativeBlock(768, 12) for _ in range(12)]),
        _image,
        _vit_macs(768),
        _VIT_FORM,
    ),
    Reference(
        "TransformerEncoder, fast path",
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True), 6),
        lambda: (torch.randn(2, 128, 256),),
        6 * 2 * (12 * 128 * 256**2 + 2 * 128**2 * 256),
        "6 B (12 N C^2 + 2 N^2 C)",
    ),
    Reference(
        "LSTM, 2 layers",
        lambda: nn.LSTM(256, 512, 2),
        lambda: (torch.randn(64, 4, 256),),
        64 * 4 * 4 * 512 * (256 + 512 + 512 + 512),
        "T B 4 H (I + H) per layer",
    ),
    Reference("DeiT-S, dynamic int8", _int8_vit, _image, _vit_macs(384), _VIT_FORM),
    Reference(
        "distances and bilinear",
        _Prototypes,
        lambda: (torch.randn(64, 512),),
        64 * 512 * 256 + 64 * 400 * 256 + 64 * 8 * 256 * 257,
        "R C P for distances; B O J (I + 1) for bilinear",
    ),
    Reference(
        "CSR-sparse linear",
        _SparseMLP,
        lambda: (torch.randn(32, 512),),
        32 * (_STORED + 1024 * 256),
        "stored values x rows",
    ),
    Reference(
        "Fourier filters",
        lambda: _Filter(64, 32, 4),
        lambda: (torch.randn(1, 64, 32, 32),),
        4 * (2 * 64 * round(1.25 * 1024 * 10) + 1024 * 64 * 64),
        "1.25 N log2 N per real transform (FLOPs 5 N log2 N / 2)",
    ),
)
