"""Fields over points in space by one network: NeRF's (arXiv 2003.08934) and NeuS's (arXiv 2106.10689).

NeRF: positions in 10 frequencies and directions in 4; eight layers of 256, the positions once more at the sixth, then
density and, with the direction, colour by a layer of 128. NeuS: a signed distance by eight layers of 256 (Softplus,
beta 100; positions in 6 frequencies, once more in the middle over sqrt 2), and a colour by four layers of 256 of
position, normal, direction and feature. A normal is the distance's gradient, so that it takes a backward through that
network. Weight normalisation of the released code is taken as folded in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.training import Pace, fit

BETA = 100.0


def encoded(x: Tensor, frequencies: int) -> Tensor:
    """Positions x [..., 3] beside sin and cos of 2^k x for each frequency k, [..., 3 + 6 frequencies]."""
    scaled = (x[..., None, :] * (2.0 ** torch.arange(frequencies, device=x.device).to(x))[:, None]).flatten(-2)
    return torch.cat([x, scaled.sin(), scaled.cos()], -1)


def width_of(frequencies: int) -> int:
    """Numbers of an encoded triple."""
    return 3 + 6 * frequencies


def with_normals(distance: Callable[[Tensor], tuple[Tensor, Any]], points: Tensor, *, learns: bool) -> tuple[Any, ...]:
    """Distances [n, 1], their gradients by the points [n, 3], and what else `distance` gives.

    Args:
        distance: of points; the second result is handed on.
        points: [n, 3].
        learns: whether the gradients are part of what is learned, so that their own graph is kept.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = points.clone().requires_grad_()
        value, rest = distance(leaf)
        (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value), create_graph=learns)
    if learns:
        return value, slope, rest
    return value.detach(), slope, rest.detach()


class Points(nn.Module):
    """A field that takes positions and directions, [n, 3] each."""

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """Random positions in the cube from -1 to 1 and unit directions."""
        like = next(self.parameters())
        directions = F.normalize(torch.randn(batch, 3), dim=1)
        return (2 * torch.rand(batch, 3) - 1).to(like), directions.to(like)

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Random values for a step."""
        return torch.rand(batch, 1, generator=torch.Generator().manual_seed(seed))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of all outputs."""
        return (outputs - targets.to(outputs)).square().mean()


