"""VAR: a transformer that draws whole maps of codes, small to large; Tian et al. 2024, arXiv 2404.02905.

The block is the released one: adaptive layer norm, attention of normalised queries and keys with a learned scale,
keys and values kept from scale to scale. At the sizes of the paper it is counted; the small instance
draws digits whose codes are patches of 2 x 2 pixels: its residual quantiser is a codebook found by k-means, without
an encoder or decoder network.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.dit import modulated
from suites.common.rectified_flow import noise

__all__ = ["Var", "load_checkpoint", "var", "var_of_depth"]

SCALES = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]


class VarBlock(nn.Module):
    """Attention over all scales so far and an MLP, scaled, shifted and gated by the class.

    What it is told it computes of the class, or it is told what all blocks share and adds numbers of its own.
    """

    def __init__(self, width: int, heads: int, shared: bool = False):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation: Any = None if shared else nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.own: Any = nn.Parameter(torch.randn(1, 6 * width) / width**0.5) if shared else None
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.scale = nn.Parameter(torch.full((heads, 1, 1), math.log(4.0)))
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(
        self, x: Tensor, condition: Tensor, cache: list[Tensor] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Features of new tokens [batch, tokens, width]; `cache` holds keys and values so far and is added to."""
        told = condition + self.own if self.modulation is None else self.modulation(condition)
        gate1, gate2, scale1, scale2, shift1, shift2 = told.chunk(6, dim=1)
        x = x + gate1[:, None] * self._attended(modulated(self.norm(x), shift1, scale1), cache, mask)
        return x + gate2[:, None] * self.mlp(modulated(self.norm(x), shift2, scale2))

    def _attended(self, x: Tensor, cache: list[Tensor] | None, mask: Tensor | None) -> Tensor:
        q, k, v = (self.qkv(x) + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])).chunk(3, dim=-1)
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        q = F.normalize(q, dim=-1) * self.scale.clamp(max=math.log(100)).exp()
        k = F.normalize(k, dim=-1)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return self.proj(out.transpose(1, 2).flatten(2))


class VarNetwork(nn.Module):
    """The transformer: class and maps in, logits of codes out; `shared` blocks are told by one map of the class."""

    def __init__(
        self, *, width: int, heads: int, depth: int, scales: list[int], codes: int, code: int, classes: int,
        shared: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.width, self.heads, self.scales, self.codes, self.code = width, heads, list(scales), codes, code
        self.word = nn.Linear(code, width)
        self.class_embed = nn.Embedding(classes + 1, width)
        self.begin = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, sum(side**2 for side in scales), width))
        self.levels = nn.Embedding(len(scales), width)
        self.shared: Any = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width)) if shared else None
        blocks: list[Any] = [VarBlock(width, heads, shared) for _ in range(depth)]
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, codes)
        maps: list[Any] = [self.shared] if shared else [block.modulation for block in blocks]
        for told in maps:
            nn.init.zeros_(told[1].weight)
            nn.init.normal_(told[1].bias, std=0.02)
            told[1].bias.data[: 2 * width] += 0.5  # the gates: half open at the start

    def tokens(self, maps: list[Tensor], first: int, condition: Tensor) -> Tensor:
        """Input tokens of scales `first`, `first` + 1, ...; the first scale has no map, only the class."""
        place = sum(side**2 for side in self.scales[:first])
        made = []
        for k, each in enumerate(maps, start=first):
            count = self.scales[k] ** 2
            words = condition[:, None] + self.begin if k == 0 else self.word(each.flatten(2).transpose(1, 2))
            level = self.levels.weight[k][None, None]
            made.append(words + self.places[:, place : place + count] + level)
            place += count
        return torch.cat(made, dim=1)

    def run(
        self, maps: list[Tensor], first: int, condition: Tensor, caches: list[list[Tensor]] | None, last: int | None
    ) -> Tensor:
        """Logits of the new tokens, of the last `last` of them where that is given: [batch, tokens, codes]."""
        x = self.tokens(maps, first, condition)
        mask = block_causal([self.scales[first + i] for i in range(len(maps))], x) if len(maps) > 1 else None
        told = condition if self.shared is None else self.shared(condition)
        for place, block in enumerate(self.blocks):
            x = block(x, told, None if caches is None else caches[place], mask)
        x = x if last is None else x[:, -last:]
        shift, scale = self.modulation(condition).chunk(2, dim=1)
        return self.head(modulated(self.norm(x), shift, scale))

    def scale_macs(
        self, tokens: int, keys: int, *, first: bool, heads: int | None = None, pairs: int | None = None
    ) -> int:
        """MACs of new tokens that see so many keys; `heads` of them are given logits."""
        c, seen = self.width, tokens * keys if pairs is None else pairs
        told = (len(self.blocks) if self.shared is None else 1) * 6 * c**2
        blocks = len(self.blocks) * (12 * tokens * c**2 + 2 * seen * c) + told
        words = tokens - self.scales[0] ** 2 if first else tokens  # the first map has none
        return blocks + (tokens if heads is None else heads) * c * self.codes + 2 * c**2 + words * self.code * c


