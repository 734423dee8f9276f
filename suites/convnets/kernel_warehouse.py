"""KernelWarehouse: kernels put together for every image from small cells that all layers of a stage share.

Source: Li and Yao 2024, KernelWarehouse: Rethinking the Design of Dynamic Convolution, arXiv:2406.07879; section 3.
Which layers share a warehouse, the hidden width and the norm of the attention are those of the released networks. A
baseline of FDConv.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.feature_operator import FeatureOperator
from suites.common.timm_bridge import import_timm

#: The attention's hidden width is its input's over this, and no less than the second number.
REDUCTION, LEAST = 16, 16
#: Added to the sum of absolute scores, by which they are divided.
EPSILON = 1e-3
STAGES = 4


class Warehouse(nn.Module):
    """Cells [n, out, in] that several layers mix; each layer has some of them that are first its own."""

    def __init__(self, layers: list[nn.Conv2d], ratio: int):
        super().__init__()
        self.outputs = math.gcd(*(layer.out_channels for layer in layers))
        self.inputs = math.gcd(*(layer.in_channels for layer in layers))
        count = ratio * sum(self.mixtures(layer) for layer in layers)
        fan_out = self.outputs * max(math.prod(layer.kernel_size) for layer in layers)
        self.cells = nn.Parameter(torch.randn(count, self.outputs, self.inputs) * (2 / fan_out) ** 0.5)

    def mixtures(self, layer: nn.Conv2d) -> int:
        """Cells that a layer's kernel is cut into: tap by tap, and in blocks of channels."""
        blocks = (layer.out_channels // self.outputs) * (layer.in_channels // self.inputs)
        return blocks * math.prod(layer.kernel_size)


class CellAttention(nn.Module):
    """For every image and cell of a kernel a share of each cell of the warehouse, of either sign: [batch, m, n].

    Scores are divided by the sum of their absolute values, one score for no cell at all among them. While training
    begins, shares go over from `own` (each cell of the kernel is one of its layer's own) to what the scores say: at a
    temperature of one they are `own`, at zero, as deployed, the scores'.
    """

    own: Tensor

    def __init__(self, inputs: int, mixtures: int, cells: int, start: int, ratio: int):
        super().__init__()
        hidden = max(inputs // REDUCTION, LEAST)
        self.enter, self.norm = nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden)
        self.leave = nn.Linear(hidden, mixtures * (cells + 1))
        self.mixtures, self.temperature = mixtures, 0.0
        own = torch.zeros(mixtures, cells)
        places = torch.arange(mixtures)
        own[places, start + ratio * places] = 1.0
        self.register_buffer("own", own, persistent=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Of pooled features [batch, inputs]."""
        scores = self.leave(self.norm(self.enter(pooled)).relu()).unflatten(1, (self.mixtures, -1))
        shares = (scores / (scores.abs().sum(-1, keepdim=True) + EPSILON))[..., :-1]
        return (1 - self.temperature) * shares + self.temperature * self.own


class WarehouseConv(nn.Module):
    """A convolution whose kernel is assembled for every image; a batch runs as one convolution of as many groups."""

    def __init__(self, plain: nn.Conv2d, warehouse: Warehouse, start: int, ratio: int):
        """Take the place of a layer without bias and groups.

        Args:
            plain: the layer.
            warehouse: whose cells it mixes.
            start: the first of its own cells.
            ratio: of its own cells to those of its kernel.
        """
        super().__init__()
        self.inputs, self.outputs, self.kernel = plain.in_channels, plain.out_channels, plain.kernel_size
        self.stride, self.padding = plain.stride, plain.padding
        self.warehouse = warehouse
        mixtures = warehouse.mixtures(plain)
        self.attention = CellAttention(self.inputs, mixtures, len(warehouse.cells), start, ratio)

    def kernels(self, x: Tensor) -> Tensor:
        """Of every image, [batch, out, in, k, k]."""
        cells = self.warehouse.cells
        shares = self.attention(x.mean((2, 3)))
        mixed = (shares.flatten(0, 1) @ cells.flatten(1)).view(
            len(x), *self.kernel, self.outputs // cells.shape[1], self.inputs // cells.shape[2], *cells.shape[1:]
        )
        return mixed.permute(0, 3, 5, 4, 6, 1, 2).reshape(len(x), self.outputs, self.inputs, *self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, out, h, w]."""
        batch, inputs, height, width = x.shape
        kernels = self.kernels(x).flatten(0, 1)
        y = F.conv2d(
            x.reshape(1, batch * inputs, height, width), kernels, None, self.stride, self.padding, groups=batch
        )
        return y.view(batch, self.outputs, *y.shape[-2:])


def share_cells(network: nn.Module, names: list[str], ratio: int) -> None:
    """Put layers that share one warehouse in the places of named convolutions, in place."""
    layers = [network.get_submodule(name) for name in names]
    assert all(isinstance(layer, nn.Conv2d) for layer in layers)
    warehouse, start = Warehouse(layers, ratio), 0  # type: ignore[arg-type]
    for name, layer in zip(names, layers, strict=True):
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, WarehouseConv(layer, warehouse, start, ratio))  # type: ignore[arg-type]
        start += ratio * warehouse.mixtures(layer)  # type: ignore[arg-type]


def stages_of(network: nn.Module) -> list[list[str]]:
    """Names of the convolutions of a ResNet by warehouse.

    What enters a stage (its first layer and its shortcut) has the channels of the stage before it, and its cells. Of
    the first stage's first block a bottleneck's entrance stays plain, and so does a shortcut without a stride.
    """
    found: list[list[str]] = [[] for _ in range(STAGES)]
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d) or not name.startswith("layer"):
            continue
        stage, block, *rest = name.removeprefix("layer").split(".")
        enters = block == "0" and (rest[0] == "conv1" or rest[0] == "downsample")
        place = int(stage) - 1 - enters
        if place < 0 and layer.kernel_size == (1, 1):
            continue
        found[max(place, 0)].append(name)
    return found


