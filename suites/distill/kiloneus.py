"""Space cut into cells with a tiny network each: KiloNeRF (arXiv 2103.13744) and KiloNeuS (arXiv 2206.10885).

KiloNeRF's network: 63 -> 32 -> 32, density 1 and feature 32 of that, [32 + 27] -> 32 -> 3. KiloNeuS's, a
reconstruction: distance 39 -> 32 -> 32 -> 1 + 32, colour [32 + 3 + 3 + 27] -> 32 -> 3; it learns NeuS's distances at
random points, then the true ones, with a term that pulls both sides of a border between cells together. Points go to
their cells' networks in one of the forms of `suites.distill.cells`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt
from suites.common.training import Pace, fit
from suites.distill.cells import CellLinear, Forms, Layer, cell_of, local, run, useful_share
from suites.distill.fields import BETA, Neus, Points, distance_loss, encoded, neus, width_of, with_normals

Coordinates = Literal["local", "global"]


class Kilo(Points):
    """Tiny networks of the cells of a grid.

    Attributes:
        grid: cells along each axis.
        form: how the products are made.
    """

    #: What decides how many products are made, whatever is learned (`bench.worker.probe`).
    cost_follows_inputs = "the cells that points lie in"
    #: Layers that multiply once more, backwards, for the gradient by the position.
    turned: tuple[str, ...] = ()

    def __init__(self, grid: Sequence[int], form: Forms, coordinates: Coordinates, sizes: dict[str, tuple[int, int]]):
        super().__init__()
        self.grid, self.form, self.coordinates = list(grid), form, coordinates
        self.cells = grid[0] * grid[1] * grid[2]
        self.layers = nn.ModuleDict({name: CellLinear(self.cells, *size) for name, size in sizes.items()})

    @property
    def table(self) -> Any:
        """The layers of every cell's network, by name."""
        return self.layers

    def seen(self, points: Tensor, cell: Tensor) -> Tensor:
        """Points as their networks take them."""
        return local(points, cell, self.grid) if self.coordinates == "local" else points

    def useful_share(self, points: Tensor) -> float:
        """Percent of the rows of a padded product over these points that are points."""
        return useful_share(cell_of(points, self.grid), self.cells)

    def needed_share(self, points: Tensor, _directions: Tensor) -> float:
        """Percent of the executed products that belong to points: neither to empty slots nor to widths made round."""
        if self.form == "padded":
            return self.useful_share(points)
        if self.form != "grouped":
            return 100.0
        needed, executed = 0, 0
        for name, layer in self.table.items():
            inner, outer = layer.weight.shape[1:]
            by = 16 // layer.weight.element_size()
            turns = 1 + (name in self.turned)
            needed += turns * inner * outer
            executed += turns * (inner + -inner % by) * (outer + -outer % by)
        return 100 * needed / executed


class KiloNerf(Kilo):
    """Positions and directions to density and colour, [n, 4]."""

    def __init__(
        self, grid: Sequence[int], form: Forms, coordinates: Coordinates, width: int, frequencies: int, view: int
    ):  # fmt: skip
        sizes = {
            "first": (width_of(frequencies), width), "second": (width, width), "density": (width, 1),
            "feature": (width, width), "view": (width + width_of(view), width), "colour": (width, 3),
        }  # fmt: skip
        super().__init__(grid, form, coordinates, sizes)
        self.frequencies, self.view_frequencies = frequencies, view

    @staticmethod
    def network(given: dict[str, Tensor], layer: Layer) -> dict[str, Tensor]:
        """One tiny network."""
        x = F.relu(layer(F.relu(layer(given["points"], "first")), "second"))
        seen = torch.cat([layer(x, "feature"), given["directions"]], -1)
        colour = layer(F.relu(layer(seen, "view")), "colour").sigmoid()
        return {"out": torch.cat([F.relu(layer(x, "density")), colour], -1)}

    def forward(self, points: Tensor, directions: Tensor) -> Tensor:
        """Density and colour, [n, 4]."""
        cell = cell_of(points, self.grid)
        given = {
            "points": encoded(self.seen(points, cell), self.frequencies),
            "directions": encoded(directions, self.view_frequencies),
        }
        return run(self.form, self.network, self.table, given, cell)["out"]


