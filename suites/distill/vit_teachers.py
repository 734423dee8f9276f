"""Transformers as teachers: what they give of a picture, and their last stage by itself.

A teacher offers maps [batch, width, side, side] of its third and fourth stage and the way from the one to the other.
Swin transformers are timm's and have four stages; of a plain vision transformer the last quarter of the blocks is the
fourth stage, over patches alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bench.errors import UsageError
from suites.common.digits_vit import digits_vit
from suites.common.timm_bridge import timm_model
from suites.common.vit import Tokens, ViT

#: Name of the small teacher of digits.
DIGITS = "digits"


@dataclass(frozen=True)
class Seen:
    """What a teacher gives of a batch: logits, and the maps of its third and fourth stage."""

    logits: Tensor
    third: Tensor
    fourth: Tensor


class SwinTeacher(nn.Module):
    """A Swin transformer of timm."""

    def __init__(self, net: Any):
        super().__init__()
        self.net, self.resolution, self.classes = net, int(net.resolution), int(net.num_classes)
        self.widths = (net.feature_info[2]["num_chs"], net.feature_info[3]["num_chs"])
        self.sides = (self.resolution // 16, self.resolution // 32)

    def forward(self, images: Tensor) -> Seen:
        """See `Seen`."""
        x = self.net.patch_embed(images)
        for stage in self.net.layers[:3]:
            x = stage(x)
        last = self.net.norm(self.net.layers[3](x))
        return Seen(self.net.forward_head(last), x.permute(0, 3, 1, 2), last.permute(0, 3, 1, 2))

    def last_stage(self, x: Tensor) -> Tensor:
        """The fourth stage's map of a map of the third stage."""
        return self.net.norm(self.net.layers[3](x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class VitTeacher(nn.Module):
    """A plain vision transformer; its class token is not shown to the fourth stage of what a student gives."""

    def __init__(self, net: ViT):
        super().__init__()
        self.net, self.resolution, self.classes = net, net.resolution, net.classes
        self.widths, self.sides = (net.width, net.width), (net.grid, net.grid)
        self.split = net.depth - max(1, net.depth // 4)

    def forward(self, images: Tensor) -> Seen:
        """See `Seen`."""
        tokens = self.net.embed(images)
        for block in self.net.blocks[: self.split]:
            tokens = block(tokens)
        third = self._map(tokens)
        for block in self.net.blocks[self.split :]:
            tokens = block(tokens)
        return Seen(self.net.classify(tokens), third, self._map(tokens.moved(self.net.norm(tokens.x))))

    def last_stage(self, x: Tensor) -> Tensor:
        """The fourth stage's map of a map of the third stage."""
        tokens = Tokens(x.flatten(2).mT, 0)
        for block in self.net.blocks[self.split :]:
            tokens = block(tokens)
        return self._map(tokens.moved(self.net.norm(tokens.x)))

    def _map(self, tokens: Tokens) -> Tensor:
        return tokens.x[:, tokens.protected :].mT.unflatten(2, (self.net.grid, self.net.grid))


def teacher_of(name: str, resolution: int) -> SwinTeacher | VitTeacher:
    """The teacher of that name with random weights.

    Args:
        name: `digits`, or a Swin or a plain vision transformer of timm, such as `swin_large_patch4_window7_224`.
        resolution: side of the pictures.

    Raises:
        UsageError: timm has no such network, or it is neither of the two kinds.
    """
    if name == DIGITS:
        return VitTeacher(digits_vit(width=64, heads=4, depth=4, patch=4, mlp_ratio=2.0, resolution=resolution))
    net: Any = timm_model(name=name, resolution=resolution)
    if type(net).__name__ == "SwinTransformer":
        return SwinTeacher(net)
    try:
        return VitTeacher(timm_model(name=name, resolution=resolution, native=True))  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(f'"{name}" is no teacher here: take a Swin or a plain vision transformer ({error})') from error
