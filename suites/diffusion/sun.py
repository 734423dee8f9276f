"""SpeedUpNet: an adapter in cross-attention that learns what guidance would add; Chai et al. 2023, arXiv 2312.08887.

Every cross-attention gets keys and values of its own for the negative prompt, and may get a second pair for the
positive one: out = attn(q, K+, V+) - A(attn(q, K-, V-)) + B(attn(q, K'+, V'+)), each extra term scaled to the norm of
the first, then affine per channel. So one evaluation stands for the two of guidance, and few steps for
many. Ours: the negative prompt is the empty class; the norm is per sample, where the release takes it
over the whole batch; the recipe. That adapters plug into another base without learning again is tried on a U-Net which
was tuned to inverted digits; its pictures are inverted back before anybody looks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.finetuning import REBUILT_RATE, finetuned, needs_training, teacher_for
from suites.common.rectified_flow import Course, FlowModel, flow_loss
from suites.common.task import learning_task
from suites.common.unet import Attention, Unet
from suites.diffusion.subjects import as_kind
from suites.diffusion.sun_branch import Branch


def sun(
    model: nn.Module,
    *,
    steps: PositiveInt = 4,
    offset: bool = True,
    positive: bool = False,
    guidance: Positive = 2.0,
    other_base: Count = 0,
    training_steps: Count = 0,
) -> nn.Module:
    """The U-Net with adapters, sampled in few steps of one evaluation each.

    Args:
        model: the U-Net of this house, or one of diffusers, whose adapters are not trained.
        steps: of its sampler.
        offset: whether the adapters are used; without them the conditional branch runs alone.
        positive: whether there is a second pair of keys and values for the positive prompt.
        guidance: scale of the guided teacher that the adapters learn from.
        other_base: batches of inverted digits that another base learned, in whose place the adapters are then plugged
            as they are; 0 keeps their own.
        training_steps: batches of 32 to learn from; the network itself stays as it is.

    Raises:
        ValueError: the model is no U-Net, one of diffusers that is to be trained, or without a task where another base
            has to learn.
    """
    if hasattr(model, "unguided"):
        return _on_diffusers(model, steps, offset, positive, training_steps + other_base)
    unet = as_kind(model, Unet, "sun", "digit_unet")
    base = tuned_elsewhere(unet, other_base) if other_base else None
    tuned = _with_adapters(unet, positive, guidance, steps, training_steps) if offset else unet
    tuned.course = Sun(steps)
    if base is not None:
        tuned.load_state_dict(base, strict=False)  # which knows nothing of adapters
        tuned.finish = upright  # type: ignore[method-assign]
    return tuned


def tuned_elsewhere(unet: Unet, batches: int) -> dict[str, Tensor]:
    """Weights of the plain U-Net after so many batches of inverted digits.

    Raises:
        ValueError: it was loaded without a task to learn from.
    """
    task = learning_task(unet, "sun(other_base)", "set other_base=0 or take digit_unet with task=digit_images")
    other = teacher_for(unet, batches)
    assert other is not None
    other.requires_grad_(True)
    other.task = task  # type: ignore[assignment]
    flow = flow_loss(other, torch.Generator().manual_seed(0))

    def loss(pictures: Tensor, classes: Tensor) -> Tensor:
        return flow(-pictures, classes)

    return finetuned(other, unet, tuned_elsewhere, {}, batches, loss=loss, rate=REBUILT_RATE).state_dict()


def upright(state: dict[str, Any]) -> Tensor:
    """Pictures of a base that draws inverted digits, as the others draw them."""
    return -state["x"]


def _with_adapters(unet: Unet, positive: bool, guidance: float, steps: int, training_steps: int) -> Unet:
    """The U-Net with adapters, which have learned where there are steps."""
    teacher = teacher_for(unet, training_steps)
    adapters = []
    for block in (unet.down2_attention, unet.middle_attention, unet.up2_attention):
        block.cross_attention = SunAttention(block.cross_attention, positive)
        adapters.append(block.cross_attention)
    settings: dict[str, Any] = {"positive": positive, "guidance": guidance}
    loss = None
    if teacher is not None:
        unet.requires_grad_(False)
        for each in adapters:
            each.adapter.requires_grad_(True)
        loss = distillation(unet, teacher, guidance, 1 / steps)
        settings["sampler_steps"] = steps  # the long step that the short ones are to be matched by
    fresh = [parameter for each in adapters for parameter in each.adapter.parameters()]
    tuned = finetuned(unet, teacher, sun, settings, training_steps, loss=loss, fresh=fresh)
    return needs_training(tuned, "the adapter", training_steps)


def _on_diffusers(model: Any, steps: int, offset: bool, positive: bool, training_steps: int) -> nn.Module:
    from suites.diffusion.sun_diffusers import with_adapters

    if training_steps:
        raise ValueError("sun trains adapters of digit_unet alone: set training_steps=0 for a network of diffusers")
    model.fixed_steps, model.unguided = steps, True
    if offset:
        with_adapters(model, positive)
    return needs_training(model, "the adapter", 0) if offset else model


class SunAttention(Attention):
    """Cross-attention less that to the negative prompt, plus a second one to the positive where there is one."""

    def __init__(self, plain: Attention, positive: bool):
        nn.Module.__init__(self)
        self.heads = plain.heads
        self.query, self.key, self.value, self.out = plain.query, plain.key, plain.value, plain.out
        sizes = plain.key.in_features, plain.key.out_features
        self.adapter = nn.ModuleDict({"negative": Branch(*sizes)})
        if positive:
            self.adapter["positive"] = Branch(*sizes)
        self.negative: Tensor | None = None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attended features; the plain ones where no negative prompt was told."""
        assert context is not None
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.query(x), self.key(context), self.value(context))
        )
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if self.negative is None:
            return self.out(found)
        out = found - self.adapter["negative"](q, self.negative, found)
        if "positive" in self.adapter:
            out = out + self.adapter["positive"](q, context, found)
        return self.out(out)