def block_causal(sides: list[int], like: Tensor) -> Tensor:
    """Which tokens see which, [tokens, tokens]: those of the own scale and of all before it."""
    scale = torch.cat([torch.full((side**2,), k, device=like.device) for k, side in enumerate(sides)])
    return scale[:, None] >= scale[None]


class Var(VarNetwork):
    """The network with its codebook and its sampler, one step a scale.

    Attributes:
        refiner: another network that draws the scales after `drafted`; None draws all of them itself.
        drafted: scales that this network draws.
        prefix_logits: whether a refiner's first call also computes the logits of what was drafted.
        guidance: scale at the last map; it grows linearly from the first.
    """

    resolution, channels, patch = 16, 1, 2
    codebook: Tensor

    def __init__(self, *, top_k: int, top_p: float, guidance: float | None, **settings: Any):
        super().__init__(**settings)
        self.classes = settings["classes"]
        self.top_k, self.top_p, self.guidance = top_k, top_p, guidance
        self.register_buffer("codebook", torch.randn(self.codes, self.code))
        self.refiner: VarNetwork | None = None
        self.drafted = len(self.scales)
        self.prefix_logits = True
        self.scale: float | None = None

    def forward(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Logits of all scales at once, for the sums of codes before each [batch, code, side, side]."""
        inputs = [maps[:, :, :1, :1], *(area(maps, side) for side in self.scales[1:])]
        return self.run(inputs, 0, self.class_embed(classes), None, None)

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """Random maps and classes."""
        return torch.randn(batch, self.code, self.scales[-1], self.scales[-1]), self.example_cond(batch)

    # ------------------------------------------------------------------------------------------ the sampler

    def plan(self, shape: dict[str, Any]) -> list[dict[str, Any]]:
        """One step a scale; the number of steps of the case is not asked."""
        given = shape.get("guidance")
        self.scale = self.guidance if given is None else float(given)
        branches, done, steps = 1 if self.scale is None else 2, 0, list[dict[str, Any]]()
        for k, side in enumerate(self.scales):
            done += side**2
            step: dict[str, Any] = {
                "index": k,
                "name": f"scale {side}",
                "mode": "draft",
                "tokens": side**2,
                "keys": done,
            }
            if k >= self.drafted and self.refiner is not None:
                step |= self._refined(k, side, done)
            else:
                step |= {"macs": self.scale_macs(side**2, done, first=k == 0), "params": self._own_params()}
            steps.append({**step, "evaluations": branches, "macs": branches * step["macs"]})
        return steps

    def _own_params(self) -> int:
        """Parameters without those of a refiner."""
        others = 0 if self.refiner is None else sum(each.numel() for each in self.refiner.parameters())
        return sum(each.numel() for each in self.parameters()) - others

    def _refined(self, k: int, side: int, done: int) -> dict[str, Any]:
        assert self.refiner is not None
        known = {"mode": "refine", "params": sum(each.numel() for each in self.refiner.parameters())}
        if k > self.drafted:
            return {**known, "macs": self.refiner.scale_macs(side**2, done, first=False)}
        heads = None if self.prefix_logits else side**2
        macs = self.refiner.scale_macs(done, done, first=True, heads=heads)
        return {**known, "tokens": done, "macs": macs}

    def start(self, noise: Tensor, cond: Tensor) -> dict[str, Any]:
        """An empty sum of codes, empty caches, and the uniform number of every token."""
        side, batch = self.scales[-1], len(noise)
        tokens = self.places.shape[1]
        like = self.codebook
        uniform = 0.5 * (1 + torch.erf(noise.flatten(1)[:, :tokens].float() / math.sqrt(2)))
        return {
            "x": torch.zeros(batch, self.code, side, side, device=like.device, dtype=like.dtype),
            "classes": cond,
            "uniform": uniform,
            "maps": [],
            "caches": [[] for _ in self.blocks],
        }

    def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """The next scale: its logits, its codes, the sum with them."""
        side, x, classes = self.scales[index], state["x"], state["classes"]
        now = area(x, side)
        maps, first = [now], index
        network: VarNetwork = self
        if index >= self.drafted and self.refiner is not None:
            network = self.refiner
            if index == self.drafted:  # the drafter's keys and values are given up here
                state = {**state, "caches": [[] for _ in self.refiner.blocks]}
                maps, first = [*state["maps"], now], 0
        caches = [list(each) for each in state["caches"]]
        logits = self._guided(network, maps, first, classes, caches, side**2, index)
        place = sum(each**2 for each in self.scales[:index])
        codes = drawn(logits, state["uniform"][:, place : place + side**2], self.top_k, self.top_p)
        new = F.embedding(codes, self.codebook).transpose(1, 2).unflatten(-1, (side, side))
        kept = [*state["maps"], now] if self.refiner is not None and index < self.drafted else []
        return {**state, "x": x + enlarged(new, self.scales[-1]), "maps": kept, "caches": caches}

    def _guided(
        self, network: VarNetwork, maps: list[Tensor], first: int, classes: Tensor, caches: Any, count: int, index: int
    ) -> Tensor:
        last = None if self.prefix_logits or len(maps) == 1 else count
        if self.scale is None:
            return network.run(maps, first, network.class_embed(classes), caches, last)[:, -count:]
        both = torch.cat([classes, torch.full_like(classes, self.classes)])
        found = network.run([torch.cat([m, m]) for m in maps], first, network.class_embed(both), caches, last)
        aware, unaware = found[:, -count:].chunk(2)
        t = self.scale * index / max(1, len(self.scales) - 1)  # the only map of one scale is the first: no guidance
        return (1 + t) * aware - t * unaware

    def finish(self, state: dict[str, Any]) -> Tensor:
        """Pictures of the summed codes, [batch, 1, side x 2, side x 2]; the sum itself where codes are no patches."""
        return F.pixel_shuffle(state["x"], self.patch) if self.code == self.patch**2 else state["x"]

    def example_noise(self, batch: int, seed: int) -> Tensor:
        """A normal number for every token of every image, [batch, 1, tokens]."""
        return noise(range(batch), seed, (1, self.places.shape[1]))

    def example_cond(self, batch: int) -> Tensor:
        """The classes in turn, [batch]."""
        return torch.arange(batch) % self.classes

    # ------------------------------------------------------------------------------------------ learning

    def learning_loss(self, pictures: Tensor, generator: torch.Generator) -> Any:
        """The loss of pictures and classes; the codebook is found first, by k-means over residuals of all pictures."""
        self.codebook.copy_(codebook_of(F.pixel_unshuffle(pictures, self.patch), self.scales, self.codes, generator))
        return self.code_loss(self, generator)

    def code_loss(self, network: VarNetwork, generator: torch.Generator, after: int = 0) -> Any:
        """Cross-entropy of the codes of the scales after the first `after`; a tenth of the classes is hidden."""
        skipped = sum(side**2 for side in self.scales[:after])

        def loss(pictures: Tensor, classes: Tensor) -> Tensor:
            maps, codes = encoded(F.pixel_unshuffle(pictures, self.patch), self.codebook, self.scales)
            hidden = torch.rand(len(classes), generator=generator) < 0.1
            seen = torch.where(hidden, torch.full_like(classes, self.classes), classes)
            logits = network.run(maps, 0, network.class_embed(seen), None, None)
            return F.cross_entropy(logits[:, skipped:].flatten(0, 1), codes[:, skipped:].flatten())

        return loss


def area(x: Tensor, side: int) -> Tensor:
    """Maps averaged to a smaller side."""
    return x if x.shape[-1] == side else F.interpolate(x, size=(side, side), mode="area")


def enlarged(x: Tensor, side: int) -> Tensor:
    """Maps at a larger side, bicubic as the release has it."""
    return x if x.shape[-1] == side else F.interpolate(x, size=(side, side), mode="bicubic")


def drawn(logits: Tensor, uniform: Tensor, top_k: int, top_p: float) -> Tensor:
    """Codes [batch, tokens] where the cumulated probability passes `uniform`; unlikely codes are cut off first."""
    probabilities = logits.float().softmax(-1)
    ordered, order = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(ordered.shape[-1], device=ordered.device)
    ordered = ordered.masked_fill((before >= top_p) | (rank >= top_k), 0.0)
    cumulated = ordered.cumsum(-1)
    at = (cumulated < uniform[..., None] * cumulated[..., -1:]).sum(-1, keepdim=True).clamp(max=ordered.shape[-1] - 1)
    return order.gather(-1, at)[..., 0]


def encoded(maps: Tensor, codebook: Tensor, scales: list[int]) -> tuple[list[Tensor], Tensor]:
    """What the network is given before each scale, and the codes of all scales [batch, tokens]."""
    total, inputs, codes = torch.zeros_like(maps), [], []
    for side in scales:
        inputs.append(area(total, side))
        rest = area(maps - total, side).flatten(2).transpose(1, 2)
        found = torch.cdist(rest, codebook[None]).argmin(-1)
        codes.append(found)
        new = F.embedding(found, codebook).transpose(1, 2).unflatten(-1, (side, side))
        total = total + enlarged(new, scales[-1])
    return inputs, torch.cat(codes, dim=1)


def codebook_of(maps: Tensor, scales: list[int], codes: int, generator: torch.Generator, rounds: int = 8) -> Tensor:
    """Centres of the residuals of all scales by Lloyd's algorithm, refound as the residuals change."""
    vectors = torch.cat([area(maps, side).flatten(2).transpose(1, 2).flatten(0, 1) for side in scales])
    book = vectors[torch.randperm(len(vectors), generator=generator)[:codes]].clone()
    for _ in range(rounds):
        total, found, owners = torch.zeros_like(maps), [], []
        for side in scales:
            rest = area(maps - total, side).flatten(2).transpose(1, 2)
            owner = torch.cdist(rest, book[None]).argmin(-1)
            found.append(rest.flatten(0, 1))
            owners.append(owner.flatten())
            new = F.embedding(owner, book).transpose(1, 2).unflatten(-1, (side, side))
            total = total + enlarged(new, scales[-1])
        rows, owner = torch.cat(found), torch.cat(owners)
        sums = torch.zeros_like(book).index_add_(0, owner, rows)
        counts = torch.bincount(owner, minlength=codes)[:, None]
        book = torch.where(counts > 0, sums / counts.clamp(min=1), book)
    return book


def var(
    *,
    width: PositiveInt = 96,
    heads: PositiveInt = 4,
    depth: PositiveInt = 6,
    scales: Blocks = [1, 2, 4, 8],  # noqa: B006
    codes: PositiveInt = 64,
    code: PositiveInt = 4,
    classes: PositiveInt = 10,
    top_k: PositiveInt = 900,
    top_p: float = 0.96,
    guidance: float | None = None,
    shared: bool = False,
) -> Var:
    """A next-scale transformer in evaluation mode with random weights.

    Args:
        width: features per token; a multiple of `heads`.
        heads: of attention.
        depth: blocks.
        scales: sides of the maps, growing.
        codes: of the codebook.
        code: numbers of one code; 4 are a patch of 2 x 2 pixels.
        classes: that pictures may be asked for, beside the empty one.
        top_k: likeliest codes that may be drawn.
        top_p: probability that these hold together.
        guidance: scale at the last map where the case names none.
        shared: blocks are told by one map of the class, to which each adds numbers of its own.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % heads:
        raise ValueError(f"width={width} is not a multiple of heads={heads}")
    if sorted(set(scales)) != list(scales):
        raise ValueError(f"scales={scales} do not grow from map to map")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p:g} is no probability above 0")
    return Var(
        width=width, heads=heads, depth=depth, scales=scales, codes=codes, code=code, classes=classes, top_k=top_k,
        top_p=top_p, guidance=guidance, shared=shared,
    ).eval()  # fmt: skip


def var_of_depth(
    *,
    depth: PositiveInt = 16,
    codes: PositiveInt = 4096,
    scales: Blocks = SCALES,
    shared: bool = False,
) -> Var:
    """The released network of a depth: width 64 x depth, as many heads as blocks, codes of 32 numbers.

    The release computes what blocks share once an image, and this one once a scale.

    Args:
        depth: blocks: 16, 20, 24 or 30 were released at 256 px, 36 at 512 px.
        codes: of the codebook.
        scales: sides of the maps; those of 256 px are the default.
        shared: blocks are told by one map of the class, as in the network of 512 px.
    """
    return var(
        width=64 * depth, heads=depth, depth=depth, scales=scales, codes=codes, code=32, classes=1000, guidance=1.5,
        shared=shared,
    )  # fmt: skip
