"""Reduced-precision on-device learning: a layer's three products as im2row and matrix products (arXiv:2305.19167).

Batch 1. With X the rows of an input (k^2 C_in x places), forward Y = W X, gradient of weights dW = dY X^T, of inputs
dX = W^T dY folded back: each the same number of products. Pointwise layers need no rows, depthwise ones have a product
a channel. All in fp32, fp16 or bf16; weights in that format, or fp32 masters that are rounded for every step; products
accumulate in fp32, as CPUs do, or pair by pair in the format itself, which is emulated and slow. The loss is scaled by
a power of two, so that small gradients of fp16 are not lost, and the rate of plain SGD is divided by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive
from suites.common.finetuning import teacher_for
from suites.common.from_scratch import learned

FORMATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Pair = tuple[int, int]
RATE = 1e-2


def multiplied(a: Tensor, b: Tensor, pairwise: bool) -> Tensor:
    """A @ b, or with `pairwise` the sum of products of two in the format of a and b, rounded after every pair."""
    if not pairwise:
        return a @ b
    total = a.new_zeros(*a.shape[:-1], b.shape[-1])
    for place in range(0, a.shape[-1], 2):
        total = total + a[..., place : place + 2] @ b[..., place : place + 2, :]
    return total


def _is_pointwise(kernel: Sequence[int], stride: Any, padding: Any) -> bool:
    return (tuple(kernel), tuple(stride), tuple(padding)) == ((1, 1), (1, 1), (0, 0))


def places_of(x: Tensor, kernel: Sequence[int], stride: Any, padding: Any) -> tuple[int, int]:
    """Rows and columns of a convolution's output."""
    high, wide = ((x.shape[2 + a] + 2 * padding[a] - kernel[a]) // stride[a] + 1 for a in (0, 1))
    return high, wide


def rows_of(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, depthwise: bool) -> Tensor:
    """im2row: [batch, C k^2, places], or [batch, C, k^2, places] where channels stay apart."""
    if _is_pointwise(kernel, stride, padding):
        found = x.flatten(2)
    else:
        found = F.unfold(x, kernel, padding=padding, stride=stride)
    return found.unflatten(1, (x.shape[1], -1)) if depthwise else found


def im2row_bytes(channels: int, side: int, kernel: int = 3, stride: int = 1, padding: int = 1, element: int = 2) -> int:
    """Bytes of the rows of one square map: C k^2 H' W' numbers."""
    out = (side + 2 * padding - kernel) // stride + 1
    return channels * kernel**2 * out**2 * element


class Im2rowConv(torch.autograd.Function):
    """A convolution as rows and products; its input is kept, and its rows are made again in the backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, depthwise: bool, pairwise: bool
    ) -> Tensor:
        """Y = W X, [batch, C_out, h, w]."""
        kernel = (weight.shape[2], weight.shape[3])
        ctx.save_for_backward(x, weight)
        ctx.form = (kernel, stride, padding, depthwise, pairwise)
        rows = rows_of(x, kernel, stride, padding, depthwise)
        made = multiplied(_matrix(weight, depthwise), rows, pairwise)
        return made.reshape(len(x), weight.shape[0], *places_of(x, kernel, stride, padding))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """DX = W^T dY and dW = dY X^T."""
        x, weight = ctx.saved_tensors
        kernel, stride, padding, depthwise, pairwise = ctx.form
        matrix = _matrix(weight, depthwise)
        grad = grads[0].reshape(len(x), *((weight.shape[0], 1) if depthwise else (weight.shape[0],)), -1)
        of_weight = of_input = None
        if ctx.needs_input_grad[1]:
            rows = rows_of(x, kernel, stride, padding, depthwise)
            made = multiplied(grad, rows.transpose(-1, -2), pairwise)
            of_weight = made.sum(0).reshape(weight.shape)
            del rows
        if ctx.needs_input_grad[0]:
            back = multiplied(matrix.transpose(-1, -2), grad, pairwise)
            of_input = _folded(back.flatten(1, -2), x, kernel, stride, padding)
        return of_input, of_weight, None, None, None, None


def _matrix(weight: Tensor, depthwise: bool) -> Tensor:
    return weight.flatten(2) if depthwise else weight.flatten(1)


def _folded(back: Tensor, x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    if _is_pointwise(kernel, stride, padding):
        return back.reshape(x.shape)
    return F.fold(back, x.shape[2:], kernel, padding=padding, stride=stride)


class Im2row(nn.Module):
    """A convolution, its layer's form and weights, run by `Im2rowConv`."""

    def __init__(self, conv: nn.Conv2d, pairwise: bool):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding = conv.stride, conv.padding
        self.depthwise, self.pairwise = conv.groups > 1, pairwise

    def row_numbers(self, x: Tensor) -> int:
        """Numbers of a sample's rows, k^2 C_in x places; 0 of a pointwise layer, whose input is its rows."""
        if _is_pointwise(self.weight.shape[2:], self.stride, self.padding):
            return 0
        high, wide = places_of(x, self.weight.shape[2:], self.stride, self.padding)
        return x.shape[1] * self.weight.shape[2] * self.weight.shape[3] * high * wide

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the layer."""
        y = Im2rowConv.apply(x, self.weight.to(x.dtype), self.stride, self.padding, self.depthwise, self.pairwise)
        return y if self.bias is None else y + self.bias.to(x.dtype)[:, None, None]


class _Rounded(nn.Module):
    """A convolution or linear layer by torch's own kernels, its weights in the format of what comes in."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives."""
        weights = {name: value.to(x.dtype) for name, value in self.layer.named_parameters()}
        return torch.func.functional_call(self.layer, weights, (x,))


class Reduced(nn.Module):
    """A network that learns in a format of fewer bits.

    Attributes:
        execution: `simulated` where the format's products are emulated: fp16 on a CPU without instructions for it, or
            sums rounded pair by pair; else `real`.
        im2row_bytes: of one sample's rows in the layer that has most, in the format; 0 where none is lowered, None of a
            network that gives no example inputs.
        gradient_sqnr_db: of one sample against the network in fp32; None in fp32 itself and of shapes alone, too.
    """

    im2row_bytes: float | None = None
    gradient_sqnr_db: float | None = None

    def __init__(self, net: nn.Module, dtype: str, scale: float, pairwise: bool):
        super().__init__()
        self.net, self.dtype_name, self.scale, self.pairwise = net, dtype, scale, pairwise
        self.resolution = getattr(net, "resolution", None)
        self.channels, self.classes = getattr(net, "channels", 3), getattr(net, "classes", 10)

    @property
    def execution(self) -> str:
        """The label of its rows."""
        device = next(self.parameters()).device.type
        emulated = self.dtype_name == "fp16" and device == "cpu" and not has_fp16_units()
        return "simulated" if self.pairwise or emulated else "real"

    def forward(self, images: Tensor) -> Tensor:
        """Logits in fp32, [batch, classes]."""
        return self.net(images.to(FORMATS[self.dtype_name])).float()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy times the scale."""
        return F.cross_entropy(logits, labels) * self.scale

    def example_targets(self, batch: int, seed: int) -> Tensor | None:
        """Random classes where there is no task; its labels otherwise."""
        if getattr(self, "task", None) is not None:
            return None
        return torch.randint(self.classes, (batch,), generator=torch.Generator().manual_seed(seed))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random inputs of the network."""
        (x,) = self.net.example_inputs(batch)  # type: ignore[operator]
        return (x.float(),)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Plain SGD in the format of the weights, whose rate takes the scale of the loss back."""
        return torch.optim.SGD(self.parameters(), lr=RATE / self.scale)


def has_fp16_units() -> bool:
    """Whether the CPU multiplies in fp16; False where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_fp16" in text or "asimdhp" in text


def fp16_odl(
    model: nn.Module,
    *,
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16",
    executor: Literal["im2row", "native"] = "im2row",
    accumulate: Literal["fp32", "pairwise"] = "fp32",
    masters: bool = False,
    loss_scale: Positive = 1.0,
    training_steps: Count = 0,
) -> Reduced:
    """The network whose training step runs in a reduced format.

    Args:
        model: of convolutions, linear layers and ReLU: resnet8, ds_cnn.
        dtype: of activations, gradients and products.
        executor: explicit rows and products, or torch's own kernels.
        accumulate: sums in fp32, or rounded to the format after every two products (im2row alone).
        masters: keeps weights in fp32 and rounds them for every step; else weights are in the format.
        loss_scale: what the loss is multiplied by.
        training_steps: batches of 16 that it goes on to learn from in this format; 0 keeps the weights.

    Raises:
        ValueError: pairwise sums of native kernels, a convolution in groups that is not depthwise, or no task to learn
            from.
    """
    task, plain = getattr(model, "task", None), teacher_for(model, 1)
    if accumulate == "pairwise" and executor == "native":
        raise ValueError("accumulate='pairwise' needs executor='im2row': native kernels sum as they do")
    for owner in list(model.modules()):
        for name, part in list(owner.named_children()):
            if isinstance(part, nn.Conv2d) and executor == "im2row":
                depthwise = part.groups == part.in_channels == part.out_channels
                if part.groups > 1 and not depthwise:
                    raise ValueError(f"groups={part.groups}: im2row knows whole and depthwise convolutions")
                setattr(owner, name, Im2row(part, accumulate == "pairwise"))
            elif isinstance(part, nn.Conv2d | nn.Linear) and not isinstance(owner, _Rounded):
                setattr(owner, name, _Rounded(part))
    if not masters:
        model.to(FORMATS[dtype])
    made = Reduced(model, dtype, loss_scale, accumulate == "pairwise").eval()
    if hasattr(model, "example_inputs"):
        made.im2row_bytes = float(_largest_rows(made) * FORMATS[dtype].itemsize)
        made.gradient_sqnr_db = gradient_sqnr(plain, made) if dtype != "fp32" and plain is not None else None
    settings = {"dtype": dtype, "executor": executor, "accumulate": accumulate, "masters": masters, "scale": loss_scale}
    made.task = task  # type: ignore[assignment]
    learned(made, made, fp16_odl, settings, training_steps, _learn, from_start=False)
    return made


def _largest_rows(made: Reduced) -> int:
    """Numbers of one sample's rows in the layer that has most."""
    sizes = [0]
    layers = [part for part in made.modules() if isinstance(part, Im2row)]
    handles = [part.register_forward_pre_hook(lambda own, x: sizes.append(own.row_numbers(x[0]))) for part in layers]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        made(*made.example_inputs(1))
    for handle in handles:
        handle.remove()
    return max(sizes)


def gradient_sqnr(plain: nn.Module, made: Reduced) -> float | None:
    """What the gradients of all weights lose in the format, in decibels, on one seeded sample of class 0.

    Args:
        plain: the network in fp32.
        made: the same in the format; its scale of the loss is taken out again.
    """
    if any(part.is_meta for part in plain.parameters()):
        return None
    found = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        (x,), label = made.example_inputs(1), torch.zeros(1, dtype=torch.long)
        for each in (Reduced(plain.requires_grad_(True), "fp32", 1.0, False), made):
            loss = each.loss(each(x), label.to(x.device))
            grads = torch.autograd.grad(loss, list(each.parameters()))
            found.append(torch.cat([grad.double().flatten() / each.scale for grad in grads]))
    value = sqnr_db(*found)
    return None if math.isnan(value) else value


def _learn(module: nn.Module, batches: Any, steps: int) -> list[float]:
    module.train()
    found = losses(module, batches)
    module.eval()
    return found


def layer_products(inputs: int, outputs: int, kernel: int, places: int, groups: int = 1) -> int:
    """Products of a convolution's forward, and of either of its gradients."""
    return outputs * (inputs // groups) * kernel**2 * places


def sqnr_db(exact: Tensor, rounded: Tensor) -> float:
    """10 log10 of the energy of the exact values over that of the difference, in dB."""
    exact, error = exact.double(), exact.double() - rounded.double()
    return float(10 * torch.log10(exact.square().sum() / error.square().sum()))


def losses(module: Any, batches: Any) -> list[float]:
    """Losses of SGD steps over batches of inputs and labels, without the scale; the module learns in place."""
    optimizer = module.make_optimizer()
    found = []
    for inputs, labels in batches:
        optimizer.zero_grad()
        loss = module.loss(module(inputs), labels)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()) / module.scale)
    return found
