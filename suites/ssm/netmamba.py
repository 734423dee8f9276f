"""NetMamba: the first bytes of a network flow in strides of four, plain one-way Mamba blocks, the class token last.

Source: Wang et al. 2024, NetMamba, arXiv:2405.11449, section III. A causal scan must have seen everything before it
answers, so the class token stands behind the bytes. `netmamba_transformer` is a transformer of the same width and depth
on the same tokens.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.checkpoint import load_checkpoint
from suites.common.initial import draw
from suites.common.tasks.byte_origin import scaled
from suites.common.vit import Attention, Mlp
from suites.ssm.mamba import MambaBlock, residual

__all__ = ["NetMamba", "load_checkpoint", "netmamba", "netmamba_transformer"]

STRIDE = 4


class TransformerBlock(nn.Module):
    """A pre-norm block of attention and an MLP of four times the width, all with biases."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, tokens, width]."""
        x = x + self.attn(self.norm1(x))[0]
        return x + self.mlp(self.norm2(x))


class FlowEncoder(nn.Module):
    """Strides of bytes as tokens with learned positions; the class token has the last one."""

    def __init__(self, width: int, length: int):
        super().__init__()
        self.bytes, self.tokens = length, length // STRIDE
        self.embed = nn.Conv1d(1, width, STRIDE, STRIDE)
        self.positions = nn.Parameter(torch.zeros(1, self.tokens + 1, width))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        for start in (self.positions, self.class_token):
            draw(start)

    def strides(self, flow: Tensor) -> Tensor:
        """Tokens [batch, bytes / 4, width] with their positions, of flows [batch, bytes] in -1..1."""
        return self.embed(flow[:, None]).transpose(1, 2) + self.positions[:, :-1]

    def last(self, batch: int) -> Tensor:
        """The class token with its position, [batch, 1, width]."""
        return (self.class_token + self.positions[:, -1:]).expand(batch, -1, -1)

    def forward(self, flow: Tensor) -> Tensor:
        """All tokens, the class token behind the others, [batch, tokens + 1, width]."""
        return torch.cat([self.strides(flow), self.last(len(flow))], dim=1)


