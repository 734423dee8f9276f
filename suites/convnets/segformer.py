"""SegFormer-B1, as transformers has it: the segmenter that FBNetV5 was compared with.

Source: Xie et al. 2021, SegFormer, arXiv:2105.15203; section 3 and table 6 of the appendix (B1).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.hf_bridge import import_transformers

STAGES = 4


class Segmenter(nn.Module):
    """Stages and decoder of a segmenter of transformers: images [batch, 3, h, w] to logits of every fourth place.

    They are called here one after the other: the library's own call hooks what passes between them, and a network that
    was once called so cannot be handed to another process.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.stages, self.decoder = network.segformer.stages, network.decode_head

    def forward(self, x: Tensor) -> Tensor:
        """[batch, classes, h / 4, w / 4]."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.decoder(maps)


def segformer(
    *, widths: Blocks = [64, 128, 320, 512], depths: Blocks = [2, 2, 2, 2], decoder: PositiveInt = 256,  # noqa: B006
    classes: PositiveInt = 150, resolution: PositiveInt = 512,
) -> Segmenter:  # fmt: skip
    """A SegFormer.

    Args:
        widths: of the four stages, whose heads are 1, 2, 5 and 8.
        depths: their blocks.
        decoder: width of the decoder.
        classes: of a place.
        resolution: side of the input, which 32 divides.

    Raises:
        UsageError: transformers is missing, or widths and depths are not of four stages.
    """
    if len(widths) != STAGES or len(depths) != STAGES:
        raise UsageError(f"segformer: widths={widths} and depths={depths} must name four stages")
    transformers = import_transformers()
    config = transformers.SegformerConfig(
        hidden_sizes=widths, depths=depths, decoder_hidden_size=decoder, num_labels=classes
    )
    return at(Segmenter(transformers.SegformerForSemanticSegmentation(config)), resolution)
