"""NetMamba's masked pre-training: most strides are dropped, a small decoder says what they held.

Source: Wang et al. 2024, NetMamba, arXiv:2405.11449, section III.C. Dropped tokens are not computed: the encoder runs
on the kept ones and the class token alone. Order matters to a causal scan, so the kept tokens stand in the drawn order.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.initial import draw
from suites.ssm.mamba import MambaBlock, residual
from suites.ssm.netmamba import STRIDE, FlowEncoder, check_bytes, example_flows


def kept_tokens(tokens: int, masking: float) -> int:
    """int(n (1 - masking)) in floating point, as released: 39 of 400 at 0.9, not 40."""
    return int(tokens * (1 - masking))


class NetMambaPretraining(nn.Module):
    """Encoder on the kept strides and the class token, decoder on all places: the bytes of every stride.

    In training the order is drawn anew for each flow; in evaluation one drawn order serves all. `dropped` [batch, n]
    says which strides of the last forward the encoder did not see: the loss is over them, or over all where none was.
    """

    def __init__(self, length: int, masking: float, sizes: dict[str, int], form: str):
        super().__init__()
        width, narrow, state = sizes["width"], sizes["decoder_width"], sizes["state"]
        self.bytes, self.masking = length, masking
        self.encoder = FlowEncoder(width, length)
        self.blocks = nn.ModuleList(MambaBlock(width, state, form) for _ in range(sizes["depth"]))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.narrow = nn.Linear(width, narrow)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, narrow))
        self.positions = nn.Parameter(torch.zeros(1, self.encoder.tokens + 1, narrow))
        self.decoder = nn.ModuleList(MambaBlock(narrow, state, form) for _ in range(sizes["decoder_depth"]))
        self.decoder_norm = nn.RMSNorm(narrow, eps=1e-5)
        self.predict = nn.Linear(narrow, STRIDE)
        for start in (self.mask_token, self.positions):
            draw(start)
        self.dropped: Tensor | None = None

    @property
    def kept(self) -> int:
        """Strides that the encoder sees."""
        return kept_tokens(self.encoder.tokens, self.masking)

    def forward(self, flow: Tensor, order: Tensor | None = None) -> Tensor:
        """Predicted strides [batch, n, 4] of flows [batch, bytes] in -1..1.

        Args:
            flow: the bytes.
            order: permutations [batch, n] whose first `kept` places are seen, in that order; None to draw them.
        """
        order = self._order(flow) if order is None else order
        encoded = self.encode(flow, order)
        x = self.narrow(encoded)
        missing = self.mask_token.expand(len(flow), self.encoder.tokens - self.kept, -1).to(x.dtype)
        placed = torch.cat([x[:, :-1], missing], dim=1)
        back = order.argsort(dim=1)
        whole = placed.gather(1, back[..., None].expand_as(placed))
        x = residual(torch.cat([whole, x[:, -1:]], dim=1) + self.positions)
        for block in self.decoder:
            x = block(x)
        self.dropped = back >= self.kept
        return self.predict(self.decoder_norm(x.to(flow.dtype)))[:, :-1]

    def encode(self, flow: Tensor, order: Tensor) -> Tensor:
        """Normed features of the kept tokens in their order and of the class token, [batch, kept + 1, width]."""
        tokens = self.encoder.strides(flow)
        seen = order[:, : self.kept, None].expand(-1, -1, tokens.shape[-1])
        x = residual(torch.cat([tokens.gather(1, seen), self.encoder.last(len(flow))], dim=1))
        for block in self.blocks:
            x = block(x)
        return self.norm(x.to(flow.dtype))

    def _order(self, flow: Tensor) -> Tensor:
        if self.training:
            return torch.rand(len(flow), self.encoder.tokens, device=flow.device).argsort(dim=1)
        noise = torch.rand(1, self.encoder.tokens, generator=torch.Generator().manual_seed(0), device="cpu")
        return noise.argsort(dim=1).to(flow.device).expand(len(flow), -1)

    def loss(self, predicted: Tensor, flow: Tensor) -> Tensor:
        """Mean squared error over the dropped strides, or over all of them where none was dropped."""
        error = (predicted - flow.unflatten(1, (-1, STRIDE)).to(predicted)).square().mean(-1)
        if self.dropped is None or self.kept == self.encoder.tokens:
            return error.mean()
        counted = self.dropped.to(error)
        return (error * counted).sum() / counted.sum()

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random bytes in -1..1, the same every time."""
        return (example_flows(batch, self.bytes).to(self.predict.weight),)

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """The bytes themselves."""
        del seed  # the inputs are the same for every seed
        return self.example_inputs(batch)[0]


def netmamba_pretraining(
    *,
    bytes: PositiveInt = 1600,
    masking: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9,
    width: PositiveInt = 256,
    depth: PositiveInt = 4,
    state: PositiveInt = 16,
    decoder_width: PositiveInt = 128,
    decoder_depth: PositiveInt = 2,
    scan: str = "parallel",
) -> NetMambaPretraining:
    """The network of the pre-training, in evaluation mode with random weights.

    Args:
        bytes: of a flow.
        masking: share of the strides that are dropped.
        width: of a token in the encoder.
        depth: its blocks.
        state: states N of a channel.
        decoder_width: of a token in the decoder.
        decoder_depth: its blocks.
        scan: form of the scan: sequential, parallel, chunk=c, mamba_ssm, or the control identity.

    Raises:
        UsageError: bytes that are no whole strides, or no such form of scan.
    """
    check_bytes("netmamba_pretraining", bytes)
    sizes = {
        "width": width, "depth": depth, "state": state, "decoder_width": decoder_width, "decoder_depth": decoder_depth,
    }  # fmt: skip
    return NetMambaPretraining(bytes, masking, sizes, scan).eval()