class FlowClassifier(nn.Module):
    """Tokens of a flow, blocks, a norm, a linear layer on the class token."""

    def __init__(self, width: int, length: int, blocks: list[nn.Module], norm: nn.Module, classes: int):
        super().__init__()
        self.classes, self.bytes = classes, length
        self.encoder = FlowEncoder(width, length)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = nn.Linear(width, classes)

    def forward(self, flow: Tensor) -> Tensor:
        """Logits [batch, classes] of flows [batch, bytes] in -1..1."""
        x = self._kept(self.encoder(flow))
        for block in self.blocks:
            x = block(x)
        return self._answer(x[:, -1])

    def _kept(self, x: Tensor) -> Tensor:
        return x

    def _answer(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.to(self.head.weight.dtype)))

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random bytes in -1..1, the same every time."""
        return (example_flows(batch, self.bytes).to(self.head.weight),)


class NetMamba(FlowClassifier):
    """The classifier of Mamba blocks, which also takes a flow stride by stride.

    A flow is a period of the stream: a step for every stride, and one that reads the class token, for which nothing
    arrives (its four samples are not looked at) and which gives the logits. The next step begins the next flow. So the
    steps of a period cost what the whole flow costs, and the state is as large whatever the length.
    """

    hop, time_dim, output_dim, transient = STRIDE, 1, 1, 0

    @property
    def period(self) -> int:
        """Steps of a flow: its strides and the class token."""
        return self.encoder.tokens + 1

    @property
    def window(self) -> int:
        """Steps of a clip: one flow."""
        return self.period

    def _kept(self, x: Tensor) -> Tensor:
        return residual(x)

    def init(self, batch: int) -> dict[str, Any]:
        """The state before a flow: the place in it, and what each block keeps."""
        return {"place": 0, "blocks": [block.mixer.init(batch) for block in self._mamba()]}

    def step(self, x: Tensor, state: dict[str, Any]) -> tuple[Tensor | None, dict[str, Any]]:
        """Four more samples [batch, 4]; logits at the end of a flow, None before."""
        place, kept = state["place"], state["blocks"]
        ended = place == self.encoder.tokens
        token = residual(self.encoder.last(len(x))[:, 0] if ended else self._stride(x, place))
        after = []
        for block, past in zip(self._mamba(), kept, strict=True):
            token, now = block.step(token, past)
            after.append(now)
        if ended:
            return self._answer(token), self.init(len(x))
        return None, {"place": place + 1, "blocks": after}

    def _stride(self, x: Tensor, place: int) -> Tensor:
        return self.encoder.embed(x[:, None])[..., 0] + self.encoder.positions[:, place]

    def _mamba(self) -> list[MambaBlock]:
        return [cast("MambaBlock", block) for block in self.blocks]

    def offline(self, clip: Tensor) -> Tensor:
        """Logits [batch, flows, classes] of a clip of whole flows, [batch, flows x (bytes + 4)].

        Raises:
            UsageError: the clip ends within a flow.
        """
        steps = clip.shape[1] // STRIDE
        if steps % self.period:
            raise UsageError(f"netmamba: a window of {steps} steps: whole flows of {self.period} are wanted")
        flows = clip.unflatten(1, (-1, self.bytes + STRIDE))[..., : self.bytes]
        return self(flows.flatten(0, 1)).unflatten(0, flows.shape[:2])

    def example_clip(self, batch: int, length: int) -> Tensor:
        """`length` steps of random bytes."""
        return example_flows(batch, STRIDE * length).to(self.head.weight)


def example_flows(batch: int, length: int) -> Tensor:
    """Seeded bytes [batch, length], scaled to -1..1."""
    with torch.device("cpu"):
        values = torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(0))
    return scaled(values)


def check_bytes(name: str, length: int) -> None:
    """Raise UsageError unless the bytes are whole strides."""
    if length % STRIDE:
        raise UsageError(f"{name}: bytes={length} is no multiple of the stride of {STRIDE}")


def netmamba(
    *,
    bytes: PositiveInt = 1600,
    width: PositiveInt = 256,
    depth: PositiveInt = 4,
    state: PositiveInt = 16,
    classes: PositiveInt = 7,
    scan: str = "parallel",
) -> NetMamba:
    """A classifier of network flows in evaluation mode with random weights.

    Args:
        bytes: of a flow: 400, 800 or 1600 as published.
        width: of a token.
        depth: blocks.
        state: states N of a channel.
        classes: number of logits.
        scan: form of the scan: sequential, parallel, chunk=c, mamba_ssm, or the control identity.

    Raises:
        UsageError: bytes that are no whole strides, or no such form of scan.
    """
    check_bytes("netmamba", bytes)
    blocks: list[nn.Module] = [MambaBlock(width, state, scan) for _ in range(depth)]
    return NetMamba(width, bytes, blocks, nn.RMSNorm(width, eps=1e-5), classes).eval()


def netmamba_transformer(
    *,
    bytes: PositiveInt = 1600,
    width: PositiveInt = 256,
    depth: PositiveInt = 4,
    heads: PositiveInt = 4,
    classes: PositiveInt = 7,
) -> FlowClassifier:
    """The transformer of the same width and depth on the same tokens, in evaluation mode with random weights.

    Args:
        bytes: of a flow.
        width: of a token.
        depth: blocks.
        heads: of attention.
        classes: number of logits.

    Raises:
        UsageError: bytes that are no whole strides, or heads that do not divide the width.
    """
    check_bytes("netmamba_transformer", bytes)
    if width % heads:
        raise UsageError(f"netmamba_transformer: heads={heads} do not divide width={width}")
    blocks: list[nn.Module] = [TransformerBlock(width, heads) for _ in range(depth)]
    return FlowClassifier(width, bytes, blocks, nn.LayerNorm(width), classes).eval()
