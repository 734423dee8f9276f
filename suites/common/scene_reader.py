"""The house's small vision-language model: a vision transformer, one linear map, a decoder; it reads digit scenes.

So that a minute or two of training are enough, the model starts with what larger ones take long to find. A visual
token gets a vector of its cell's row and one of its column, which start as the words "row r" and "column c"; a word
behind the pictures gets the vectors of the three words before it, so that a question's last word holds the question;
keys start by the queries' map and output maps as the values' transposed, so that equal vectors find and copy each
other from the first step; but for one direction that all words share and keys see mirrored, so that a word finds what
is equal to it in the pictures before it finds itself. The tower has a patch map for each place in a cell.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common import digit_scenes as scenes
from suites.common.decoder import Decoder
from suites.common.decoder_shape import uniform
from suites.common.initial import draw
from suites.common.predecessors import with_predecessors
from suites.common.visual_decoder import View, VisualDecoder
from suites.common.vit import Block

#: Spread of the words' vectors as they start, how much less of it words have that only say what is asked, and the share
#: of a vector's length that every word has along one direction.
WORD, QUIET, MARK = 0.7, 0.5, 0.33


class SceneTower(nn.Module):
    """A vision transformer with a class token over the patches of a picture; `patch_ids` in, `View` out."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, cell: Tensor, offset: Tensor):
        super().__init__()
        tokens = len(cell)
        self.patch = patch
        self.embed = nn.Parameter(torch.empty(tokens, patch**2, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.zeros(1, tokens + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self._start(cell, offset)

    @torch.no_grad()
    def _start(self, cell: Tensor, offset: Tensor) -> None:
        """Patches of one cell begin alike in place, and patches at one place of their cells in their map."""
        if self.place.is_meta:
            return
        width = self.place.shape[2]
        draw(self.place)
        self.place[0, 1:] += 3 * torch.randn(int(cell.max()) + 1, width)[cell]
        maps = torch.randn(int(offset.max()) + 1, self.patch**2, width) / self.patch
        self.embed.copy_(maps[offset])
        for index, block in enumerate(self.blocks):  # the first gathers a cell's patches, each of which has its part
            copying(block.attn.qkv.weight, block.attn.proj.weight, 0.5 if index else 4.0)  # type: ignore[union-attr, arg-type]

    def forward(self, ids: Tensor) -> View:
        """The view of pictures whose visual ids are [pictures, tokens]."""
        pixels = scenes.unpacked(ids, self.patch, self.place.dtype)
        x = (pixels.transpose(0, 1) @ self.embed).transpose(0, 1)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            attended, q, k = self._attended(block, x)
            x = x + attended
            x = x + block.mlp(block.norm2(x))  # type: ignore[operator]
        return View(self.norm(x)[:, 1:], q, k, True)

    def _attended(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a block attends to, its queries and its keys; places are in queries and keys, and not in values."""
        width, linear = x.shape[2], block.attn.qkv
        placed = F.linear(block.norm1(x + self.place), linear.weight[: 2 * width], linear.bias[: 2 * width])
        v = F.linear(block.norm1(x), linear.weight[2 * width :], linear.bias[2 * width :])
        q, k, v = (part.unflatten(-1, (block.attn.heads, -1)).transpose(1, 2) for part in (*placed.chunk(2, -1), v))
        attended = F.scaled_dot_product_attention(q, k, v)
        return block.attn.proj(attended.transpose(1, 2).flatten(2)), q, k


@torch.no_grad()
def copying(qkv: Tensor, out: Tensor, gain: float) -> None:
    """Let an attention [3 width, width] start with keys like queries and an output map that copies values by `gain`."""
    width = len(out)
    draw(qkv[:width], width**-0.5)
    qkv[width : 2 * width].copy_(qkv[:width])
    nn.init.orthogonal_(qkv[2 * width :])
    out.copy_(gain * qkv[2 * width :].t())


class SceneProjector(nn.Module):
    """One linear map, and vectors of the row and column of each token's cell and of how long ago its screen was."""

    cell: Tensor

    def __init__(self, width: int, out: int, cell: Tensor, tokens: int, screens: int):
        super().__init__()
        self.tokens = tokens
        self.linear = nn.Linear(width, out)
        self.row = nn.Parameter(torch.zeros(scenes.CELLS, out))
        self.column = nn.Parameter(torch.zeros(scenes.CELLS, out))
        self.screen = nn.Parameter(torch.zeros(screens, out)) if screens > 1 else None
        self.register_buffer("cell", cell.to(self.row.device), persistent=False)
        draw(self.linear.weight, 0.5 * width**-0.5)

    def forward(self, features: Tensor, pictures: int, index: Tensor | None = None) -> Tensor:
        """Visual tokens [batch x pictures, tokens, out]; pictures are views of a scene, or a history's last screens.

        `index` [batch x pictures, tokens] says which tokens of its picture these are, where some were taken out.
        """
        row, column = self.row[self.cell // scenes.CELLS], self.column[self.cell % scenes.CELLS]
        place = (row + column).reshape(-1, self.tokens, row.shape[1])
        if self.screen is not None:
            place = place + self.screen[:pictures].flip(0)[:, None]
        place = place.repeat(len(features) // len(place), 1, 1)
        if index is not None:
            place = place.gather(1, index[..., None].expand(-1, -1, place.shape[2]))
        return self.linear(features) + place


class SceneReader(VisualDecoder):
    """The decoder of scenes.

    Attributes:
        patch, views: of the tower: pixels of a patch's side; 4: a scene is read as its quadrants.
        history: scenes before the last one, an action word behind each.
    """

    def __init__(
        self, width: int, layers: int, heads: int, hidden: int, depth: int, patch: int, kind: str, history: int
    ):
        views = 4 if kind == "views" else 1
        cell = scenes.cell_of(patch, views)
        tokens = len(cell) // views
        shape = uniform(width=width, layers=layers, heads=heads, hidden=hidden, vocabulary=scenes.WORDS)
        screens = kind == "screens"
        images = 1 + history if screens else views
        offset = scenes.offset_of(patch, views)
        super().__init__(
            SceneTower(width, depth, heads, patch, cell[:tokens], offset[:tokens]),
            SceneProjector(width, width, cell, tokens, images if screens else 1),
            Decoder(shape),
            tokens=tokens,
            images=images,
            prefix=1 + int(screens),
            between=int(screens),
        )
        self.patch, self.views, self.history, self.kind = patch, views, history if screens else 0, kind
        self.segment = nn.Linear(width, width)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        decoder, width = self.decoder, self.decoder.embed.embedding_dim
        words = decoder.embed.weight
        if words.is_meta:
            return
        draw(words, WORD)
        words[scenes.BEGIN :] *= QUIET
        decoder.head.weight.copy_(0.15 * words)
        draw(self.segment.weight, 0.02)
        self.projector.row.copy_(words[scenes.ROW : scenes.ROW + scenes.CELLS])  # type: ignore[operator]
        self.projector.column.copy_(words[scenes.COLUMN : scenes.COLUMN + scenes.CELLS])  # type: ignore[operator]
        if self.projector.screen is not None:
            self.projector.screen.copy_(words[scenes.SCREEN : scenes.SCREEN + len(self.projector.screen)])  # type: ignore[operator, arg-type]
        mark = nn.functional.normalize(torch.randn(width, dtype=words.dtype), dim=0)
        words += MARK * WORD * width**0.5 * mark
        mirror = torch.eye(width, dtype=words.dtype) - 2 * torch.outer(mark, mark)
        for block in decoder.blocks:
            attention = block.attention
            draw(attention.q.weight, 1.6 * attention.q.in_features**-0.5)
            attention.k.weight.copy_(attention.q.weight @ mirror)
            nn.init.orthogonal_(attention.v.weight)
            attention.out.weight.copy_(0.3 * attention.v.weight.t())
            for linear in (block.network.gate, block.network.up, block.network.down):
                draw(linear.weight, 0.5 * linear.in_features**-0.5)

    def words(self, ids: Tensor) -> list[Tensor]:
        """Features of the words; those behind the pictures with the vectors of the three before them added."""
        *before, question = super().words(ids)
        return [*before, with_predecessors(question, scenes.QUESTION - 1)]

    def masks(self, ids: Tensor) -> Tensor:
        """Logits of each patch of the picture [batch, patches] for prompts that end with the word for a mask."""
        seen = self.see(ids)
        last = self.along(self.stream(ids, seen))[:, -1]
        return self.mask_logits(last, seen.view.features.reshape(len(ids), -1, last.shape[-1]))

    def mask_logits(self, last: Tensor, features: Tensor) -> Tensor:
        """Logits of each patch [batch, patches] from the state [batch, width] of the word that asks for a mask.

        `features` are the tower's, [batch, patches, width].
        """
        return (features @ self.segment(last)[..., None])[..., 0] * last.shape[-1] ** -0.5

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Prompts of made scenes of held-out digits that end with a question, [batch, tokens]."""
        from suites.common.tasks.digit_scenes import example_prompts

        with torch.device("cpu"):  # scenes are drawn by values, which the meta device has none of
            prompts = example_prompts(self, batch, 0)
        return (prompts.to(self.decoder.head.weight.device),)


def scene_reader(
    *, width: PositiveInt = 96, layers: PositiveInt = 8, heads: PositiveInt = 4, hidden: PositiveInt = 256,
    depth: PositiveInt = 3, patch: Literal[2, 4] = 4, kind: Literal["scene", "places", "views", "screens"] = "scene",
    history: Count = 2,
) -> SceneReader:  # fmt: skip
    """The reader in evaluation mode with random weights.

    Args:
        width: features per token, of tower and decoder.
        layers: blocks of the decoder.
        heads: heads, of an even size.
        hidden: width of the gated network.
        depth: blocks of the tower.
        patch: side of a patch in pixels; a scene is (32 / patch)^2 visual tokens.
        kind: one scene, the same with masks asked for by place, in four views, or screens with actions between them.
        history: screens before the current one, of the kind `screens`.

    Raises:
        ValueError: sizes that do not fit.
    """
    if width % heads or (width // heads) % 2:
        raise ValueError(f"width={width} does not part into {heads} heads of an even size")
    if history >= scenes.SCREENS and kind == "screens":
        raise ValueError(f"history={history}: there are words for at most {scenes.SCREENS - 1} screens of history")
    return SceneReader(width, layers, heads, hidden, depth, patch, kind, history).eval()
