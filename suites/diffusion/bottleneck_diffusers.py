"""Bottleneck Sampling on networks of diffusers that follow flows: latents in the stages of `suites.diffusion.stages`.

Within a stage the scheduler steps along the stage's times; at a switch latents are resized and noised again. Flux has
its latents in patches of two by two, which are taken apart for that, and is told where its patches stand.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from suites.common.diffusers_bridge import DiffusersCourse, DiffusersModel
from suites.common.diffusers_inputs import places
from suites.diffusion.stages import Stage, fresh_noise, grids, resized

FLUX = "FluxTransformer2DModel"


class StagedLatents(DiffusersCourse):
    """Steps of every stage; the scheduler of the stage that runs is in the state."""

    def __init__(self, stages: list[Stage], sizes: list[tuple[int, int]]):
        self.times, self.sizes = grids(stages, 1.0), sizes

    def plan(self, model: DiffusersModel, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Every stage's steps on its own times; how many the scheduler would make is not asked."""
        found = list[dict[str, Any]]()
        for stage, times in enumerate(self.times):
            for place, t in enumerate(times[:-1]):
                found.append({
                    "index": len(found), "t": 1000 * t, "stage": stage, "place": place, "size": self.sizes[stage],
                    "switch": place == len(times) - 2 and self._switches(stage), "evaluations": model.branches,
                })  # fmt: skip
        return found

    def _switches(self, stage: int) -> bool:
        """Whether something happens between this stage and the next."""
        if stage == len(self.sizes) - 1:
            return False
        same = abs(self.times[stage][-1] - self.times[stage + 1][0]) < 1e-12
        return not (same and self.sizes[stage] == self.sizes[stage + 1])

    def start(self, model: DiffusersModel, state: dict[str, Any]) -> dict[str, Any]:
        """The noise, of which a chain that begins small takes a part."""
        x, whole = state["x"], (model.size.height, model.size.width)
        if self.sizes[0] == whole:
            return {**state, "noise": x}
        return {**state, "noise": x, "x": as_given(model, fresh_noise(as_maps(model, x, whole), self.sizes[0], 0))}

    def step(self, model: DiffusersModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """A step of the stage's scheduler; a switch predicts the picture, resizes it and puts noise back."""
        now, cond = model.steps_planned[index], state["cond"]
        scheduler = model.along(self.times[now["stage"]]) if now["place"] == 0 else state["scheduler"]
        staged = {**state, "scheduler": scheduler, "cond": told_places(model, cond, now["size"])}
        if not now["switch"]:
            return {**model.plain_step(now["place"], staged), "cond": cond}
        following, t = now["stage"] + 1, now["t"] / 1000
        velocity = model.guided(state["x"], now["t"], staged["cond"])
        picture = resized(as_maps(model, state["x"] - t * velocity, now["size"]), self.sizes[following])
        first = as_maps(model, state["noise"], (model.size.height, model.size.width))
        noise = fresh_noise(first, self.sizes[following], index + 1)
        begin = self.times[following][0]
        return {**state, "scheduler": scheduler, "x": as_given(model, (1 - begin) * picture + begin * noise)}


def is_flux(model: DiffusersModel) -> bool:
    """Whether latents come in patches of two by two."""
    return type(model.model).__name__ == FLUX


def as_maps(model: DiffusersModel, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Latents [batch, ..., rows, columns] of what the network is given."""
    if not is_flux(model):
        return x
    rows, columns = size[0] // 2, size[1] // 2
    maps = x.unflatten(-1, (-1, 2, 2)).unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return maps.reshape(len(x), -1, 2 * rows, 2 * columns)


def as_given(model: DiffusersModel, maps: Tensor) -> Tensor:
    """What the network is given of latents [batch, ..., rows, columns]."""
    if not is_flux(model):
        return maps
    patches = maps.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).permute(0, 2, 4, 1, 3, 5)
    return patches.flatten(3).flatten(1, 2)


def told_places(model: DiffusersModel, cond: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Conditions with where the patches of latents of that size stand, of a network that is told it."""
    if not is_flux(model):
        return cond
    named = dict(zip(model.names[2:], cond, strict=True))
    named["img_ids"] = places(size[0] // 2, size[1] // 2).to(named["img_ids"])
    return tuple(named.values())


def in_stages(model: DiffusersModel, stages: list[Stage]) -> DiffusersModel:
    """The network sampled in these stages.

    Raises:
        ValueError: it follows no flow, or a stage's latent is no whole number of its patches.
    """
    if model.scheduler != "flow_euler":
        raise ValueError(f"bottleneck works on flows, and this network runs along {model.scheduler}: take flux_dev")
    config = model.model.config
    down = 2 ** (len(getattr(config, "block_out_channels", [0])) - 1)  # of a U-Net
    patch = 2 if is_flux(model) else getattr(config, "patch_size", down)
    patch = patch[1] if isinstance(patch, list | tuple) else patch
    sizes = [tuple(side * stage.scale for side in (model.size.height, model.size.width)) for stage in stages]
    wrong = [size for size in sizes if any(abs(side - round(side)) > 1e-6 or round(side) % patch for side in size)]
    if wrong:
        raise ValueError(f"a stage's latent of {wrong[0][0]:g} x {wrong[0][1]:g} is no multiple of the patch {patch}")
    model.course = StagedLatents(stages, [(round(rows), round(columns)) for rows, columns in sizes])
    return model