class KiloNeus(Kilo):
    """Positions and directions to signed distance, normal and colour, [n, 7]."""

    turned = ("first", "second", "distance")

    def __init__(
        self, grid: Sequence[int], form: Forms, coordinates: Coordinates, width: int, frequencies: int, view: int,
        taught: bool, consistency: float,
    ):  # fmt: skip
        sizes = {
            "first": (width_of(frequencies), width), "second": (width, width), "distance": (width, width + 1),
            "view": (width + 6 + width_of(view), width), "colour": (width, 3),
        }  # fmt: skip
        super().__init__(grid, form, coordinates, sizes)
        self.frequencies, self.view_frequencies = frequencies, view
        self.taught, self.consistency = taught, consistency

    @staticmethod
    def tiny_distance(given: dict[str, Tensor], layer: Layer) -> dict[str, Tensor]:
        """One tiny network of distance and feature."""
        x = F.softplus(layer(given["points"], "first"), BETA)
        return {"out": layer(F.softplus(layer(x, "second"), BETA), "distance")}

    @staticmethod
    def tiny_colour(given: dict[str, Tensor], layer: Layer) -> dict[str, Tensor]:
        """One tiny network of colour."""
        return {"out": layer(F.relu(layer(given["seen"], "view")), "colour").sigmoid()}

    def distance(self, points: Tensor, cell: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Signed distances [n, 1] and features [n, width] of points [n, 3], by the networks of given cells [n]."""
        cell = cell_of(points, self.grid) if cell is None else cell
        given = {"points": encoded(self.seen(points, cell), self.frequencies)}
        found = run(self.form, self.tiny_distance, self.table, given, cell)["out"]
        return found[:, :1], found[:, 1:]

    def forward(self, points: Tensor, directions: Tensor) -> Tensor:
        """Signed distance, normal (the gradient, not normalised) and colour, [n, 7]."""
        value, normal, feature = with_normals(self.distance, points, learns=self.training)
        seen = torch.cat([points, normal, encoded(directions, self.view_frequencies), feature], -1)
        colour = run(self.form, self.tiny_colour, self.table, {"seen": seen}, cell_of(points, self.grid))["out"]
        return torch.cat([value, normal, colour], -1)

    def border_gap(self, count: int, generator: torch.Generator) -> Tensor:
        """Mean difference of the distances that two neighbours give at random points of their common side."""
        axis = torch.randint(3, (count,), generator=generator)
        sides = torch.tensor(self.grid)[axis]
        inner = 1 + (torch.rand(count, generator=generator) * (sides - 1).clamp_min(1)).floor()
        points = 2 * torch.rand(count, 3, generator=generator) - 1
        points[torch.arange(count), axis] = torch.minimum(inner, sides - 1) / sides * 2 - 1
        shift = 1e-4 * F.one_hot(axis, 3)
        sides_of = [self.distance(points, cell_of(points + sign * shift, self.grid))[0] for sign in (1, -1)]
        return (sides_of[0] - sides_of[1]).abs().mean()

    def learn_scene(self, task: Any, seed: int) -> dict[str, Any]:
        """Learn NeuS's distances, then the true ones and that borders agree; without a teacher the true ones alone.

        Both take as many steps: the control is trained as long as the student.

        Args:
            task: a `suites.common.tasks.scene_distance.SceneDistance`.
            seed: of points and of the teacher.
        """
        steps, points, told = 500, 2048, dict[str, Any]()
        generator = torch.Generator().manual_seed(seed)

        def true(at: Tensor, wanted: Tensor) -> Tensor:
            own = distance_loss(self.distance(at)[0], wanted)
            return own + self.consistency * self.border_gap(512, generator) if self.consistency else own

        form, self.form = self.form, "padded"  # quickest with a backward
        if self.taught:
            begun = time.monotonic()
            teacher = taught_neus(task, seed)
            told["teacher_seconds_here"] = round(time.monotonic() - begun, 1)  # 0 where the weights were kept

            def said(at: Tensor, _: Tensor) -> Tensor:
                with torch.no_grad():
                    wanted = teacher.distance(at)[0][:, 0]
                return distance_loss(self.distance(at)[0], wanted)

            fit(self, task.points(steps, points, seed), said, Pace(steps, 5e-3, weight_decay=0.0))
        further, rate = (steps, 2e-3) if self.taught else (2 * steps, 5e-3)
        fit(self, task.points(further, points, seed + 1), true, Pace(further, rate, weight_decay=0.0))
        self.form = form
        return {
            **told,
            "role": "student" if self.taught else "control",
            "steps": 2 * steps,
            "points": points,
        }


def taught_neus(task: Any, seed: int) -> Neus:
    """The teacher of a scene, NeuS's network as a row of its own learns it; kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = neus()

    def make() -> dict[str, Tensor]:
        net.learn_scene(task, seed)
        return net.state_dict()

    net.load_state_dict(task.remembered("neus_teacher", {"scene": task.scene, "seed": seed}, make))
    return net.eval()


def _checked(grid: Sequence[int]) -> Sequence[int]:
    if len(grid) != 3:
        raise ValueError(f"grid={list(grid)}: cells along each of three axes, as grid=[16, 16, 16]")
    return grid


def kilonerf(
    *,
    grid: Blocks | None = None,
    form: Literal["loop", "padded", "grouped", "gathered"] = "padded",
    coordinates: Literal["local", "global"] = "local",
    width: PositiveInt = 32,
    frequencies: PositiveInt = 10,
    view_frequencies: PositiveInt = 4,
) -> KiloNerf:
    """KiloNeRF's networks on points, in evaluation mode with random weights.

    Args:
        grid: cells along each axis; None for 16 each.
        form: loop, padded, grouped, or gathered.
        coordinates: positions as a network takes them: of its cell, or of the scene.
        width: of its layers.
        frequencies: of positions.
        view_frequencies: of directions.

    Raises:
        ValueError: a grid that is not three numbers.
    """
    return KiloNerf(_checked(grid or [16] * 3), form, coordinates, width, frequencies, view_frequencies).eval()


def kiloneus(
    *,
    grid: Blocks | None = None,
    form: Literal["loop", "padded", "grouped", "gathered"] = "padded",
    coordinates: Literal["local", "global"] = "global",
    width: PositiveInt = 32,
    frequencies: PositiveInt = 6,
    view_frequencies: PositiveInt = 4,
    taught: bool = True,
    consistency: float = 0.1,
) -> KiloNeus:
    """KiloNeuS's networks on points, in evaluation mode with random weights.

    Args:
        grid: cells along each axis; None for 8 each.
        form: loop, padded, grouped, or gathered.
        coordinates: positions as a network takes them: of its cell, or of the scene.
        width: of its layers.
        frequencies: of positions.
        view_frequencies: of directions.
        taught: learns from NeuS's network first; else the true distances alone.
        consistency: weight of the term at borders.

    Raises:
        ValueError: a grid that is not three numbers, or a negative weight.
    """
    if consistency < 0:
        raise ValueError(f"consistency={consistency}: the weight of a term that is made small is 0 or more")
    return KiloNeus(
        _checked(grid or [8] * 3), form, coordinates, width, frequencies, view_frequencies, taught, consistency
    ).eval()  # fmt: skip
