"""From a picture's size in pixels to its visual tokens, where a model's tokens depend on it; pure whole numbers.

LLaVA-NeXT sees a picture once as a whole and once in tiles of 336 px on the grid, of five, that wastes least of it;
patches of the grid that show only padding are left out and every row of patches ends with a newline token. Qwen2-VL
and Qwen2.5-VL scale a picture to multiples of 28 px within bounds of its area; a token is 2 x 2 patches of 14 px. The
towers' products follow from the patches: those of Qwen2-VL attend to the whole picture, those of Qwen2.5-VL in
windows of 112 px in all but four of 32 layers.
"""

from __future__ import annotations

import math

#: Of LLaVA-NeXT: side of a tile, patches of its side, and the grids of tiles, rows and columns.
TILE, TILE_PATCHES = 336, 24
GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))

#: Of Qwen2-VL: pixels of a token's side, and least and most pixels of a picture.
TOKEN = 28
LEAST, MOST = 4 * TOKEN**2, 1280 * TOKEN**2
#: Its tower and that of Qwen2.5-VL: width, layers, patches of a window's side, layers that attend to the whole picture.
WIDTH, LAYERS, WINDOW, WHOLE = 1280, 32, 8, 4


def next_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of LLaVA-NeXT's tiles: most of the picture's own pixels shown, then least waste.

    Raises:
        ValueError: a side below one pixel.
    """
    _check(height, width)

    def shown(grid: tuple[int, int]) -> tuple[int, int]:
        rows, columns = grid[0] * TILE, grid[1] * TILE
        if columns * height <= rows * width:  # the width decides
            pixels = columns * (height * columns // width)
        else:
            pixels = rows * (width * rows // height)
        pixels = min(pixels, height * width)
        return pixels, pixels - rows * columns

    return max(GRIDS, key=shown)


def next_tokens(height: int, width: int) -> int:
    """Visual tokens of LLaVA-NeXT: 576 of the whole picture, its tiles without padding, a newline for each row.

    Padding is the same on both sides, so that an odd row or column of it stays.
    """
    rows, columns = (TILE_PATCHES * count for count in next_grid(height, width))
    if width * rows > height * columns:
        rows -= (rows - height * columns // width) // 2 * 2
    else:
        columns -= (columns - width * rows // height) // 2 * 2
    return TILE_PATCHES**2 + rows * columns + rows


def qwen_patches(height: int, width: int, least: int = LEAST, most: int = MOST) -> tuple[int, int]:
    """Rows and columns of patches of 14 px that a tower of Qwen2-VL or Qwen2.5-VL sees.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        least: pixels that it is enlarged to.
        most: pixels that it is made smaller to.

    Raises:
        ValueError: a side below one pixel.
    """
    _check(height, width)
    rows, columns = round(height / TOKEN), round(width / TOKEN)
    if rows * columns * TOKEN**2 > most:
        by = math.sqrt(height * width / most)
        rows, columns = (max(1, math.floor(side / by / TOKEN)) for side in (height, width))
    elif rows * columns * TOKEN**2 < least:
        by = math.sqrt(least / (height * width))
        rows, columns = (math.ceil(side * by / TOKEN) for side in (height, width))
    return 2 * rows, 2 * columns


def qwen_tokens(height: int, width: int, least: int = LEAST, most: int = MOST) -> int:
    """Visual tokens of Qwen2-VL and Qwen2.5-VL: one for every 2 x 2 patches."""
    rows, columns = qwen_patches(height, width, least, most)
    return rows * columns // 4


def qwen2_tower_macs(rows: int, columns: int, out: int = 3584, width: int = WIDTH, layers: int = LAYERS) -> int:
    """Products of Qwen2-VL's tower and merger on so many patches; two frames make a patch, of a picture twice the same.

    Args:
        rows: of patches.
        columns: of patches.
        out: width of the decoder.
        width: of the tower.
        layers: of the tower, with an MLP of four times its width.
    """
    n = rows * columns
    blocks = layers * (12 * n * width**2 + 2 * n**2 * width)
    return _embedded(n, width) + blocks + _merged(n, width, out)


def qwen2_5_tower_macs(
    rows: int, columns: int, out: int = 2048, width: int = WIDTH, layers: int = LAYERS, hidden: int = 3420,
    whole: int = WHOLE,
) -> int:  # fmt: skip
    """Products of Qwen2.5-VL's tower and merger: a gated MLP, and windows in all layers but `whole` of them."""
    n = rows * columns
    seen = _squares(rows) * _squares(columns)
    attended = 2 * width * (whole * n**2 + (layers - whole) * seen)
    return _embedded(n, width) + layers * n * (4 * width**2 + 3 * width * hidden) + attended + _merged(n, width, out)


def _squares(side: int) -> int:
    """Sum of the squares of the lengths that windows part a side into; the last one may be shorter."""
    return sum(min(WINDOW, side - begin) ** 2 for begin in range(0, side, WINDOW))


def _embedded(n: int, width: int) -> int:
    return n * 2 * 3 * 14**2 * width


def _merged(n: int, width: int, out: int) -> int:
    return n // 4 * ((4 * width) ** 2 + 4 * width * out)


def _check(*sides: int) -> None:
    if any(not isinstance(side, int) or side < 1 for side in sides):
        raise ValueError(f"a picture of {' x '.join(map(str, sides))} pixels: both sides are whole numbers from 1 on")
