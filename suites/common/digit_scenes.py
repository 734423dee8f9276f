"""Scenes of 4 x 4 cells with digits, questions about them, and how both become the ids of a prompt.

A scene is 32 x 32 pixels of 16 grey levels; about half of its cells hold a digit, moved by up to one pixel. The id of a
visual token is its patch, four bits per pixel, so that a prompt is whole numbers and nothing else: which ids are
patches follows from their place. A question is four words, the last of which asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from suites.common import digits_data as data

CELLS, CELL = 4, 8
SIDE = CELLS * CELL
LEVELS = 16
#: Of 2 OFTEN + 1 digits one is moved each way along an axis.
OFTEN = 4
#: Words 0..9 are digits and numbers.
NONE, ROW, COLUMN, SCREEN, MOVE = 10, 11, 15, 19, 24
LEFT, RIGHT, UP, DOWN = range(MOVE, MOVE + 4)
BEGIN, PAD, ASK, SEGMENT, DIGIT_AT, HOW_MANY, WHICH_ROW, MASK_OF, POINTER, MASK_AT = range(28, 38)
WORDS = 40
#: Words of a question, and screens that there are words for: the current one and those before it.
QUESTION, SCREENS = 4, 5


@dataclass(frozen=True)
class Scenes:
    """Scenes: levels [n, 32, 32] in 0..15 and the digit of every cell [n, 4, 4], `NONE` where it is empty."""

    levels: Tensor
    cells: Tensor

    def __len__(self) -> int:
        return len(self.levels)


def scenes(count: int, known: Tensor, generator: torch.Generator) -> Scenes:
    """Random scenes of the digits `known` (indices of scikit-learn's images); at least one cell is filled."""
    shape = (count, CELLS, CELLS)
    filled = torch.rand(shape, generator=generator) < 0.5
    filled[:, 0, 0] |= ~filled.flatten(1).any(dim=1)
    chosen = known[torch.randint(len(known), shape, generator=generator)]
    moves = torch.randint(-OFTEN, OFTEN + 1, (*shape, 2), generator=generator).div(OFTEN, rounding_mode="trunc")
    small = _moved((data.digits()[0] * (LEVELS - 1)).round().long(), chosen, moves)
    small = torch.where(filled[..., None, None], small, 0)
    levels = small.permute(0, 1, 3, 2, 4).reshape(count, SIDE, SIDE)
    labels = data.labels(chosen.flatten()).reshape(shape)
    return Scenes(levels, torch.where(filled, labels, NONE))


def _moved(images: Tensor, chosen: Tensor, moves: Tensor) -> Tensor:
    """Chosen 8 x 8 images moved by -1, 0 or 1 pixel each way, what leaves the cell cut off."""
    wide = torch.nn.functional.pad(images, (1, 1, 1, 1))
    along = torch.arange(CELL)
    rows = (1 - moves[..., 0])[..., None] + along
    columns = (1 - moves[..., 1])[..., None] + along
    return wide[chosen[..., None, None], rows[..., :, None], columns[..., None, :]]


@cache
def patch_order(patch: int, views: int) -> Tensor:
    """Which patch, counted in raster order, each visual token of a scene is, [tokens].

    `views` = 1 is raster order; 4 are the quadrants, one after the other, each in raster order.
    """
    side = SIDE // patch
    index = torch.arange(side * side, device="cpu").reshape(side, side)
    if views == 1:
        return index.flatten()
    half = side // 2
    parts = [index[r : r + half, c : c + half].flatten() for r in (0, half) for c in (0, half)]
    return torch.cat(parts)


def cell_of(patch: int, views: int = 1) -> Tensor:
    """The cell (0..15, raster order) that each visual token lies in, [tokens]."""
    order, side, wide = patch_order(patch, views), SIDE // patch, CELL // patch
    return order // side // wide * CELLS + order % side // wide


def offset_of(patch: int, views: int = 1) -> Tensor:
    """Where in its cell each visual token lies, counted in raster order, [tokens]."""
    order, side, wide = patch_order(patch, views), SIDE // patch, CELL // patch
    return order // side % wide * wide + order % side % wide


def packed(levels: Tensor, patch: int, views: int = 1) -> Tensor:
    """Ids of the visual tokens of scenes [n, 32, 32], [n, tokens]: four bits per pixel, the first pixel lowest."""
    side = SIDE // patch
    tiles = levels.reshape(-1, side, patch, side, patch).permute(0, 1, 3, 2, 4).reshape(len(levels), side**2, -1)
    bits = 4 * torch.arange(patch**2)
    return (tiles << bits).sum(dim=-1)[:, patch_order(patch, views)]


def unpacked(ids: Tensor, patch: int, dtype: torch.dtype) -> Tensor:
    """Normalised pixels of visual ids [..., tokens], [..., tokens, patch^2]."""
    bits = 4 * torch.arange(patch**2, device=ids.device)
    levels = (ids[..., None] >> bits) & (LEVELS - 1)
    return (levels.to(dtype) / (LEVELS - 1) - 0.15) / 0.3


@dataclass(frozen=True)
class Questions:
    """Words [n, 4] and the answer [n]; `kind` names them."""

    kind: str
    words: Tensor
    answers: Tensor


def position_questions(seen: Scenes, generator: torch.Generator, which: int = DIGIT_AT) -> Questions:
    """ "Digit at row r, column c": a filled cell three times in four; `which` may name a screen instead."""
    n = len(seen)
    weights = torch.where(seen.cells.flatten(1) == NONE, 1.0, 3.0)
    cell = torch.multinomial(weights, 1, generator=generator)[:, 0]
    words = torch.stack(
        [torch.full((n,), which), ROW + cell // CELLS, COLUMN + cell % CELLS, torch.full((n,), ASK)], dim=1
    )
    return Questions("position", words, seen.cells.flatten(1).gather(1, cell[:, None])[:, 0])


def about(word: int, digit: Tensor, last: int = ASK) -> Tensor:
    """Questions of a kind about one word each, [n, 4]."""
    n = len(digit)
    return torch.stack([torch.full((n,), word), digit, torch.full((n,), PAD), torch.full((n,), last)], dim=1)


def _some_digit(seen: Scenes, generator: torch.Generator) -> Tensor:
    """A digit that is in the scene, [n]."""
    cells = seen.cells.flatten(1)
    cell = torch.multinomial((cells != NONE).float(), 1, generator=generator)
    return cells.gather(1, cell)[:, 0]


def count_questions(seen: Scenes, generator: torch.Generator) -> Questions:
    """ "How many d": a digit that is there two times in three, any digit else."""
    n = len(seen)
    there, other = _some_digit(seen, generator), torch.randint(10, (n,), generator=generator)
    digit = torch.where(torch.rand(n, generator=generator) < 2 / 3, there, other)
    count = (seen.cells.flatten(1) == digit[:, None]).sum(dim=1)
    return Questions("count", about(HOW_MANY, digit), count)


def search_questions(seen: Scenes, generator: torch.Generator) -> Questions:
    """ "Which row has d": a digit of the scene; if several rows have it, the first is right."""
    digit = _some_digit(seen, generator)
    rows = (seen.cells == digit[:, None, None]).any(dim=2)
    return Questions("search", about(WHICH_ROW, digit), ROW + rows.float().argmax(dim=1))


def mask_questions(seen: Scenes, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """ "Mask of d": words that end with `SEGMENT`, and the cells that show it [n, 16]."""
    digit = _some_digit(seen, generator)
    return about(MASK_OF, digit, SEGMENT), seen.cells.flatten(1) == digit[:, None]


def placed_mask_questions(seen: Scenes, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """ "Mask of the digit at row r, column c": a filled cell, and all cells that show its digit [n, 16].

    Which digit that is stands in the picture alone, so that it has to be read before anything can be marked.
    """
    cells = seen.cells.flatten(1)
    cell = torch.multinomial((cells != NONE).float(), 1, generator=generator)
    at = cell[:, 0]
    words = torch.full((len(seen), QUESTION), MASK_AT)
    words[:, 1], words[:, 2], words[:, 3] = ROW + at // CELLS, COLUMN + at % CELLS, SEGMENT
    return words, cells == cells.gather(1, cell)


def pointer_after(start: Tensor, moves: Tensor) -> Tensor:
    """Row of a pointer [n] that starts in a row and is moved by words [n, steps]; it wraps around."""
    return (start + (moves == DOWN).sum(dim=1) - (moves == UP).sum(dim=1)) % CELLS
