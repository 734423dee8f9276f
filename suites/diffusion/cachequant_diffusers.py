"""CacheQuant's feature cache on a U-Net of diffusers: what the last block upwards is given is kept for some steps.

A skipped step runs the first convolution, the last residual block upwards (with its transformer block where it has one)
on the kept feature and the fresh skip, and the last convolution. Calibrated on images of the plain sampler, as in
`cachequant`; without values full steps stand evenly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from suites.common.diffusers_bridge import DiffusersCourse, DiffusersModel, of_pictures
from suites.diffusion.cache_schedule import Factors, chosen, corrected, even_firsts


class CachedUnet(DiffusersCourse):
    """Full steps keep a feature map per branch, the others use it; kept maps live in the state of the run."""

    def __init__(self, interval: int, schedule: str, correction: bool, images: int):
        self.interval, self.schedule, self.correction, self.images = interval, schedule, correction, images
        self._known: dict[tuple[int, float | None], tuple[list[int], Factors]] = {}
        self.factors: Factors = {}

    def plan(self, model: DiffusersModel, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The scheduler's steps, each full or cached; the calibration runs here, once for each number and guidance."""
        key = (len(steps), model.scale)
        if key not in self._known:
            self._known[key] = self._calibrated(model, len(steps))
        firsts, self.factors = self._known[key]
        return [{**step, "mode": "full" if step["index"] in firsts else "cached"} for step in steps]

    def _calibrated(self, model: DiffusersModel, count: int) -> tuple[list[int], Factors]:
        """First steps of the groups, and the corrections of every skipped step."""
        groups = math.ceil(count / self.interval)
        known = self.schedule == "uniform" and not self.correction
        if groups == count or known or next(model.parameters()).is_meta:
            return even_firsts(count, groups), {}
        return chosen(features_of(model, count, self.images), self.interval, self.schedule, self.correction)

    def start(self, model: DiffusersModel, state: dict[str, Any]) -> dict[str, Any]:
        """The plain state and nothing kept."""
        return {**state, "kept": []}

    def step(self, model: DiffusersModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """A step of the whole network, or of its outer part and what was kept."""
        full = model.steps_planned[index]["mode"] == "full"
        kept, done = [] if full else list(state["kept"]), iter(range(model.branches))

        def network(x: Tensor, times: Tensor, cond: tuple[Tensor, ...]) -> Tensor:
            if not full:
                feature = corrected(kept[next(done)], self.factors.get(index))
                return of_pictures(skipped(model, x, times, cond, feature), x)
            found, feature = heard(model, x, times, cond)
            kept.append(feature)
            return of_pictures(found, x)

        return {**model.plain_step(index, state, network), "kept": kept}


@torch.no_grad()
def features_of(model: DiffusersModel, count: int, images: int) -> Tensor:
    """Deep features of every step of the plain sampler, [steps, images x branches, channels, rows, columns]."""
    like, found = next(model.parameters()), list[list[Tensor]]()
    cond = tuple(
        each.to(like) if each.is_floating_point() else each.to(like.device) for each in model.example_cond(images)
    )
    state = {"x": model.example_noise(images, 1).to(like), "cond": cond, "scheduler": model.fresh_scheduler()}

    def network(x: Tensor, times: Tensor, cond: tuple[Tensor, ...]) -> Tensor:
        predicted, feature = heard(model, x, times, cond)
        found[-1].append(feature)
        return of_pictures(predicted, x)

    for index in range(count):
        found.append([])
        state = model.plain_step(index, state, network)
    return torch.stack([torch.cat(branches) for branches in found])


def heard(model: DiffusersModel, x: Tensor, times: Tensor, cond: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """What the network predicts, and what came from below into its last residual block, without the skip."""
    given: list[Tensor] = []
    unet: Any = model.model
    skip = unet.conv_in.out_channels
    handle = unet.up_blocks[-1].resnets[-1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        found = model(x, times, *cond)
    finally:
        handle.remove()
    return found, given[0][:, : given[0].shape[1] - skip]


def skipped(model: DiffusersModel, x: Tensor, times: Tensor, cond: tuple[Tensor, ...], feature: Tensor) -> Tensor:
    """What the outer part of the network predicts from the kept feature."""
    unet: Any = model.model
    named = dict(zip(model.names[2:], cond, strict=True))
    words = named.get("encoder_hidden_states")
    told = unet.time_embedding(unet.get_time_embed(sample=x, timestep=times))
    more = {name: named[name] for name in ("text_embeds", "time_ids", "image_embeds") if name in named}
    added = unet.get_aug_embed(emb=told, encoder_hidden_states=words, added_cond_kwargs=more)
    told = told if added is None else told + added
    last = unet.up_blocks[-1]
    inner = last.resnets[-1](torch.cat([feature, unet.conv_in(x)], dim=1), told)
    if getattr(last, "has_cross_attention", False):
        inner = last.attentions[-1](inner, encoder_hidden_states=words, return_dict=False)[0]
    if unet.conv_norm_out is not None:
        inner = unet.conv_act(unet.conv_norm_out(inner))
    return unet.conv_out(inner)


def with_cache(model: DiffusersModel, interval: int, schedule: str, correction: bool, images: int) -> DiffusersModel:
    """The network that keeps its deep features for some steps.

    Raises:
        ValueError: it is no U-Net of diffusers that is told conditions.
    """
    name = type(model.model).__name__
    if name != "UNet2DConditionModel":
        raise ValueError(f"cachequant works on UNet2DConditionModel of diffusers, not on {name}: take sd15_unet")
    model.course = CachedUnet(interval, schedule, correction, images)
    return model
