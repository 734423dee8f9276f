"""Scale-DiT: windows for high-resolution tokens and low-resolution tokens as anchors; arXiv 2510.16325 (2025).

A low-resolution picture is sampled as usual; then tokens of the large one see their own window and all anchors, which
are clean, stand where their area is, carry a time of their own and a low-rank adapter on their path. In
window order the windows are contiguous blocks. Ours: the class reaches the tokens by adaptive layer norm, so that
there are no text tokens; window sizes in tokens; how many steps either picture takes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.dit import Block, Dit, modulated
from suites.common.finetuning import finetuned, teacher_for
from suites.common.rectified_flow import Course, FlowModel, flow_loss
from suites.diffusion.stages import fresh_noise, resized
from suites.diffusion.subjects import as_kind, tell_pairs

Order = Literal["raster", "window", "hilbert"]


def scale_dit(
    model: nn.Module,
    *,
    window: PositiveInt = 8,
    anchor: Count = 8,
    order: Literal["raster", "window", "hilbert"] = "window",
    rank: Count = 4,
    low_steps: PositiveInt = 4,
    high_steps: Count = 0,
    training_steps: Count = 0,
) -> Dit:
    """The transformer whose tokens attend in windows, beside the tokens of a small picture made first.

    Args:
        model: a diffusion transformer that knows the anchors' resolution too.
        window: side of a window in tokens.
        anchor: side of the small picture in tokens; 0 has none.
        order: of the tokens; `raster` multiplies everything and masks, the others read windows as blocks.
        rank: of the adapter on the anchors' path; 0 has none.
        low_steps: steps of the small picture.
        high_steps: steps of the large one; 0 takes as many as the case asks for.
        training_steps: batches of 32 to learn from.

    Raises:
        ValueError: the model is no diffusion transformer, or windows or anchors do not fit its grid.
    """
    dit = as_kind(model, Dit, "scale_dit", "digit_dit256", videos=False)
    side = dit.resolution // dit.patch
    if side % window or anchor > side:
        raise ValueError(f"window={window} and anchor={anchor} do not fit a grid of {side} x {side} tokens")
    if order == "hilbert" and (side & (side - 1) or window & (window - 1)):
        raise ValueError(f"the Hilbert order needs sides that are powers of two, not {side} and {window}")
    teacher = teacher_for(dit, training_steps)
    for block in dit.blocks:
        block.lora = Lora(block, rank) if rank and anchor else None
    course = ScaleDit(window, anchor, order, low_steps, high_steps)
    dit.course = course
    settings = {"window": window, "anchor": anchor, "rank": rank}
    loss = _loss(dit, course) if teacher is not None else None
    fresh = [p for block in dit.blocks if block.lora is not None for p in block.lora.parameters()]
    return finetuned(dit, teacher, scale_dit, settings, training_steps, loss=loss, fresh=fresh)


class Lora(nn.Module):
    """Low-rank additions to the four linear layers of a block; they start at zero."""

    def __init__(self, block: Block, rank: int):
        super().__init__()
        layers: dict[str, Any] = {
            "qkv": block.attn.qkv,
            "proj": block.attn.proj,
            "up": block.mlp[0],
            "down": block.mlp[2],
        }
        self.inner = nn.ModuleDict({k: nn.Linear(x.in_features, rank, bias=False) for k, x in layers.items()})
        self.outer = nn.ModuleDict({k: nn.Linear(rank, x.out_features, bias=False) for k, x in layers.items()})
        for weight in self.outer.parameters():
            nn.init.zeros_(weight)

    def forward(self, name: str, x: Tensor) -> Tensor:
        """What is added to the layer of that name."""
        return self.outer[name](self.inner[name](x))


class ScaleDit(Course):
    """Steps of the small picture, then steps of the large one beside it."""

    def __init__(self, window: int, anchor: int, order: Order, low_steps: int, high_steps: int = 0):
        self.window, self.anchor, self.order = window, anchor, order
        self.low_steps, self.high_steps = low_steps, high_steps

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """`low_steps` small steps where there are anchors, then `high_steps` large ones, or `count` of them."""
        assert isinstance(model, Dit)
        low = [] if not self.anchor else [self._small(model, step) for step in model.euler(self.low_steps)]
        high_macs = model.branches * step_macs(model, self.window, self.anchor, self.order)
        high = [
            {**step, "index": len(low) + step["index"], "mode": "windows", "macs": high_macs}
            for step in model.euler(self.high_steps or count)
        ]
        small = sum(step["macs"] for step in low)
        each = mask_macs(model, self.window, self.anchor)
        tell_pairs(model, *(small + model.branches * len(high) * macs for macs in each))
        return low + high

    def _small(self, model: Dit, step: dict[str, Any]) -> dict[str, Any]:
        side = self.anchor * model.patch
        macs = model.branches * model.evaluation_macs(side)
        return {**step, "mode": "anchors", "side": side, "macs": macs}

    def start(self, model: FlowModel, state: dict[str, Any]) -> dict[str, Any]:
        """The noise of the large picture, and noise of its own for the small one."""
        if not self.anchor:
            return state
        assert isinstance(model, Dit)
        return {**state, "small": fresh_noise(state["x"], self.anchor * model.patch, 0)}

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """An Euler step of the small or of the large picture."""
        assert isinstance(model, Dit)
        now = model.steps_planned[index]
        if now["mode"] == "anchors":
            velocity = model.guided(state["small"], now["t"], state["classes"])
            return {**state, "small": state["small"] - now["dt"] * velocity}
        small = state.get("small")

        def network(x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
            own = None if small is None else small.repeat(len(x) // len(small), 1, 1, 1)
            return velocity_beside(model, x, own, t, classes, self.window, self.order)

        velocity = model.guided(state["x"], now["t"], state["classes"], network)
        return {**state, "x": state["x"] - now["dt"] * velocity}


def velocity_beside(
    model: Dit, x: Tensor, small: Tensor | None, t: Tensor, classes: Tensor, window: int, order: Order
) -> Tensor:
    """Velocities of large pictures whose tokens see their window and the tokens of the small ones."""
    side = x.shape[-1] // model.patch
    places = ordered(side, window, order, x.device)
    condition = model.condition(t, classes)
    high = model.embedded(x)[:, places]
    low = None if small is None else model.embedded(small)
    low_condition = None if small is None else model.condition(torch.zeros_like(t), classes)
    for block in model.blocks:
        high, low = _block(block, high, low, condition, low_condition, (side, window, order))
    back = torch.empty_like(places)
    back[places] = torch.arange(len(places), device=x.device)
    return model.unpatched(model.last(high[:, back], condition), side)


def _block(
    block: Any, high: Tensor, low: Tensor | None, condition: Tensor, low_condition: Tensor | None,
    grid: tuple[int, int, Order],
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Both kinds of tokens after one block."""
    lora = getattr(block, "lora", None)
    of_high = block.modulation(condition).chunk(6, dim=1)
    q, k, v = _heads(block, modulated(block.norm1(high), of_high[0], of_high[1]), None)
    if low is None or low_condition is None:
        return _finished(block, high, _in_windows(q, k, v, None, grid), of_high, None), None
    of_low = block.modulation(low_condition).chunk(6, dim=1)
    low_q, low_k, low_v = _heads(block, modulated(block.norm1(low), of_low[0], of_low[1]), lora)
    anchors = F.scaled_dot_product_attention(low_q, low_k, low_v).transpose(1, 2).flatten(2)
    attended = _in_windows(q, k, v, (low_k, low_v), grid)
    return _finished(block, high, attended, of_high, None), _finished(block, low, anchors, of_low, lora)