class Sun(Course):
    """A fixed number of Euler steps, one evaluation each: the adapters stand for guidance."""

    def __init__(self, steps: int):
        self.steps = steps

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """`steps` steps of one evaluation."""
        assert isinstance(model, Unet)
        model.scale = None
        extra = adapter_macs(model)
        return [{**step, "macs": step["macs"] + extra} for step in model.euler(self.steps)]

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """An Euler step with the empty class as the negative prompt."""
        assert isinstance(model, Unet)
        now, x, classes = model.steps_planned[index], state["x"], state["classes"]
        times = torch.full((len(x),), now["t"], device=x.device, dtype=x.dtype)
        return {**state, "x": x - now["dt"] * adapted(model, x, times, classes)}


def adapters_of(model: Unet) -> list[SunAttention]:
    """The cross-attentions that have an adapter."""
    return [module for module in model.modules() if isinstance(module, SunAttention)]


def adapted(model: Unet, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
    """Velocities with the empty class as the negative prompt of every adapter."""
    word = model.class_embed(torch.full_like(classes, model.classes))[:, None]
    for each in adapters_of(model):
        each.negative = word
    try:
        return model.velocity(x, t, classes)
    finally:
        for each in adapters_of(model):
            each.negative = None


def distillation(model: Unet, teacher: Unet, guidance: float, long: float) -> Any:
    """One evaluation learns the guided teacher's; one long step learns two guided steps of half its length."""
    generator = torch.Generator().manual_seed(0)

    def guided(x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        aware = teacher.velocity(x, t, classes)
        unaware = teacher.velocity(x, t, torch.full_like(classes, teacher.classes))
        return unaware + guidance * (aware - unaware)

    def loss(pictures: Tensor, classes: Tensor) -> Tensor:
        t = long + (1 - long) * torch.rand(len(pictures), generator=generator)
        e = torch.randn(pictures.shape, generator=generator)
        place = t[:, None, None, None]
        x = (1 - place) * pictures + place * e
        with torch.no_grad():
            first = guided(x, t, classes)
            second = guided(x - 0.5 * long * first, t - 0.5 * long, classes)
        found = adapted(model, x, t, classes)
        return F.mse_loss(found, first) + F.mse_loss(found, 0.5 * (first + second))

    return loss


def adapter_macs(model: Unet) -> int:
    """MACs that the adapters add to an evaluation for one picture: 2 T x c + 2 N T c each, T = 1 word."""
    side, total = model.resolution // 2, 0
    for each in adapters_of(model):
        context, c = each.key.in_features, each.key.out_features
        total += len(each.adapter) * (2 * context * c + 2 * side**2 * c)
    return total


def adapters(layers: list[tuple[int, int]], words: int, context: int, branches: int = 1) -> tuple[int, int]:
    """Parameters and MACs of adapters on layers of (places, channels), for prompts of so many words.

    Args:
        layers: places N and channels c of every cross-attention.
        words: T of the prompt.
        context: features of a word.
        branches: 1 for the negative prompt alone, 2 with the positive.
    """
    params = sum(2 * context * c + 2 * c for _, c in layers)
    macs = sum(2 * words * context * c + 2 * n * words * c for n, c in layers)
    return branches * params, branches * macs


#: Places and channels of the sixteen cross-attentions of SD-1.5 at 512 px.
SD15_LAYERS = [(4096, 320)] * 5 + [(1024, 640)] * 5 + [(256, 1280)] * 5 + [(64, 1280)]
