"""DeH4R: a road graph from one encoding, with the neighbours of all vertices decoded at once.

Source: arXiv:2508.13669, section 3. The decoder is exact; the encoder here is a small one, streets are a generated
grid, and the growing baseline (a crop encoded for every vertex, one after the other) is rebuilt.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Count, PositiveInt
from bench.errors import UsageError
from suites.common.timm_bridge import import_timm

FEATURES, WIDTH, HEADS, HIDDEN, LAYERS, QUERIES = 256, 128, 8, 256, 3, 10
#: A query's numbers: two logits (neighbour or none) and an offset.
NUMBERS = 4
#: Side of the window of samples around a vertex.
WINDOW = 3
STRIDE = 8


class NeighbourDecoder(nn.Module):
    """Ten queries on the nine samples around each vertex: [vertices, 10, 4].

    631,044 parameters, 6,245,888 MACs a vertex.
    """

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Linear(FEATURES, WIDTH)
        self.queries = nn.Parameter(torch.randn(QUERIES, WIDTH) * 0.02)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        self.leave = nn.Linear(WIDTH, NUMBERS)

    def forward(self, samples: Tensor) -> Tensor:
        """Of samples [vertices, 9, 256]."""
        memory = self.narrow(samples)
        x = self.queries.expand(len(samples), -1, -1)
        for layer in self.layers:
            x = layer(x, memory)
        return self.leave(x)


class _Layer(nn.Module):
    """Attention among queries, attention to samples, a feed-forward layer, each with a norm behind."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other = _Attention(), _Attention()
        self.feed = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.norms[0](x + self.own(x, x))
        x = self.norms[1](x + self.other(x, memory))
        return self.norms[2](x + self.feed(x))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.leave = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        parts = (self.q(x), self.k(memory), self.v(memory))
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(-3, -2) for y in parts)
        return self.leave(F.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2))


def street_grid(count: int) -> Tensor:
    """Crossings of a grid of streets, [count, 2], in -0.8 to 0.8 of the picture.

    Rows of as equal a length as can be.
    """
    side = max(1, round(count**0.5))
    columns = -(-count // side)
    rows = [((place // columns + 0.5) / side, (place % columns + 0.5) / columns) for place in range(count)]
    return torch.tensor([[1.6 * column - 0.8, 1.6 * row - 0.8] for row, column in rows])


class RoadGraph(nn.Module):
    """Pictures [batch, 3, side, side] to neighbours of each vertex, [batch, vertices, 10, 4], after some rounds.

    A round moves every vertex to its likeliest neighbour. `batched` encodes once and decodes all vertices of a round
    at once, `sequential` one after the other, `grow` encodes a crop around every vertex for itself.
    """

    start: Tensor

    def __init__(self, form: str, vertices: int, rounds: int, side: int):
        super().__init__()
        network = import_timm().create_model("resnet18")
        self.encoder = nn.Sequential(
            network.conv1,
            network.bn1,
            network.act1,
            network.maxpool,
            network.layer1,
            network.layer2,
            nn.Conv2d(128, FEATURES, 1),
        )
        self.decoder = NeighbourDecoder()
        self.form, self.rounds, self.side = form, rounds, side
        self.resolution = side
        self.register_buffer("start", street_grid(vertices), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        places = self.start.to(pictures.dtype).expand(len(pictures), -1, -1)
        maps = None if self.form == "grow" else self.encoder(pictures)
        found = self._round(pictures, maps, places)
        for _ in range(self.rounds):
            places = self._next(places, found)
            found = self._round(pictures, maps, places)
        return found

    def _round(self, pictures: Tensor, maps: Tensor | None, places: Tensor) -> Tensor:
        """Neighbours of all vertices at `places`."""
        if maps is not None and self.form == "batched":
            return self.decoder(window(maps, places).flatten(0, 1)).unflatten(0, places.shape[:2])
        each = []
        for number in range(places.shape[1]):
            place = places[:, number : number + 1]
            if maps is None:
                own = self.encoder(crop(pictures, place))
                samples = window(own, torch.zeros_like(place))
            else:
                samples = window(maps, place)
            each.append(self.decoder(samples.flatten(0, 1)))
        return torch.stack(each, 1)

    @staticmethod
    def _next(places: Tensor, found: Tensor) -> Tensor:
        best = (found[..., 0] - found[..., 1]).argmax(-1)
        offset = found[..., 2:].gather(2, best[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)
        return (places + 0.1 * offset.tanh()).clamp(-0.9, 0.9)


def window(maps: Tensor, places: Tensor) -> Tensor:
    """The 3x3 samples around each place, one pixel of the map apart: [batch, vertices, 9, channels]."""
    size = maps.shape[-1]
    step = (torch.arange(WINDOW, device=maps.device, dtype=maps.dtype) - WINDOW // 2) * 2 / size
    around = torch.cartesian_prod(step, step).flip(-1)
    grid = places[:, :, None] + around
    return F.grid_sample(maps, grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def crop(pictures: Tensor, place: Tensor) -> Tensor:
    """A picture of the same size around one place, [batch, 1, 2], zeros outside: what a growing method looks at."""
    side = pictures.shape[-1]
    line = (torch.arange(side, device=pictures.device, dtype=pictures.dtype) + 0.5) * 2 / side - 1
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1) + place[:, :, None]
    return F.grid_sample(pictures, grid, mode="bilinear", align_corners=False)


def deh4r(
    *, form: Literal["batched", "sequential", "grow"] = "batched", vertices: PositiveInt = 60, rounds: Count = 3,
    resolution: PositiveInt = 128,
) -> RoadGraph:  # fmt: skip
    """A road graph from a picture, by one of three executions of one network.

    Args:
        form: see `RoadGraph`.
        vertices: where the graph begins.
        rounds: of expansion; 0 is plain generation.
        resolution: side of the picture, which 8 divides.

    Raises:
        UsageError: timm is missing, or 8 does not divide the resolution.
    """
    if resolution % STRIDE:
        raise UsageError(f"deh4r: {STRIDE} must divide resolution={resolution}")
    return RoadGraph(form, vertices, rounds, resolution).eval()


class _Samples(nn.Module):
    """The decoder on random samples."""

    def __init__(self, vertices: int):
        super().__init__()
        self.decoder, self.vertices = NeighbourDecoder(), vertices

    def forward(self, samples: Tensor) -> Tensor:
        return self.decoder(samples.flatten(0, 1)).unflatten(0, samples.shape[:2])

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        device = self.decoder.queries.device
        return (torch.randn(batch, self.vertices, WINDOW * WINDOW, FEATURES, device=device),)


def neighbour_decoder(*, vertices: PositiveInt = 1) -> nn.Module:
    """The decoder alone, on samples [batch, vertices, 9, 256]."""
    return _Samples(vertices).eval()
