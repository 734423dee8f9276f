"""wa-hls4ml's transformer surrogate: a token a layer and one for the whole network through an encoder, to its cost.

Source: wa-hls4ml, arXiv:2511.05615; a reconstruction: 4 layers of width 128 with 8 heads, a head for the target. Which
numbers a token is told is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suites.predict.operators import ROW_NUMBERS
from suites.predict.predictor import NETWORK_NUMBERS, Question
from suites.predict.surrogate import RowSurrogate

#: Width of the layer between the two of each block, as a multiple of its width.
FEED = 4


class LayerTransformer(RowSurrogate):
    """Numbers of rows [networks, most rows, 6] and of networks [networks, 7] to costs."""

    def __init__(self, question: Question, width: int, layers: int, heads: int, steps: int, rate: float, draw: int = 0):
        super().__init__(question, steps, rate, draw)
        self.of_row, self.of_whole = nn.Linear(len(ROW_NUMBERS), width), nn.Linear(len(NETWORK_NUMBERS), width)
        block = nn.TransformerEncoderLayer(width, heads, FEED * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def raw(self, *encoded: Tensor) -> Tensor:
        """The answer of the token of the whole network."""
        rows, there, whole = encoded
        tokens = torch.cat([self.of_whole(self.whole(whole)).unsqueeze(1), self.of_row(self.rows(rows))], 1)
        padding = torch.cat([torch.zeros_like(there[:, :1]), 1 - there], 1).bool()
        return self.head(self.encoder(tokens, src_key_padding_mask=padding)[:, 0]).squeeze(-1)