class Nerf(Points):
    """Positions and directions to density and colour, [n, 4]."""

    def __init__(self, width: int, depth: int, frequencies: int, view_frequencies: int):
        super().__init__()
        self.frequencies, self.view_frequencies, self.skip = frequencies, view_frequencies, depth // 2 + 1
        wide = width_of(frequencies)
        self.layers = nn.ModuleList(
            nn.Linear(wide if number == 0 else width + wide * (number == self.skip), width) for number in range(depth)
        )
        self.density, self.feature = nn.Linear(width, 1), nn.Linear(width, width)
        self.view = nn.Linear(width + width_of(view_frequencies), width // 2)
        self.colour = nn.Linear(width // 2, 3)

    def forward(self, points: Tensor, directions: Tensor) -> Tensor:
        """Density and colour, [n, 4]."""
        given = encoded(points, self.frequencies)
        x = given
        for number, layer in enumerate(self.layers):
            x = F.relu(layer(torch.cat([given, x], -1) if number == self.skip else x))
        seen = torch.cat([self.feature(x), encoded(directions, self.view_frequencies)], -1)
        return torch.cat([F.relu(self.density(x)), self.colour(F.relu(self.view(seen))).sigmoid()], -1)


def nerf(
    *,
    width: PositiveInt = 256,
    depth: PositiveInt = 8,
    frequencies: PositiveInt = 10,
    view_frequencies: PositiveInt = 4,
) -> Nerf:
    """NeRF's network on points, in evaluation mode with random weights.

    Args:
        width: of its layers.
        depth: how many.
        frequencies: of positions.
        view_frequencies: of directions.

    Raises:
        ValueError: too few layers for the positions to come in once more, or a width that cannot be halved.
    """
    if depth < 3 or width < 2:
        raise ValueError(
            f"depth={depth}, width={width}: positions come in again behind the middle, so 3 layers or more of 2"
        )
    return Nerf(width, depth, frequencies, view_frequencies).eval()


class Neus(Points):
    """Positions and directions to signed distance, normal and colour, [n, 7]."""

    def __init__(self, width: int, depth: int, colour_depth: int, frequencies: int, view_frequencies: int):
        super().__init__()
        self.frequencies, self.view_frequencies, self.skip = frequencies, view_frequencies, depth // 2
        wide = width_of(frequencies)
        sizes = [wide, *[width] * depth, width + 1]
        self.layers = nn.ModuleList(
            nn.Linear(inner, outer - wide * (number + 1 == self.skip))
            for number, (inner, outer) in enumerate(pairwise(sizes))
        )
        seen = width + 6 + width_of(view_frequencies)
        self.colours = nn.ModuleList(
            nn.Linear(inner, outer) for inner, outer in pairwise([seen, *[width] * colour_depth, 3])
        )
        self._begin_as_sphere()

    @torch.no_grad()
    def _begin_as_sphere(self) -> None:
        """Geometric initialisation (Atzmon and Lipman 2020): the distance begins as that to a sphere."""
        layers: list[Any] = list(self.layers)
        for number, layer in enumerate(layers[:-1]):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / layer.out_features))
            nn.init.zeros_(layer.bias)
            if number == 0:
                layer.weight[:, 3:] = 0
            elif number == self.skip:
                layer.weight[:, layer.in_features - width_of(self.frequencies) + 3 :] = 0
        nn.init.normal_(layers[-1].weight, math.sqrt(math.pi / layers[-1].in_features), 1e-4)
        nn.init.constant_(layers[-1].bias, -0.6)

    def distance(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distances [n, 1] and features [n, width] of points [n, 3]."""
        given = encoded(points, self.frequencies)
        x, layers = given, list(self.layers)
        for number, layer in enumerate(layers[:-1]):
            x = F.softplus(layer(torch.cat([x, given], -1) / math.sqrt(2) if number == self.skip else x), BETA)
        x = layers[-1](x)
        return x[:, :1], x[:, 1:]

    def forward(self, points: Tensor, directions: Tensor) -> Tensor:
        """Signed distance, normal (the gradient, not normalised) and colour, [n, 7]."""
        value, normal, feature = with_normals(self.distance, points, learns=self.training)
        x = torch.cat([points, normal, encoded(directions, self.view_frequencies), feature], -1)
        for layer in self.colours[:-1]:
            x = F.relu(layer(x))
        return torch.cat([value, normal, self.colours[-1](x).sigmoid()], -1)

    def learn_scene(self, task: Any, seed: int) -> dict[str, Any]:
        """Learn the distance at random points; the colour is not learned.

        Args:
            task: a `suites.common.tasks.scene_distance.SceneDistance`.
            seed: of the points.
        """
        steps = 300
        fit(self, task.points(steps, 1024, seed), lambda at, wanted: distance_loss(self.distance(at)[0], wanted),
            Pace(steps, 1e-3, weight_decay=0.0))  # fmt: skip
        return {"role": "teacher", "steps": steps, "points": 1024}


def distance_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute error of distances, [n, 1] against [n]."""
    return (found[:, 0] - wanted).abs().mean()


def neus(
    *,
    width: PositiveInt = 256,
    depth: PositiveInt = 8,
    colour_depth: PositiveInt = 4,
    frequencies: PositiveInt = 6,
    view_frequencies: PositiveInt = 4,
) -> Neus:
    """NeuS's two networks on points, in evaluation mode with random weights.

    Args:
        width: of their layers and of the feature that one hands the other.
        depth: layers of the distance.
        colour_depth: layers of the colour.
        frequencies: of positions.
        view_frequencies: of directions.

    Raises:
        ValueError: too few layers, or a width that leaves no room for the positions that come in once more.
    """
    if depth < 3 or width <= width_of(frequencies):
        raise ValueError(
            f"depth={depth}, width={width}: positions ({width_of(frequencies)} numbers) come in again in the middle, "
            "so 3 layers or more, and wider than that"
        )
    return Neus(width, depth, colour_depth, frequencies, view_frequencies).eval()