def _heads(block: Any, x: Tensor, lora: Lora | None) -> tuple[Tensor, ...]:
    qkv = block.attn.qkv(x) if lora is None else block.attn.qkv(x) + lora("qkv", x)
    return qkv.unflatten(-1, (3, block.attn.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _finished(block: Any, x: Tensor, attended: Tensor, told: tuple[Tensor, ...], lora: Lora | None) -> Tensor:
    added = block.attn.proj(attended) if lora is None else block.attn.proj(attended) + lora("proj", attended)
    x = x + told[2][:, None] * added
    inner = modulated(block.norm2(x), told[3], told[4])
    if lora is None:
        return x + told[5][:, None] * block.mlp(inner)
    wide = block.mlp[1](block.mlp[0](inner) + lora("up", inner))
    return x + told[5][:, None] * (block.mlp[2](wide) + lora("down", wide))


def _in_windows(
    q: Tensor, k: Tensor, v: Tensor, anchors: tuple[Tensor, Tensor] | None, grid: tuple[int, int, Order]
) -> Tensor:
    """Attention of tokens in their order to their window and the anchors, [batch, tokens, width]."""
    side, window, order = grid
    if order == "raster":
        mask = window_mask(side, window, q.device)
        if anchors is not None:
            k, v = (torch.cat(pair, dim=2) for pair in ((k, anchors[0]), (v, anchors[1])))
            mask = F.pad(mask, (0, anchors[0].shape[2]), value=True)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    batch, count = len(q), (side // window) ** 2
    blocks = [each.unflatten(2, (count, window**2)).transpose(1, 2).flatten(0, 1) for each in (q, k, v)]
    if anchors is not None:
        spread = [each[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1) for each in anchors]
        blocks[1:] = [torch.cat(pair, dim=2) for pair in zip(blocks[1:], spread, strict=True)]
    out = F.scaled_dot_product_attention(*blocks)
    return out.unflatten(0, (batch, count)).permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)


def window_mask(side: int, window: int, device: torch.device | None = None) -> Tensor:
    """Which tokens of a raster share a window, [tokens, tokens]."""
    place = torch.arange(side**2, device=device)
    which = (place // side // window) * (side // window) + place % side // window
    return which[:, None] == which[None]


def ordered(side: int, window: int, order: Order, device: torch.device | None = None) -> Tensor:
    """Raster places in the order in which tokens stand, [tokens]; windows are contiguous but in raster order."""
    place = torch.arange(side**2)
    row, column = place // side, place % side
    if order == "window":
        which = (row // window) * (side // window) + column // window
        place = torch.argsort(which * side**2 + (row % window) * window + column % window)
    elif order == "hilbert":
        place = torch.argsort(torch.tensor([hilbert(side, int(r), int(c)) for r, c in zip(row, column, strict=True)]))
    return place.to(device) if device is not None and device.type != "meta" else place


def hilbert(side: int, row: int, column: int) -> int:
    """Number of a place along the Hilbert curve that fills a square whose side is a power of two."""
    number, half = 0, side // 2
    while half:
        right, below = int(bool(column & half)), int(bool(row & half))
        number += half * half * ((3 * right) ^ below)
        if not below:
            if right:
                column, row = side - 1 - column, side - 1 - row
            column, row = row, column
        half //= 2
    return number


def executed_blocks(side: int, window: int, order: Order, block: int = 128) -> int:
    """Blocks of block x block pairs that hold a pair of one window, as a block-sparse kernel runs them."""
    places = ordered(side, window, order)
    which = (places // side // window) * (side // window) + places % side // window
    count = -(-len(places) // block)
    windows = side // window
    present = torch.zeros(count, windows**2, dtype=torch.long)
    present[torch.arange(len(places)) // block, which] = 1
    return int(((present @ present.T) > 0).sum())


def pairs(high: int, window: int, low: int, text: int = 0) -> int:
    """Pairs of the mask: T (T + H) + H (T + W + R) + R (R + T)."""
    return text * (text + high) + high * (text + window + low) + low * (low + text)


def _loss(dit: Dit, course: ScaleDit) -> Any:
    generator = torch.Generator().manual_seed(0)

    class Beside(nn.Module):
        classes = dit.classes
        clean: Tensor | None = None

        def forward(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
            return velocity_beside(dit, x, self.clean, t, classes, course.window, course.order)

    network = Beside()
    flow = flow_loss(network, generator)  # type: ignore[arg-type]

    def loss(pictures: Tensor, classes: Tensor) -> Tensor:
        network.clean = resized(pictures, course.anchor * dit.patch) if course.anchor else None
        return flow(pictures, classes)

    return loss


def mask_macs(model: Dit, window: int, anchor: int) -> tuple[int, int]:
    """MACs of one evaluation of the large picture with nothing masked, and with the pairs alone that the mask keeps."""
    high, low = (model.resolution // model.patch) ** 2, anchor**2
    kept = step_macs(model, window, anchor, "window")
    more = (high + low) ** 2 - pairs(high, window**2, low)
    return kept + len(model.blocks) * 2 * more * model.width, kept


def step_macs(model: Dit, window: int, anchor: int, order: Order) -> int:
    """MACs of one evaluation of the large picture: pairs that run, linear layers of all tokens, adapters of anchors."""
    side, c, layers = model.resolution // model.patch, model.width, len(model.blocks)
    h, r, w = side**2, anchor**2, window**2
    run = h * ((h if order == "raster" else w) + r) + r * r
    hidden = int(model.ratio * c)
    block = (4 * c**2 + 2 * c * hidden) * (h + r) + 2 * run * c + 6 * c**2 * (2 if r else 1)
    rank = next((b.lora.inner["qkv"].out_features for b in model.blocks if getattr(b, "lora", None) is not None), 0)
    adapter = rank * (c + 3 * c + c + c + c + hidden + hidden + c) * r
    ends = model.ends_macs(h) + (r * model.patch**2 * model.channels * c + 256 * c + c**2 if r else 0)
    return layers * (block + adapter) + ends
