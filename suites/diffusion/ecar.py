"""E-CAR: continuous token maps, coarse to fine, each stage one slice of a flow; Yuan et al. 2024, arXiv 2412.14170.

A transformer that is causal by stage emits a condition for every place of the stage's map; a flow network integrates
the stage's slice of time at the stage's own size. Reconstruction: sizes, sampler and re-noising could not be read.
Ours, as in pyramidal flow matching (Jin et al. 2024, arXiv 2410.05954): a stage of a map that will be
doubled ends at e = t' / (2 - t'), t' where the next one begins; after doubling, noise with zero sum in every 2 x 2
block makes mean and covariance those of the next stage at t', exactly.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.dit import FREQUENCIES, Block, block_macs, modulated, positions
from suites.common.rectified_flow import noise, time_features
from suites.diffusion.stages import fresh_noise, resized

__all__ = ["Ecar", "ecar", "load_checkpoint"]


class Ecar(nn.Module):
    """Both networks and the sampler: a step is one evaluation of the flow; the first of a stage runs the other too."""

    channels = 1
    not_learned = ("flow_steps",)  # of the sampler alone: one training serves every K

    def __init__(self, *, stages: int, flow_steps: int, width: int, heads: int, depth: int, flow_depth: int,
                 patch: int, resolution: int, classes: int):  # fmt: skip
        super().__init__()
        self.stages, self.flow_steps, self.width, self.heads = stages, flow_steps, width, heads
        self.patch, self.resolution, self.classes = patch, resolution, classes
        self.sides = [resolution // 2 ** (stages - 1 - s) for s in range(stages)]
        self.class_embed = nn.Embedding(classes + 1, width)
        self.start_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.levels = nn.Embedding(stages, width)
        self.read = nn.Conv2d(1, width, patch, patch)
        self.blocks: Any = nn.ModuleList(Block(width, heads, 4.0) for _ in range(depth))
        self.patch_embed = nn.Conv2d(1, width, patch, patch)
        self.time_embed = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.flow = nn.ModuleList(Block(width, heads, 4.0) for _ in range(flow_depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, patch**2)
        nn.init.zeros_(self.head.weight)
        self.scale: float | None = None

    # ------------------------------------------------------------------------------------------ the networks

    def emitted(self, maps: Tensor | None, stage: int, classes: Tensor, caches: list[list[Tensor]]) -> Tensor:
        """Conditions of the stage's places [batch, tokens, width] from the map before it; caches are added to."""
        condition = self.class_embed(classes)
        side = self.sides[stage] // self.patch
        if maps is None:
            x = self.start_token.expand(len(classes), side**2, -1)
        else:
            x = self.read(maps).flatten(2).transpose(1, 2)
        x = x + positions(side, self.width, x) + self.levels.weight[stage]
        for block, cache in zip(self.blocks, caches, strict=True):
            x = _causal(block, x, condition, cache)
        return x

    def velocity(self, x: Tensor, t: Tensor, classes: Tensor, told: Tensor) -> Tensor:
        """Velocities of pictures at the stage's size, told by the emitted conditions."""
        side = x.shape[-1] // self.patch
        condition = self.time_embed(time_features(t, FREQUENCIES)) + self.class_embed(classes)
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = tokens + positions(side, self.width, tokens) + told
        for block in self.flow:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=1)
        pixels = self.head(modulated(self.norm(tokens), shift, scale))
        return F.pixel_shuffle(pixels.transpose(1, 2).unflatten(-1, (side, side)), self.patch)

    def forward(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """One evaluation of both networks at full size, the map before being the picture made small."""
        coarse = [resized(x, side) for side in self.sides]
        return self.velocity(x, t, classes, self._told(coarse, classes)[-1])

    def _told(self, pictures: list[Tensor], classes: Tensor) -> list[Tensor]:
        """Conditions of every stage, each from the true map before it."""
        caches: list[list[Tensor]] = [[] for _ in self.blocks]
        found = [self.emitted(None, 0, classes, caches)]
        for stage in range(1, len(pictures)):
            before = F.interpolate(pictures[stage - 1], scale_factor=2.0, mode="nearest")
            found.append(self.emitted(before, stage, classes, caches))
        return found

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random pictures, times and classes."""
        return self.example_noise(batch, 0), torch.rand(batch), self.example_cond(batch)

    # ------------------------------------------------------------------------------------------ the sampler

    def slices(self) -> list[tuple[float, float]]:
        """Beginning and end of every stage's slice of time, from 1 to 0."""
        begins = [1 - s / self.stages for s in range(self.stages)]
        return [(t, end_before(until) if until else 0.0) for t, until in zip(begins, [*begins[1:], 0.0], strict=True)]

    def plan(self, shape: dict[str, Any]) -> list[dict[str, Any]]:
        """`flow_steps` Euler steps for every stage; the number of steps of the case is not asked."""
        self.scale = shape.get("guidance")
        branches, steps, keys = 1 if self.scale is None else 2, list[dict[str, Any]](), 0
        both, flow = self._params()
        for stage, (begin, end) in enumerate(self.slices()):
            tokens = (self.sides[stage] // self.patch) ** 2
            keys += tokens
            for k in range(self.flow_steps):
                macs = self.flow_macs(tokens) + (self.stage_macs(tokens, keys, stage) if k == 0 else 0)
                t = begin + (end - begin) * k / self.flow_steps
                last = k == self.flow_steps - 1 and stage < self.stages - 1
                steps.append({
                    "index": len(steps), "t": t, "dt": (begin - end) / self.flow_steps, "stage": stage, "first": k == 0,
                    "next_t": self.slices()[stage + 1][0] if last else None, "side": self.sides[stage],
                    "evaluations": branches, "macs": branches * macs, "params": flow if k else both,
                })  # fmt: skip
        self.steps_planned = steps
        return steps

    def _params(self) -> tuple[int, int]:
        """Parameters of both networks, and of the flow alone."""
        of_maps = [self.start_token, *self.levels.parameters(), *self.read.parameters(), *self.blocks.parameters()]
        both = sum(each.numel() for each in self.parameters())
        return both, both - sum(each.numel() for each in of_maps)

    def flow_macs(self, n: int) -> int:
        """MACs of one evaluation of the flow network on n tokens."""
        c = self.width
        return len(self.flow) * block_macs(n, c) + 2 * n * self.patch**2 * c + 3 * c**2 + FREQUENCIES * c

    def stage_macs(self, n: int, keys: int, stage: int) -> int:
        """MACs of the transformer on n new tokens that see so many keys."""
        c = self.width
        blocks = len(self.blocks) * (12 * n * c**2 + 2 * n * keys * c + 6 * c**2)
        return blocks + (n * self.patch**2 * c if stage else 0)

    def start(self, noise: Tensor, cond: Tensor) -> dict[str, Any]:
        """Noise of the first stage, the classes, empty caches."""
        noise = noise.to(next(self.parameters()))
        x = noise if len(self.sides) == 1 else fresh_noise(noise, self.sides[0], 0)
        return {"x": x, "noise": noise, "classes": cond, "caches": [[] for _ in self.blocks], "told": None, "map": None}

    def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """An Euler step of a stage's slice; the first asks the transformer, the last doubles the map."""
        now, x, classes = self.steps_planned[index], state["x"], state["classes"]
        branches = 1 if self.scale is None else 2
        known = classes if branches == 1 else torch.cat([classes, torch.full_like(classes, self.classes)])
        told, caches = state["told"], [list(each) for each in state["caches"]]
        if now["first"]:
            before = None if state["map"] is None else torch.cat([state["map"]] * branches)
            told = self.emitted(before, now["stage"], known, caches)
        times = torch.full((len(known),), now["t"], device=x.device, dtype=x.dtype)
        found = self.velocity(torch.cat([x] * branches), times, known, told)
        if self.scale is not None:
            aware, unaware = found.chunk(2)
            found = unaware + self.scale * (aware - unaware)
        picture, after = x - now["t"] * found, x - now["dt"] * found
        new = {**state, "x": after, "told": told, "caches": caches}
        if now["next_t"] is None:
            return new
        extra = fresh_noise(state["noise"], self.sides[now["stage"] + 1], now["stage"] + 1)
        x = doubled(after, now["t"] - now["dt"], now["next_t"], extra)
        return {**new, "x": x, "map": F.interpolate(picture, scale_factor=2.0, mode="nearest")}

    def finish(self, state: dict[str, Any]) -> Tensor:
        """The pictures."""
        return state["x"]

    def example_noise(self, batch: int, seed: int) -> Tensor:
        """Noise of each picture's own, by seed and index."""
        return noise(range(batch), seed, (1, self.resolution, self.resolution))

    def example_cond(self, batch: int) -> Tensor:
        """The classes in turn."""
        return torch.arange(batch) % self.classes

    # ------------------------------------------------------------------------------------------ learning

    def learning_loss(self, pictures: Tensor, generator: torch.Generator) -> Any:
        """Flow matching at the size and in the slice of a stage that is drawn for every batch."""
        del pictures

        def loss(pictures: Tensor, classes: Tensor) -> Tensor:
            stage = int(torch.randint(self.stages, (1,), generator=generator))
            begin, end = self.slices()[stage]
            hidden = torch.rand(len(classes), generator=generator) < 0.1
            seen = torch.where(hidden, torch.full_like(classes, self.classes), classes)
            maps = [resized(pictures, side) for side in self.sides[: stage + 1]]
            t = end + (begin - end) * torch.rand(len(pictures), generator=generator)
            e = torch.randn(maps[-1].shape, generator=generator)
            place = t[:, None, None, None]
            found = self.velocity((1 - place) * maps[-1] + place * e, t, seen, self._told(maps, seen)[-1])
            return F.mse_loss(found, e - maps[-1])

        return loss


def _causal(block: Block, x: Tensor, condition: Tensor, cache: list[Tensor]) -> Tensor:
    """A block over new tokens that also see those of earlier stages; the cache is added to."""
    shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(condition).chunk(6, dim=1)
    qkv = block.attn.qkv(modulated(block.norm1(x), shift1, scale1))
    q, k, v = qkv.unflatten(-1, (3, block.attn.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    if cache:
        k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
    cache[:] = [k, v]
    x = x + gate1[:, None] * block.attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return x + gate2[:, None] * block.mlp(modulated(block.norm2(x), shift2, scale2))


def end_before(t: float) -> float:
    """Where a stage ends if the next, of twice the side, is to begin at t: e with t = 2 e / (1 + e)."""
    return t / (2 - t)


def doubled(x: Tensor, end: float, t: float, fresh: Tensor) -> Tensor:
    """A map at time `end` as one of twice the side at time t: (1 - t) / (1 - end) x plus noise of zero sum by block.

    With x = (1 - end) m + end e the result has the mean (1 - t) m repeated and the covariance t^2 I.
    """
    big = F.interpolate(x, scale_factor=2.0, mode="nearest") * ((1 - t) / (1 - end))
    means = F.interpolate(F.avg_pool2d(fresh, 2), scale_factor=2.0, mode="nearest")
    return big + t * (fresh - means)


def ecar(
    *,
    S: PositiveInt = 3,
    K: PositiveInt = 4,
    width: PositiveInt = 64,
    heads: PositiveInt = 4,
    depth: PositiveInt = 3,
    flow_depth: PositiveInt = 3,
    patch: PositiveInt = 2,
    resolution: PositiveInt = 16,
    classes: PositiveInt = 10,
) -> Ecar:
    """Both networks in evaluation mode with random weights.

    Args:
        S: stages; 1 is a plain transformer and one flow at full size.
        K: Euler steps of every stage.
        width: features per token; a multiple of 4 and of `heads`.
        heads: of attention.
        depth: blocks of the transformer over stages.
        flow_depth: blocks of the flow network.
        patch: side of a patch in pixels.
        resolution: side of the picture in pixels, which S - 1 halvings and the patch divide.
        classes: that pictures may be asked for, beside the empty one.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % heads or width % 4:
        raise ValueError(f"width={width} must be a multiple of 4 and of heads={heads}")
    if resolution % (patch * 2 ** (S - 1)):
        raise ValueError(f"{resolution} px cannot be halved {S - 1} times into patches of {patch}: take fewer stages S")
    return Ecar(
        stages=S, flow_steps=K, width=width, heads=heads, depth=depth, flow_depth=flow_depth, patch=patch,
        resolution=resolution, classes=classes,
    ).eval()  # fmt: skip


def flow_share(stages: int) -> float:
    """MACs of the flow's linear layers over those of as many steps at full size: (1 + 1/4 + ...) / S."""
    return sum(0.25**s for s in range(stages)) / stages
