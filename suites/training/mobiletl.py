"""MobileTL: inverted residual blocks that train without most of their activations (arXiv 2212.03246).

In the last blocks: the two inner norms keep scale and running statistics as in evaluation and train their shift alone,
y = a x + b with a constant a, so that no activation is kept for them; the backward of ReLU6 and Hard-Swish is a signed
step, gradient x (input > 0), for which one bit an element is kept; the block's last norm trains whole, and so do all
convolutions and the classifier. Earlier blocks are frozen, in evaluation mode. With both approximations off
(`mask="exact", scales=True`) the gradients are those of training the same blocks plainly.

Saved numbers of a block and sample, activations in place (`block_bytes`): x = C_in H^2, e = t C_in H^2,
d = t C_in H'^2, o = C_out H'^2: plain 4 (x + 2 e + 2 d + o) bytes, here 4 (x + e + d + o) + (e + d) / 8, or + (e + d)
with torch.bool. A block of V3 with Hard-Swish, which keeps its input, and a gate, whose product keeps the gated map:
plain 4 (x + 3 e + 4 d + o), here 4 (x + e + 2 d + o) + the masks; what the gate keeps of means over places apart.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.counted_run import CountedRun
from suites.common.from_scratch import learned
from suites.common.mobilenet import MobileNet, mobilenet

__all__ = ["block_bytes", "frozen_blocks", "mobilenet", "mobiletl"]

Mask = Literal["packed", "bool", "exact"]
_BITS = (1, 2, 4, 8, 16, 32, 64, 128)


def packed(mask: Tensor) -> Tensor:
    """A mask of any shape as bytes of eight, the last filled up with zeros."""
    flat = mask.flatten()
    flat = F.pad(flat, (0, -len(flat) % 8)).view(-1, 8).to(torch.uint8)
    weights = torch.tensor(_BITS, dtype=torch.uint8, device=mask.device)
    return (flat * weights).sum(dim=1, dtype=torch.uint8)


def unpacked(bits: Tensor, shape: torch.Size) -> Tensor:
    """The mask that `packed` was given."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits[:, None] >> places) & 1).flatten()[: shape.numel()].view(shape).bool()


class SignedStep(torch.autograd.Function):
    """An activation whose backward is gradient x (input > 0), or gradient x derivative with an exact mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str, mask: str) -> Tensor:
        """The activation; of the input only its signs are kept, or with an exact mask the derivative."""
        kept = derivative(x, kind) if mask == "exact" else x > 0
        ctx.save_for_backward(packed(kept) if mask == "packed" else kept)
        ctx.packed, ctx.shape = mask == "packed", x.shape
        return _ACTIVATIONS[kind](x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient where the input was positive, or times the derivative."""
        (mask,) = ctx.saved_tensors
        return grads[0] * (unpacked(mask, ctx.shape) if ctx.packed else mask), None, None


_ACTIVATIONS = {"relu6": F.relu6, "hardswish": F.hardswish, "relu": F.relu}


def derivative(x: Tensor, kind: str) -> Tensor:
    """Of ReLU 1 above 0, of ReLU6 1 between 0 and 6, of Hard-Swish 0 up to -3, 1 from 3 on and x / 3 + 1/2 between."""
    if kind == "relu":
        return x > 0
    if kind == "relu6":
        return (x > 0) & (x < 6)
    return torch.where(x < -3, 0.0, torch.where(x > 3, 1.0, x / 3 + 0.5)).to(x.dtype)


class SignedActivation(nn.Module):
    """ReLU6, Hard-Swish or ReLU with the signed step as derivative, or their own."""

    def __init__(self, kind: str, mask: str):
        super().__init__()
        self.kind, self.mask = kind, mask

    def forward(self, x: Tensor) -> Tensor:
        """The activation of any shape."""
        return SignedStep.apply(x, self.kind, self.mask)


class ConstantNorm(nn.Module):
    """A batch norm with its running statistics and scale as a constant, y = a x + b; the shift may train."""

    scale: Tensor
    offset: Tensor

    def __init__(self, norm: nn.BatchNorm2d, trains: bool):
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.no_grad():
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.register_buffer("scale", scale.detach().clone()[:, None, None])
        self.register_buffer("offset", (-norm.running_mean * scale).detach().clone()[:, None, None])
        self.shift = nn.Parameter(norm.bias.detach().clone(), requires_grad=trains)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return x * self.scale + (self.offset + self.shift[:, None, None])