def warehouse_resnet(*, depth: PositiveInt = 50, ratio: PositiveInt = 4, resolution: PositiveInt = 224) -> nn.Module:
    """A ResNet of timm with kernels from a warehouse a stage; its stem and head stay.

    Args:
        depth: 18, 26, 34, 50, 101 or 152.
        ratio: cells of a warehouse to cells of the kernels that are made of them.
        resolution: side of the input.

    Raises:
        UsageError: timm is missing or has no ResNet of that depth.
    """
    timm = import_timm()
    if not timm.is_model(f"resnet{depth}"):
        raise UsageError(f"warehouse_resnet: timm has no resnet{depth}; take 18, 26, 34, 50, 101 or 152")
    network = timm.create_model(f"resnet{depth}").eval()
    for names in stages_of(network):
        share_cells(network, names, ratio)
    return at(network, resolution)


def warehouse_layer(
    *, width: PositiveInt = 64, size: PositiveInt = 3, ratio: PositiveInt = 4, resolution: PositiveInt = 14
) -> FeatureOperator:
    """One layer with a warehouse of its own on [batch, width, resolution, resolution], beside sums cell by cell.

    Raises:
        UsageError: the kernel is even, or so small that it is one cell.
    """
    if size % 2 == 0 or size == 1:
        raise UsageError(
            f"warehouse_layer: size={size} must be odd and more than one, the cells of a kernel are its taps"
        )
    layer = nn.Conv2d(width, width, size, padding=size // 2, bias=False)
    made = WarehouseConv(layer, Warehouse([layer], ratio), 0, ratio)
    return FeatureOperator(made, (width, resolution, resolution), reference=_cell_by_cell, form="warehouse")


def _cell_by_cell(layer: nn.Module, x: Tensor) -> Tensor:
    """Every cell of the warehouse applied at every tap by itself, its share times what it gives, summed."""
    assert isinstance(layer, WarehouseConv)
    cells, (side, _) = layer.warehouse.cells, layer.kernel
    height, width = x.shape[-2:]
    padded = F.pad(x, [side // 2] * 4)
    shares = layer.attention(x.mean((2, 3)))
    total = x.new_zeros(len(x), layer.outputs, height, width)
    for tap in range(side * side):
        row, column = divmod(tap, side)
        seen = padded[:, :, row : row + height, column : column + width]
        for number, cell in enumerate(cells):
            given = torch.einsum("bihw,oi->bohw", seen, cell)
            total = total + given * shares[:, tap, number, None, None, None]
    return total
