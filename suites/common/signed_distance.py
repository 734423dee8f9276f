"""Scenes with an exact signed distance: a sphere, a torus, a gyroid; and points to ask it at.

A gyroid has no closed distance: its surface is sin x cos y + sin y cos z + sin z cos x = 0, and the distance of a point
is that to its foot, which is found by going to the surface and then along it until the way to the point is the normal.
Distances are negative inside. The domain is the cube from -1 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Shape = Literal["sphere", "torus", "gyroid"]
#: Periods of the gyroid along a side of the cube are this over pi.
FREQUENCY = 4.0
STEPS = 40


def sphere(points: Tensor) -> Tensor:
    """Distance to a sphere of radius 0.6 around the origin, [n], of points [n, 3]."""
    return points.norm(dim=1) - 0.6


def torus(points: Tensor) -> Tensor:
    """Distance to a torus around the z axis, radii 0.6 and 0.25, [n], of points [n, 3]."""
    around = points[:, :2].norm(dim=1) - 0.6
    return torch.stack([around, points[:, 2]], 1).norm(dim=1) - 0.25


def gyroid_level(points: Tensor) -> Tensor:
    """The function whose zeros are the gyroid, [n], of points [n, 3]."""
    x, y, z = (FREQUENCY * points).unbind(1)
    return x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos()


def gyroid_slope(points: Tensor) -> Tensor:
    """Gradient of `gyroid_level`, [n, 3]."""
    x, y, z = (FREQUENCY * points).unbind(1)
    found = [x.cos() * y.cos() - z.sin() * x.sin(), y.cos() * z.cos() - x.sin() * y.sin(),
             z.cos() * x.cos() - y.sin() * z.sin()]  # fmt: skip
    return FREQUENCY * torch.stack(found, 1)


def gyroid(points: Tensor) -> Tensor:
    """Distance to the gyroid, [n], of points [n, 3]; computed in double precision."""
    asked = points.double()
    return (gyroid_level(asked).sign() * (asked - gyroid_foot(asked)).norm(dim=1)).to(points)


def gyroid_foot(asked: Tensor) -> Tensor:
    """The point of the gyroid that is nearest, [n, 3], of points [n, 3] in double precision."""
    foot = asked - _to_surface(asked)
    for _ in range(STEPS):
        normal = _unit(gyroid_slope(foot))
        away = asked - foot
        foot = foot + 0.5 * (away - (away * normal).sum(1, keepdim=True) * normal)
        for _ in range(2):
            foot = foot - _to_surface(foot)
    return foot


def _to_surface(points: Tensor) -> Tensor:
    """A Newton step back to the surface, [n, 3]; no longer than a quarter of a period."""
    slope = gyroid_slope(points)
    step = gyroid_level(points)[:, None] * slope / slope.square().sum(1, keepdim=True).clamp_min(1e-6)
    return step * (0.25 / step.norm(dim=1, keepdim=True).clamp_min(0.25))


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-9)


DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {"sphere": sphere, "torus": torus, "gyroid": gyroid}


def normals(shape: Shape, points: Tensor, reach: float = 1e-3) -> Tensor:
    """Unit gradients of the distance, [n, 3]: at the foot on a gyroid, else by central differences, in doubles."""
    asked, distance = points.double(), DISTANCES[shape]
    if shape == "gyroid":
        return _unit(gyroid_slope(gyroid_foot(asked))).to(points)
    steps = reach * torch.eye(3, dtype=torch.float64)
    slopes = [distance(asked + step) - distance(asked - step) for step in steps]
    return _unit(torch.stack(slopes, 1)).to(points)


def sampled(shape: Shape, count: int, seed: int, near: float = 0.5) -> tuple[Tensor, Tensor]:
    """Points [count, 3] in the cube and their distances [count]; a share of them within about 0.1 of the surface.

    Args:
        shape: of the scene.
        count: points.
        seed: of what is drawn.
        near: share of the points that is moved onto the surface and off it by N(0, 0.05^2).
    """
    generator = torch.Generator().manual_seed(seed)
    points = 2 * torch.rand(count, 3, generator=generator) - 1
    close = math.floor(near * count)
    onto = points[:close] - DISTANCES[shape](points[:close])[:, None] * normals(shape, points[:close])
    points[:close] = (onto + 0.05 * torch.randn(close, 3, generator=generator)).clamp(-1, 1)
    return points, DISTANCES[shape](points)
