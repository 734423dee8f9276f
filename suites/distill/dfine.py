"""D-FINE detectors of transformers in the sizes of its repository: the students of RT-DETRv4, with random weights.

Source: Peng et al. 2024, D-FINE, arXiv:2410.13842; sizes from the released configurations (Apache-2.0, read). It is the
network as it trains: parallel branches of the pyramid are not merged, so that it has some products more than what is
deployed. Matching predictions to boxes multiplies no matrices and has shapes that depend on values; a training step
here has a smooth loss of the same outputs in its place, so that its products are those of a real step but for the
queries of its denoising.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.hf_bridge import import_transformers


def _stages(inputs: list[int], middle: list[int], outputs: list[int], blocks: list[int], layers: int) -> dict[str, Any]:
    return {
        "stage_in_channels": inputs, "stage_mid_channels": middle, "stage_out_channels": outputs,
        "hidden_sizes": outputs, "stage_num_blocks": blocks, "stage_numb_of_layers": [layers] * 4,
    }  # fmt: skip


#: HGNetV2 B0, B2, B4 and B5.
BACKBONES: dict[str, dict[str, Any]] = {
    "S": {"stem_channels": [3, 16, 16], "use_learnable_affine_block": True,
          **_stages([16, 64, 256, 512], [16, 32, 64, 128], [64, 256, 512, 1024], [1, 1, 2, 1], 3)},
    "M": {"stem_channels": [3, 24, 32], "use_learnable_affine_block": True,
          **_stages([32, 96, 384, 768], [32, 64, 128, 256], [96, 384, 768, 1536], [1, 1, 3, 1], 4)},
    "L": {"stem_channels": [3, 32, 48],
          **_stages([48, 128, 512, 1024], [48, 96, 192, 384], [128, 512, 1024, 2048], [1, 1, 3, 1], 6)},
    "X": {"stem_channels": [3, 32, 64],
          **_stages([64, 128, 512, 1024], [64, 128, 256, 512], [128, 512, 1024, 2048], [1, 2, 5, 2], 6)},
}  # fmt: skip
DETECTORS: dict[str, dict[str, Any]] = {
    "S": {"decoder_layers": 3, "hidden_expansion": 0.5, "depth_mult": 0.34, "encoder_in_channels": [256, 512, 1024]},
    "M": {"decoder_layers": 4, "depth_mult": 0.67, "encoder_in_channels": [384, 768, 1536]},
    "L": {},
    "X": {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384] * 3, "reg_scale": 8.0},
}


QUERIES = 300
#: The switch of transformers for its checks of values.
NO_CHECKS = "TRANSFORMERS_DISABLE_TORCH_CHECK"


class DFine(nn.Module):
    """The detector: logits [batch, queries, classes] and boxes [batch, queries, 4]; of all layers while it trains.

    Attributes:
        size: S, M, L or X.
        deepest: the transformer layer on the map of stride 32, before the pyramid.
        stride: of that map.
        width: of its tokens.
    """

    stride = 32

    def __init__(self, net: Any, size: str, resolution: int, classes: int):
        super().__init__()
        self.net, self.size, self.resolution, self.classes = net, size, resolution, classes
        self.width = int(net.config.encoder_hidden_dim)

    def train(self, mode: bool = True) -> DFine:
        """Set the mode; layers of the encoder, without dropout, keep the one in which they look for no infinities."""
        super().train(mode)
        for layer in self.deepest.layers:
            layer.training = False
        return self

    @property
    def deepest(self) -> Any:
        """See the class."""
        return self.net.model.encoder.aifi[0]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        with _checks_of_values_off() if images.is_meta else nullcontext():
            said = self.net(pixel_values=images)
        if self.training:
            return said.intermediate_logits, said.intermediate_reference_points
        return said.logits, said.pred_boxes

    def loss(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        """A smooth number of every answer; the detector's own loss matches by values (see the module)."""
        logits, boxes = outputs
        return logits.sigmoid().square().mean() + (boxes - targets[:, None, None]).abs().mean()

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """A seeded box a picture, [batch, 4], as shares of the picture."""
        with torch.device("cpu"):
            return torch.rand(batch, 4, generator=torch.Generator().manual_seed(seed))


@contextmanager
def _checks_of_values_off() -> Iterator[None]:
    """Transformers compares tensors with numbers on the way, which tensors without values cannot answer."""
    before = os.environ.get(NO_CHECKS)
    os.environ[NO_CHECKS] = "1"
    try:
        yield
    finally:
        del os.environ[NO_CHECKS]
        if before is not None:
            os.environ[NO_CHECKS] = before


def dfine(
    *, size: Literal["S", "M", "L", "X"] = "S", classes: PositiveInt = 80, resolution: PositiveInt = 640
) -> DFine:
    """A D-FINE detector in evaluation mode with random weights.

    Args:
        size: S, M, L or X.
        classes: of an answer.
        resolution: side of the picture, a multiple of 32.

    Raises:
        UsageError: another side, or one that has fewer places than queries.
    """
    if resolution % DFine.stride:
        raise UsageError(
            f"dfine: resolution={resolution} is no multiple of {DFine.stride}, the stride of the deepest map"
        )
    places = sum((resolution // stride) ** 2 for stride in (8, 16, 32))
    if places < QUERIES:
        raise UsageError(f"dfine: resolution={resolution} has {places} places for {QUERIES} queries: take 128 or more")
    transformers = import_transformers()
    backbone = transformers.HGNetV2Config(out_indices=[2, 3, 4], **BACKBONES[size])
    config = transformers.DFineConfig(
        backbone_config=backbone, num_labels=classes, decoder_n_points=[3, 6, 3], freeze_backbone_batch_norms=False,
        **DETECTORS[size],
    )  # fmt: skip
    return DFine(transformers.DFineForObjectDetection(config), size, resolution, classes).eval()
