"""FDConv: weights kept as Fourier coefficients, cut by frequency into groups that are mixed anew for every image.

Source: Chen et al. 2025, Frequency Dynamic Convolution, arXiv:2503.18783; section 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Blocks, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.feature_operator import FeatureOperator
from suites.common.timm_bridge import import_timm

#: Groups of coefficients, and so kernels that are mixed.
KERNELS = 64
#: Channels below which a layer stays plain.
SMALLEST = 16
#: Cuts of the bands of features, as shares of the sampling rate.
BANDS = (1 / 2, 1 / 4, 1 / 8)


class StarReLU(nn.Module):
    """s max(x, 0)^2 + b (Yu et al. 2022, arXiv:2210.13452)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.scale * x.relu().square() + self.shift


def taps_of(channels: int) -> int:
    """Taps of the 1-D layer over channels, as in ECA-Net: odd, growing with the logarithm."""
    return 2 * (round(math.log2(channels) / 2 + 1 / 2) // 2) + 1


class Gates(nn.Module):
    """Factors for input channels, filters and taps, and shares of the 64 kernels, all from pooled features."""

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__()
        hidden = max(inputs // 16, 16)
        self.enter = nn.Linear(inputs, hidden, bias=False)
        self.norm, self.act = nn.BatchNorm1d(hidden), StarReLU()
        self.inputs, self.outputs = nn.Linear(hidden, inputs), nn.Linear(hidden, outputs)
        self.taps = nn.Linear(hidden, size * size) if size > 1 else None
        self.kernels = nn.Linear(hidden, KERNELS)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """[batch, inputs], [batch, outputs], [batch, k k] or None, [batch, 64]; around 1, 1, 1, and a share."""
        y = self.act(self.norm(self.enter(pooled)))
        taps = None if self.taps is None else 2 * self.taps(y).sigmoid()
        return 2 * self.inputs(y).sigmoid(), 2 * self.outputs(y).sigmoid(), taps, 2 * self.kernels(y).sigmoid()


class LocalGates(nn.Module):
    """A factor for every weight of filter and tap along channels: normalised pooled features, a 1-D layer."""

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__()
        self.shape = (outputs, size, size)
        self.norm = nn.LayerNorm(inputs)
        taps = taps_of(inputs)
        self.layer = nn.Conv1d(1, outputs * size * size, taps, padding=taps // 2, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """[batch, outputs, inputs, k, k]."""
        made = self.layer(self.norm(pooled).unsqueeze(1)).sigmoid() * 2
        return made.unflatten(1, self.shape).movedim(-1, 2)


class BandGates(nn.Module):
    """Features cut into frequency bands, each weighed place by place; the lowest is taken as it is."""

    def __init__(self, channels: int):
        super().__init__()
        self.weights = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for _ in BANDS)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        spectrum = torch.fft.rfft2(x.float(), norm="ortho")
        height, width = x.shape[-2:]
        rows = torch.fft.fftfreq(height, device=x.device).abs().view(-1, 1)
        columns = torch.fft.rfftfreq(width, device=x.device).view(1, -1)
        radius = torch.maximum(rows.expand(-1, columns.shape[1]), columns.expand(height, -1))
        above, total = x, torch.zeros_like(x)
        for layer, cut in zip(self.weights, BANDS, strict=True):
            low = torch.fft.irfft2(spectrum * (radius < cut / 2), s=(height, width), norm="ortho").to(x.dtype)
            total = total + (above - low) * (2 * layer(x).sigmoid())
            above = low
        return total + above


class FrequencyDynamic(nn.Module):
    """A convolution whose kernel is put together for every image; a batch runs as one convolution of as many groups."""

    groups: Tensor

    def __init__(self, plain: nn.Conv2d):
        super().__init__()
        self.plain_shape = tuple(plain.weight.shape)
        self.stride, self.padding, self.dilation = plain.stride, plain.padding, plain.dilation
        outputs, inputs, size, _ = self.plain_shape
        spectrum = torch.fft.rfft2(self._matrix(plain.weight.detach()), norm="ortho")
        self.coefficients = nn.Parameter(torch.view_as_real(spectrum).clone())
        self.register_buffer("groups", _groups(outputs * size, inputs * size), persistent=False)
        self.bias = plain.bias
        self.gates = Gates(inputs, outputs, size)
        self.local = LocalGates(inputs, outputs, size)
        self.bands = BandGates(inputs) if size == 3 else None

    @staticmethod
    def _matrix(weight: Tensor) -> Tensor:
        outputs, inputs, size, _ = weight.shape
        return weight.permute(0, 2, 1, 3).reshape(outputs * size, inputs * size)

    def kernels(self, shares: Tensor) -> Tensor:
        """The mixed kernel of every image, [batch, out, in, k, k], by one transform: shares [batch, 64]."""
        outputs, inputs, size, _ = self.plain_shape
        spectrum = torch.view_as_complex(self.coefficients.float()) * shares.float()[:, self.groups]
        matrix = torch.fft.irfft2(spectrum, s=(outputs * size, inputs * size), norm="ortho").to(shares.dtype)
        return matrix.view(-1, outputs, size, inputs, size).transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, out, h, w]."""
        batch, inputs, height, width = x.shape
        outputs = self.plain_shape[0]
        pooled = x.mean((2, 3))
        of_inputs, of_outputs, taps, shares = self.gates(pooled)
        kernel = self.kernels(shares) * self.local(pooled)
        if taps is not None:
            kernel = kernel * taps.view(batch, 1, 1, *self.plain_shape[2:])
        y = (x if self.bands is None else self.bands(x)) * of_inputs[:, :, None, None]
        y = F.conv2d(
            y.reshape(1, batch * inputs, height, width), kernel.flatten(0, 1), None, self.stride, self.padding,
            self.dilation, groups=batch,
        )  # fmt: skip
        y = y.view(batch, outputs, *y.shape[-2:]) * of_outputs[:, :, None, None]
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


def _groups(rows: int, columns: int) -> Tensor:
    """For each coefficient the number of its group: sorted by radius, cut into 64 of as equal a size as can be."""
    frequencies = torch.fft.fftfreq(rows).view(-1, 1).square() + torch.fft.rfftfreq(columns).square()
    order = frequencies.flatten().argsort(stable=True)
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(len(order)) * KERNELS // len(order)
    return numbers.view(rows, -1)


def extra_parameters(inputs: int, outputs: int, size: int) -> int:
    """Parameters of a layer beyond those of the plain one (without bias): the closed form."""
    hidden, square = max(inputs // 16, 16), size * size
    gates = inputs * hidden + 2 * hidden + 2 + hidden * inputs + inputs + hidden * outputs + outputs
    gates += (hidden * square + square if size > 1 else 0) + hidden * KERNELS + KERNELS
    local = outputs * square * taps_of(inputs) + 2 * inputs
    bands = len(BANDS) * (9 * inputs + 1) if size == 3 else 0
    spectrum = 2 * outputs * size * (inputs * size // 2 + 1) - outputs * inputs * square
    return gates + local + bands + spectrum


def make_dynamic(network: nn.Module) -> int:
    """How many 1x1 and 3x3 layers were made dynamic, in place.

    Grouped ones, those of few channels and shortcuts stay.
    """
    made = 0
    for name, layer in list(network.named_modules()):
        if not isinstance(layer, nn.Conv2d) or layer.groups > 1 or layer.kernel_size not in ((1, 1), (3, 3)):
            continue
        if min(layer.in_channels, layer.out_channels) <= SMALLEST or "downsample" in name:
            continue
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, FrequencyDynamic(layer))
        made += 1
    return made


def fdconv_resnet(
    *,
    depth: PositiveInt = 50,
    stages: Blocks = [1, 2, 3, 4],  # noqa: B006
    resolution: PositiveInt = 224,
) -> nn.Module:
    """A ResNet of timm with frequency dynamic layers in place of all 1x1 and 3x3 ones but the shortcuts'.

    Args:
        depth: 18, 26, 34, 50, 101 or 152.
        stages: those that are changed.
        resolution: side of the input.

    Raises:
        UsageError: timm is missing or has no ResNet of that depth, or a stage is none of its four.
    """
    timm = import_timm()
    if not timm.is_model(f"resnet{depth}"):
        raise UsageError(f"fdconv_resnet: timm has no resnet{depth}; take 18, 26, 34, 50, 101 or 152")
    if max(stages) > 4:
        raise UsageError(f"fdconv_resnet: stages={stages} must be among 1 to 4")
    network = timm.create_model(f"resnet{depth}").eval()
    for stage in stages:
        make_dynamic(getattr(network, f"layer{stage}"))
    return at(network, resolution)


def fdconv_layer(
    *, width: PositiveInt = 64, size: PositiveInt = 3, resolution: PositiveInt = 14, plain: bool = False
) -> FeatureOperator:
    """One layer as an operator on [batch, width, resolution, resolution], beside a sum of 64 kernels image by image.

    Raises:
        UsageError: the kernel is neither 1 nor 3, or the layer has too few channels.
    """
    if size not in (1, 3) or width <= SMALLEST:
        raise UsageError(f"fdconv_layer: size={size}, width={width}: layers are 1x1 or 3x3 and wider than {SMALLEST}")
    layer = nn.Conv2d(width, width, size, padding=size // 2, bias=False)
    feature = (width, resolution, resolution)
    if plain:
        return FeatureOperator(layer, feature, form="plain")
    return FeatureOperator(FrequencyDynamic(layer), feature, reference=_image_by_image, tolerance=1e-4, form="dynamic")


def _image_by_image(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer with every basis kernel transformed by itself."""
    assert isinstance(layer, FrequencyDynamic)
    outputs, inputs, size, _ = layer.plain_shape
    spectrum = torch.view_as_complex(layer.coefficients)
    basis = [
        torch.fft.irfft2(spectrum * (layer.groups == number), s=(outputs * size, inputs * size), norm="ortho")
        for number in range(KERNELS)
    ]
    done = []
    for image in x.split(1):
        pooled = image.mean((2, 3))
        of_inputs, of_outputs, taps, shares = layer.gates(pooled)
        matrix = sum(share * kernel for share, kernel in zip(shares[0], basis, strict=True))
        assert isinstance(matrix, Tensor)
        kernel = matrix.view(outputs, size, inputs, size).transpose(1, 2) * layer.local(pooled)[0]
        kernel = kernel if taps is None else kernel * taps.view(size, size)
        y = image if layer.bands is None else layer.bands(image)
        kernel = kernel * of_inputs.view(1, -1, 1, 1) * of_outputs.view(-1, 1, 1, 1)
        done.append(F.conv2d(y, kernel, layer.bias, layer.stride, layer.padding))
    return torch.cat(done)
