"""A byte decoder that writes on one machine: the service that AI Flow spreads over device and server."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.decoder import EXAMPLE_TOKENS, Decoder
from suites.common.decoder_shape import uniform
from suites.common.tasks.text_bytes import python_topics

__all__ = ["FlowDecoder", "flow_decoder", "held_out_text", "load_checkpoint"]


class FlowDecoder(Decoder):
    """A decoder that answers on the device; its examples are real text, so that drafts are judged on it."""

    answers_on_device = True

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Stretches of held-out text, [batch, 128] bytes."""
        return (held_out_text(batch, EXAMPLE_TOKENS, self.vocabulary),)

    def example_ids(self, batch: int, context: int, seed: int) -> Tensor | None:
        """Prompts of held-out text, [batch, context], where they are longer than the examples; else None."""
        return held_out_text(batch, context, self.vocabulary, seed) if context > EXAMPLE_TOKENS else None


def held_out_text(batch: int, length: int, vocabulary: int = 256, seed: int = 0) -> Tensor:
    """Stretches of the last tenth of Python's help topics, which nobody learns from, [batch, length] bytes.

    Where the vocabulary is smaller than a byte's, numbers are taken modulo it.
    """
    text = python_topics()
    ending = torch.frombuffer(bytearray(text[-(len(text) // 10) :]), dtype=torch.uint8).long()
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(len(ending) - length, (batch, 1), generator=generator, device="cpu")
    found = ending[start + torch.arange(length, device="cpu")] % vocabulary
    return found.to(torch.get_default_device())


def flow_decoder(
    *, width: PositiveInt = 192, layers: PositiveInt = 6, heads: PositiveInt = 6, hidden: PositiveInt = 512
) -> FlowDecoder:
    """A byte decoder in evaluation mode with random weights; the defaults have 3 million parameters.

    Args:
        width: features per token.
        layers: number of blocks.
        heads: attention heads, a divisor of the width.
        hidden: width of the gated network.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % heads or width // heads % 2:
        raise ValueError(f"width={width}, heads={heads}: heads of an even size have to divide the width")
    return FlowDecoder(uniform(width=width, layers=layers, heads=heads, hidden=hidden, vocabulary=256)).eval()
