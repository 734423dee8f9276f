"""A decoder that reads pictures of digits as a prefix of pixels and spells them: the visual prefix of methods on
caches.

A pixel's token is its grey level times a vector of its place in the picture, plus that place's own vector and one of
the picture; text has a table. The prefix is read causally, as the vision-language decoders of the papers read their
image tokens. So that a minute of training is enough, what asks for a picture starts as that picture's vector, and keys
start by the queries'
map: equal vectors find each other from the first step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common import digits_data as data
from suites.common.decoder import Decoder
from suites.common.decoder_shape import uniform
from suites.common.initial import draw
from suites.common.tasks.digit_reading import ASK, LEVELS, PIXELS, TEXT, pixel_ids


class PixelsAndText(nn.Module):
    """Embeddings of ids: text below 32, pixels from there on. `weight` is the text's table."""

    def __init__(self, width: int, pictures: int):
        super().__init__()
        self.pictures = pictures
        self.weight = nn.Parameter(torch.empty(TEXT, width))
        self.gain = nn.Parameter(torch.empty(PIXELS, width))
        self.place = nn.Parameter(torch.empty(PIXELS, width))
        self.picture = nn.Parameter(torch.empty(pictures, width))
        for table, std in ((self.weight, 0.5), (self.gain, 0.5), (self.place, 0.2), (self.picture, 0.5)):
            draw(table, std)
        with torch.no_grad():
            self.weight[ASK : ASK + pictures] = self.picture

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of ids, [..., width]."""
        pixel = (ids - TEXT).clamp(min=0)
        places = PIXELS * self.pictures
        level, place = torch.div(pixel, places, rounding_mode="floor"), pixel % places
        spot, number = place % PIXELS, torch.div(place, PIXELS, rounding_mode="floor")
        grey = ((level.to(self.weight.dtype) / (LEVELS - 1) - data.MEAN) / data.STD)[..., None]
        seen = grey * self.gain[spot] + self.place[spot] + self.picture[number]
        said = self.weight[ids.clamp(max=TEXT - 1)]
        return torch.where((ids >= TEXT)[..., None], seen, said)


class DigitsReader(Decoder):
    """The decoder with pixels among its tokens."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int, pictures: int):
        shape = uniform(width=width, layers=layers, heads=heads, hidden=hidden, vocabulary=TEXT)
        super().__init__(shape)
        self.pictures = pictures
        self.embed = PixelsAndText(width, pictures)  # type: ignore[assignment]
        for block in self.blocks:
            for linear in block.modules():
                if isinstance(linear, nn.Linear):  # larger than for text: a picture is the mean of many faint pixels
                    draw(linear.weight, linear.in_features**-0.5)
            with torch.no_grad():
                block.attention.k.weight.copy_(block.attention.q.weight)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Held-out pictures and the first ask, [batch, 64 pictures + 1]."""
        index = data.split()[1]
        rows = torch.arange(batch * self.pictures).reshape(batch, self.pictures) % len(index)
        asks = torch.full((batch, 1), ASK)
        ids = torch.cat([pixel_ids(index[rows], self.pictures), asks], dim=1)
        return (ids.to(self.head.weight.device),)


def digits_reader(
    *, width: PositiveInt = 64, layers: PositiveInt = 3, heads: PositiveInt = 2, hidden: PositiveInt = 172,
    pictures: PositiveInt = 4,
) -> DigitsReader:  # fmt: skip
    """The reader in evaluation mode with random weights.

    Args:
        width: features per token.
        layers: blocks.
        heads: heads, of an even size.
        hidden: width of the gated network.
        pictures: digits of a sample, at most 16.

    Raises:
        ValueError: sizes that do not fit.
    """
    if width % heads or (width // heads) % 2:
        raise ValueError(f"width={width} does not part into {heads} heads of an even size")
    if pictures > TEXT // 2:
        raise ValueError(f"pictures={pictures}: at most {TEXT // 2} can be asked for")
    return DigitsReader(width, layers, heads, hidden, pictures).eval()