def mobiletl(
    model: nn.Module,
    *,
    blocks: PositiveInt = 3,
    mask: Literal["packed", "bool", "exact"] = "packed",
    scales: bool = False,
    training_steps: Count = 0,
) -> nn.Module:
    """The network whose last blocks train in MobileTL's way, all earlier ones frozen.

    Args:
        model: a MobileNet of this suite.
        blocks: how many of the last inverted residual blocks.
        mask: eight signs a byte, one a byte, or the derivative itself, which approximates nothing and saves nothing.
        scales: whether the inner norms train whole, with statistics of the batch, which keeps their inputs.
        training_steps: batches of 16 to fine-tune on; 0 gives a cost.

    Raises:
        ValueError: not such a model, more blocks than there are, or no task to learn from.
    """
    net, trained = _frozen_before(model, blocks, "mobiletl")
    for block in trained:
        norms = [(name, part) for name, part in block.named_modules() if isinstance(part, nn.BatchNorm2d)]
        for name, part in norms[:-1] if not scales else []:
            _put(block, name, ConstantNorm(part, trains=True))
        for name, part in list(block.named_modules()):
            kind = _kind(part)
            if kind is not None:
                _put(block, name, SignedActivation(kind, mask))
    settings = {"blocks": blocks, "mask": mask, "scales": scales}
    return learned(net, net, mobiletl, settings, training_steps, CountedRun(), from_start=False).eval()


def frozen_blocks(model: nn.Module, *, blocks: PositiveInt = 3, training_steps: Count = 0) -> nn.Module:
    """The network whose last blocks and classifier train plainly, all earlier ones frozen: what MobileTL is beside.

    Args:
        model: a MobileNet of this suite.
        blocks: how many of the last inverted residual blocks.
        training_steps: batches of 16 to fine-tune on; 0 gives a cost.

    Raises:
        ValueError: not such a model, more blocks than there are, or no task to learn from.
    """
    net, _ = _frozen_before(model, blocks, "frozen_blocks")
    return learned(net, net, frozen_blocks, {"blocks": blocks}, training_steps, CountedRun(), from_start=False).eval()


def _kind(part: nn.Module) -> str | None:
    names = {nn.ReLU6: "relu6", nn.Hardswish: "hardswish", nn.ReLU: "relu"}
    return names.get(type(part))


def _put(module: nn.Module, name: str, part: nn.Module) -> None:
    owner, _, own = name.rpartition(".")
    setattr(module.get_submodule(owner), own, part)


def _frozen_before(model: nn.Module, blocks: int, method: str) -> tuple[MobileNet, list[nn.Module]]:
    if not isinstance(model, MobileNet):
        raise ValueError(f"{method} works on mobilenet_v2 and mobilenet_v3_small of this suite")
    found = [part for part in model.net.features if type(part).__name__ == "InvertedResidual"]
    if blocks > len(found):
        raise ValueError(f"blocks={blocks}: the network has {len(found)} inverted residual blocks")
    trained, model.body_frozen = found[-blocks:], True
    model.net.requires_grad_(False)
    for part in [*trained, model.net.classifier]:
        part.requires_grad_(True)
    behind = list(model.net.features)[list(model.net.features).index(trained[-1]) + 1 :]
    for part in behind:  # the last 1x1 convolution belongs to the classifier
        part.requires_grad_(True)
    before = list(model.net.features)[: list(model.net.features).index(trained[0])]
    for part in before:
        for name, norm in list(part.named_modules()):
            if isinstance(norm, nn.BatchNorm2d):
                _put(part, name, ConstantNorm(norm, trains=False))
    return model, trained


def block_bytes(
    inputs: int,
    outputs: int,
    side: int,
    expansion: int,
    stride: int = 1,
    mask: str | None = None,
    element: int = 4,
    gated: bool = False,
) -> float:
    """Bytes that one sample's block keeps, activations in place; the gate's own means and factors apart.

    Args:
        inputs: C_in.
        outputs: C_out.
        side: H of the map that comes in.
        expansion: t.
        stride: of the depthwise convolution.
        mask: None for the plain block, "packed" or "bool" for MobileTL's.
        element: bytes of a number.
        gated: a block of V3, with Hard-Swish and squeeze-and-excite behind its depthwise layer.
    """
    after = -(-side // stride)
    x, e = inputs * side**2, expansion * inputs * side**2
    d, o = expansion * inputs * after**2, outputs * after**2
    if mask is None:  # Hard-Swish keeps its input, and the gate the map that it multiplies
        return element * (x + (3 if gated else 2) * e + (4 if gated else 2) * d + o)
    return element * (x + e + (2 if gated else 1) * d + o) + (e + d) / (8 if mask == "packed" else 1)
