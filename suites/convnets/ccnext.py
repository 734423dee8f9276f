"""CCNeXt: stereo from two views that look at each other row by row, with one of two decoders kept for deployment.

Source: Lopes et al. 2025, CCNeXt, arXiv:2509.22627; layers as released. The views' encoder is timm's ConvNeXt-pico
behind another stem.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import LayerNorm2d
from suites.common.feature_operator import FeatureOperator
from suites.common.timm_bridge import import_timm

#: Channels at strides 2, 4, 8, 16, 32, and of the decoder at those, over the width of the first stage.
ENCODED = (1, 1, 2, 4, 8)
DECODED = (0.25, 0.5, 1, 2, 4)
#: ConvNeXt-pico's first width.
WIDTH = 64
#: A place looks less than this share of a row away.
WINDOW = 0.26
#: Strides (as places in the lists above) with a block behind the decoder's layers, and those with a disparity.
DEEP = (2, 3, 4)
OUTPUTS = (0, 1, 2, 3)


def window_mask(width: int, share: float = WINDOW) -> Tensor:
    """[width, width], true where two places of a row are less than `int(share width)` apart, to both sides.

    Of its entries w (2 m - 1) - m (m - 1) are true: they are masked, not saved.
    """
    place = torch.arange(width)
    return (place[:, None] - place[None, :]).abs() < max(1, int(share * width))


class RowExchange(nn.Module):
    """Each view takes from the other what attention along rows finds.

    No scale on the scores, and an identity at the start.

    `full` computes all of a row and masks; `banded` computes what is in the window alone, a second form of the same.
    """

    def __init__(self, channels: int, share: float = WINDOW, form: str = "full"):
        super().__init__()
        self.share, self.form = share, form
        self.query, self.key = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.value = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.leave = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        for norm in (self.value[1], self.leave[1]):
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.zeros_(norm.weight)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Both views, [batch, channels, h, w] each."""
        attend = self._full if self.form == "full" else self._banded
        one = attend(self.query(left), self.key(right), self.value(right))
        other = attend(self.query(right), self.key(left), self.value(left))
        return left + self.leave(one), right + self.leave(other)

    def _full(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (x.permute(0, 2, 3, 1) for x in (query, key, value))
        mask = window_mask(q.shape[2], self.share).to(q.device)
        scores = (q @ k.transpose(-2, -1)).masked_fill(~mask, -torch.inf)
        return (scores.softmax(-1) @ v).permute(0, 3, 1, 2)

    def _banded(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        reach = max(1, int(self.share * query.shape[-1])) - 1
        size = 2 * reach + 1
        q = query.permute(0, 2, 3, 1).unsqueeze(-2)  # [batch, h, w, 1, channels]
        k, v = (F.pad(x, (reach, reach)).unfold(3, size, 1).permute(0, 2, 3, 1, 4) for x in (key, value))
        place = torch.arange(query.shape[-1], device=q.device)[:, None] + torch.arange(size, device=q.device) - reach
        inside = (place >= 0) & (place < query.shape[-1])
        scores = (q @ k).squeeze(-2).masked_fill(~inside, -torch.inf)
        mixed = v @ scores.softmax(-1).unsqueeze(-1)
        return mixed.squeeze(-1).permute(0, 3, 1, 2)


def _reflected(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")


class _Skip(nn.Module):
    """x + two normalised 1x1 layers, which are an identity at the start; `twice` is the released run of it."""

    def __init__(self, channels: int, once: bool):
        super().__init__()
        self.once = once
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
        )
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.layers(x)
        return y if self.once else torch.stack((y, x + self.layers(x)))[0]


class Decoder(nn.Module):
    """Maps of both views to disparities of one of them at four sizes."""

    def __init__(self, base: int, skip_once: bool):
        super().__init__()
        encoded, decoded = [base * share for share in ENCODED], [int(base * share) for share in DECODED]
        self.mix = nn.ModuleList(nn.Conv2d(2 * c, c, 3, padding=1, bias=False) for c in encoded)
        enter = (*decoded[1:], encoded[-1])
        joined = [inside + (encoded[place] if place < 4 else 0) for place, inside in enumerate(decoded)]
        self.enter = nn.ModuleList(_reflected(a, b) for a, b in zip(enter, decoded, strict=True))
        self.join = nn.ModuleList(_reflected(a, b) for a, b in zip(joined, decoded, strict=True))
        self.skip = nn.ModuleDict({str(place): _Skip(decoded[place], skip_once) for place in DEEP})
        self.disparity = nn.ModuleList(_reflected(decoded[place], 1) for place in OUTPUTS)

    def forward(self, left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
        """Disparities in 0 to 1, [batch, 1, h, w], the finest first."""
        maps = [layer(torch.cat(pair, 1)).relu() for layer, *pair in zip(self.mix, left, right, strict=True)]
        x, found = maps[-1], list[Tensor]()
        for place in reversed(range(len(DECODED))):
            x = F.elu(self.enter[place](x))
            x = x if place == len(DECODED) - 1 else torch.cat((x, maps[place]), 1)
            x = F.elu(self.join[place](x))
            x = F.interpolate(self.skip[str(place)](x) if place in DEEP else x, scale_factor=2.0)
            if place in OUTPUTS:
                found.append(self.disparity[place](x).sigmoid())
        return found[::-1]


class Ccnext(nn.Module):
    """A pair of views, [batch, 3, h, w] each or [batch, 2, 3, h, w], to disparities of the left one.

    With `dual` also to those of the right one.
    """

    takes = "views"

    def __init__(self, dual: bool, skip_once: bool, attention: str, base: int, depths: tuple[int, ...]):
        super().__init__()
        self.size = (384, 1280)
        self.stem = nn.Sequential(
            nn.Conv2d(3, base, 7, 2, 3),
            LayerNorm2d(base, eps=1e-6),
            nn.Conv2d(base, 4 * base, 1),
            nn.GELU(),
            nn.Conv2d(4 * base, base, 1),
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 2, 1), LayerNorm2d(base, eps=1e-6))
        dims = tuple(base * share for share in ENCODED[1:])
        self.stages = import_timm().create_model("convnext_pico", dims=dims, depths=depths).stages
        share = 1.0 if attention == "full_width" else WINDOW
        form = "banded" if attention == "banded" else "full"
        widths = () if attention == "none" else dims[:3]
        self.exchanges = nn.ModuleList(RowExchange(width, share, form) for width in widths)
        self.decoders = nn.ModuleList(Decoder(base, skip_once) for _ in range(2 if dual else 1))

    def forward(self, left: Tensor, right: Tensor | None = None) -> list[Tensor]:
        """Disparities; those of the right view follow where there are two decoders.

        Raises:
            UsageError: 32 does not divide the sides of the views, or they are below 64.
        """
        if right is None:
            left, right = left.unbind(1)
        if left.shape[-1] % 32 or left.shape[-2] % 32 or min(left.shape[-2:]) < 64:
            raise UsageError(f"CCNeXt needs sides of 64 or more that 32 divides, not {tuple(left.shape[-2:])}")
        one, other = [self.stem(left)], [self.stem(right)]
        x, y = self.pool(one[0]), self.pool(other[0])
        for place, stage in enumerate(self.stages):
            x, y = stage(x), stage(y)
            one.append(x)  # the decoder takes what was there before the exchange
            other.append(y)
            if place < len(self.exchanges):
                x, y = self.exchanges[place](x, y)
        found = self.decoders[0](one, other)
        return found + self.decoders[1](one, other) if len(self.decoders) > 1 else found

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random pairs."""
        device = next(self.parameters()).device
        return tuple(torch.randn(batch, 3, *self.size, device=device) for _ in range(2))


def ccnext(
    *, dual: bool = False, skip_once: bool = False,
    attention: Literal["windowed", "banded", "full_width", "none"] = "windowed", resolution: PositiveInt = 384,
    width: PositiveInt | None = None, base: PositiveInt = WIDTH, depths: Counts = [2, 2, 6, 2],  # noqa: B006
) -> Ccnext:  # fmt: skip
    """A CCNeXt.

    Args:
        dual: both decoders, as in training; one is deployed.
        skip_once: whether a skip block is run once; the released single decoder runs it twice on the same map.
        attention: the released window, masked; `banded` computes that window alone; a full row; or no exchange.
        resolution: height of a view, which 32 divides.
        width: of a view; None is 1280 / 384 of the height, to 32 pixels.
        base: channels of the first stage; those of all others follow.
        depths: blocks of the four stages of the encoder.

    Raises:
        UsageError: timm is missing, or the widths or depths are none of such a network.
    """
    if base % 4 or len(depths) != 4:
        raise UsageError(f"ccnext: base={base} must be a multiple of 4, and depths={depths} four numbers")
    network = Ccnext(dual, skip_once, attention, base, tuple(depths)).eval()
    network.size = (resolution, width or max(32, round(resolution * 1280 / 384 / 32) * 32))
    network.resolution = resolution  # type: ignore[assignment]
    return network


class _Exchange(nn.Module):
    """The exchange of one scale, its norms awake: at their start they hide what it computes."""

    def __init__(self, channels: int, share: float, form: str):
        super().__init__()
        self.layer = RowExchange(channels, share, form)
        for norm in (self.layer.value[1], self.layer.leave[1]):
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.ones_(norm.weight)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.cat(self.layer(left, right), 1)


def row_exchange(
    *,
    width: PositiveInt = 64,
    form: Literal["full", "banded"] = "full",
    row: PositiveInt = 48,
    resolution: PositiveInt = 16,
) -> FeatureOperator:
    """The exchange as an operator on two maps [batch, width, resolution, row], beside a loop over places of a row."""
    size = (width, resolution, row)
    return FeatureOperator(
        _Exchange(width, WINDOW, form), size, size, reference=_place_by_place, tolerance=1e-4, form=form
    )


def _place_by_place(operator: nn.Module, left: Tensor, right: Tensor) -> Tensor:
    layer = operator.get_submodule("layer")
    assert isinstance(layer, RowExchange)
    mask = window_mask(left.shape[-1], layer.share)
    done = []
    for view, other in ((left, right), (right, left)):
        query, key, value = layer.query(view), layer.key(other), layer.value(other)
        columns = []
        for place in range(view.shape[-1]):
            seen = mask[place]
            scores = torch.einsum("bch,bchw->bhw", query[..., place], key[..., seen]).softmax(-1)
            columns.append(torch.einsum("bhw,bchw->bch", scores, value[..., seen]))
        done.append(view + layer.leave(torch.stack(columns, -1)))
    return torch.cat(done, 1)
