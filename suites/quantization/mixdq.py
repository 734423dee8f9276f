"""MixDQ: few-step text-to-image diffusion with mixed bits (Zhao et al. 2024, arXiv 2405.17873).

The first word of a prompt is always the same and carries the outlier: its keys and values in cross-attention are
computed once in floats and kept, those of the other words are rounded. Two lists of sensitivities, each with one layer
rounded at a time: layers of cross-attention and feed-forward ("content") by structural similarity of the pictures, all
others ("quality") by SQNR. An integer programme per list picks a width a layer; content layers may take 2, 4 or 8 bits,
others 4 or 8. Weights per output channel, activations per tensor, static; activations may be mixed of 4 and 8 bits by
such programmes too, inputs of the most sensitive 1 % of the layers staying floats. At 8 and 8 bits the products are
whole numbers, zero points corrected by sums of weights that were made beforehand; mixed rows are simulated.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt, Rate
from suites.common.unet import Attention, Unet, transformer_macs
from suites.quantization.allocate import choose
from suites.quantization.cost import costed
from suites.quantization.grids import sqnr_db
from suites.quantization.layers import IntLayer, LayerLike, RoundedLayer
from suites.quantization.network import calibration_batches, folded, needs_layers, on_meta, replaced, without_task
from suites.quantization.noise import Noise
from suites.quantization.whitepaper import activation_grids, rounded_weight, static

CONTENT, QUALITY = (2, 4, 8), (4, 8)
#: How far the mean of the bits may be from its target.
SLACK = 0.02
#: Nominal bits of inputs that stay floats, and words of a prompt.
HALF, WORDS = 16, 3


class PromptUnet(Unet):
    """A U-Net whose cross-attention looks at a prompt of three words: a first that never changes, the class, an end."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.ends = nn.Embedding(2, settings["width"])
        with torch.no_grad():
            self.ends.weight[0] *= 4  # the first word is the outlier, as in the text encoders of such networks

    def words(self, classes: Tensor) -> Tensor:
        """First word, class, end, [batch, 3, width]."""
        first, last = self.ends.weight[0], self.ends.weight[1]
        word = self.class_embed(classes)
        return torch.stack([first.expand_as(word), word, last.expand_as(word)], dim=1)

    def evaluation_macs(self, side: int) -> int:
        """Those of one word, of two more in each cross-attention, less the first's keys and values where kept."""
        coarse, deep = (side // 2) ** 2, 2 * self.width
        each = transformer_macs(coarse, deep, WORDS, self.width) - transformer_macs(coarse, deep, 1, self.width)
        apart = sum(isinstance(module, FirstWordApart) for module in self.modules())
        return super().evaluation_macs(side) + 3 * each - apart * self.width * deep


def prompt_unet(
    *,
    width: PositiveInt = 32,
    heads: PositiveInt = 4,
    resolution: PositiveInt = 16,
    channels: PositiveInt = 1,
    classes: PositiveInt = 10,
) -> PromptUnet:
    """A text-conditioned U-Net of digits in evaluation mode with random weights.

    Args:
        width: channels at full resolution; a multiple of 8 and of `heads`.
        heads: of every attention.
        resolution: side of the square picture in pixels, even.
        channels: of the picture.
        classes: words beside the first and the last.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % 8 or width % heads or resolution % 2:
        raise ValueError(f"width={width} must be a multiple of 8 and of heads={heads}, resolution={resolution} even")
    return PromptUnet(width=width, heads=heads, resolution=resolution, channels=channels, classes=classes).eval()


class FirstWordApart(nn.Module):
    """A key or value layer of cross-attention: the first word's output is kept in floats, the others are rounded."""

    first: Tensor

    def __init__(self, layer: Any, first: Tensor):
        super().__init__()
        self.layer = layer
        self.register_buffer("first", first)

    @property
    def weight(self) -> Tensor:
        """The rounded layer's."""
        return self.layer.weight

    def forward(self, context: Tensor) -> Tensor:
        """Outputs of all words, [batch, words, features]."""
        rest = self.layer(context[:, 1:].contiguous())
        return torch.cat([self.first.expand(len(context), 1, -1), rest], dim=1)


def kind_of(path: str) -> str:
    """`content` for layers of cross-attention and feed-forward, else `quality`."""
    words = path.split(".")
    return "content" if "cross_attention" in words or words[-1] in ("gated", "down", "fc1", "fc2") else "quality"


def structural_similarity(a: Tensor, b: Tensor, window: int = 7) -> float:
    """Mean SSIM of pictures in -1..1 with a uniform window (Wang et al. 2004, formula 13)."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean = lambda x: F.avg_pool2d(x, window, 1)  # noqa: E731
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    made = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return float(made.mean())


@costed
def mixdq(
    model: nn.Module,
    *,
    bits: Literal["8", "mixed", "4", "off"] = "8",
    target: Positive = 6.0,
    balance: Positive = 1.0,
    activation_bits: Literal[4, 8, 32] = 8,
    activation_target: Positive | None = None,
    kept_share: Rate = 0.01,
    first_word: bool = True,
    steps: PositiveInt = 2,
    calibration_samples: PositiveInt = 64,
    seed: Count = 0,
) -> nn.Module:
    """The sampler's network with its layers rounded; "off" leaves it as it is.

    Args:
        model: a sampler; with cross-attention the first word is kept aside.
        bits: 8 with products of whole numbers, one width for all, or mixed by the integer programme.
        target: mean bits of a weight over both lists, of `mixed`.
        balance: k, the content list's target over the quality list's.
        activation_bits: of every activation, static; 32 leaves them.
        activation_target: mean bits of activations mixed of 4 and 8, over those that are rounded and weighed by the
            parameters that they meet; None for `activation_bits` everywhere.
        kept_share: of the layers, whose inputs then stay floats: those with the least SQNR at 8 bits, one at least.
        first_word: whether the first word's keys and values stay floats.
        steps: of the sampler in which sensitivities are taken.
        calibration_samples: that ranges are taken from.
        seed: of the samples.

    Raises:
        ValueError: a target that a list's widths cannot have.
    """
    if bits == "off":
        return model
    folded(model)
    layers = needs_layers(model, "mixdq")
    widths = dict.fromkeys(layers, 4 if bits == "4" else 8)
    if bits == "mixed" and not on_meta(model):
        widths = mixed_bits(model, target, balance, steps)
    firsts = _first_words(model) if first_word else {}
    for path, first in firsts.items():  # before calibration, which then sees the other words alone
        replaced(model, path, FirstWordApart(layers[path], first))
    batches = [] if on_meta(model) else calibration_batches(model, calibration_samples, seed)
    seen: dict[str, int] = dict.fromkeys(layers, activation_bits)
    if activation_target is not None and batches:
        seen = mixed_activations(model, layers, batches, activation_target, balance, kept_share, steps)
    grids = {width: activation_grids(model, layers, batches, width) for width in {*seen.values()} - {HALF}}
    whole = bits == "8" and activation_bits == 8 and activation_target is None
    noise = Noise()
    for path, layer in layers.items():
        made: LayerLike
        grid = None if seen[path] == HALF else grids[seen[path]][path]
        exact = layer.weight.detach()
        if whole:
            made = IntLayer(layer, grid)
        else:
            layer.weight = nn.Parameter(rounded_weight(exact, widths[path], "channel", True))
            made = RoundedLayer(layer, widths[path], static(grid), seen[path])
        noise.add(exact, made.dense() if isinstance(made, IntLayer) else made.weight)
        replaced(model, f"{path}.layer" if path in firsts else path, made)
    model.weight_sqnr_db = noise.db  # type: ignore[assignment]
    model.widths, model.activation_widths = widths, seen  # type: ignore[assignment]
    model.execution = "real-int" if whole else "simulated"  # type: ignore[assignment]
    return model


def _first_words(model: nn.Module) -> dict[str, Tensor]:
    """Keys and values of the first word, by path of their layers; none where a prompt has one word alone."""
    if not isinstance(model, PromptUnet):
        return {}
    found = {}
    first = model.ends.weight[:1].detach()
    for path, module in model.named_modules():
        if isinstance(module, Attention) and path.endswith("cross_attention"):
            for name in ("key", "value"):
                found[f"{path}.{name}"] = getattr(module, name)(first).detach().clone()
    return found


def _pictures(model: Any, steps: int, batch: int = 4) -> Tensor:
    plan = model.plan({"steps": steps})
    state = model.start(model.example_noise(batch, 0), model.example_cond(batch))
    with torch.no_grad():
        for step in plan:
            state = model.step(step["index"], state)
    return model.finish(state)


def sensitivities(model: nn.Module, steps: int) -> dict[str, dict[int, float]]:
    """What the pictures lose when one layer alone is rounded, by path and width: 1 - SSIM, or -SQNR in dB."""
    layers = needs_layers(model, "mixdq")
    plain = _pictures(model, steps)
    found: dict[str, dict[int, float]] = {}
    for path, layer in layers.items():
        own, found[path] = layer.weight.data, {}
        content = kind_of(path) == "content"
        for width in CONTENT if content else QUALITY:
            layer.weight.data = rounded_weight(own, width, "channel", True)
            made = _pictures(model, steps)
            loss = 1 - structural_similarity(plain, made) if content else -min(sqnr_db(plain, made), 100.0)
            found[path][width] = loss
        layer.weight.data = own
    return found


def mixed_bits(model: nn.Module, target: float, balance: float, steps: int) -> dict[str, int]:
    """Bits of each layer: an integer programme for each list, weighted means within 0.02 of their targets.

    Raises:
        NoAllocation: no choice of widths has such a mean.
    """
    losses = sensitivities(without_task(model), steps)
    sizes = {path: layer.weight.numel() for path, layer in needs_layers(model, "mixdq").items()}
    return by_two_lists(losses, sizes, target, balance)


def by_two_lists(
    losses: dict[str, dict[int, float]], sizes: dict[str, int], target: float, balance: float
) -> dict[str, int]:
    """A width a layer: of each list those of the least loss whose mean, weighted by size, is within 0.02 of its target.

    The content list's target is `balance` times the quality list's, so that the mean of both is `target`.

    Args:
        losses: by path and width; every layer of a list offers the same widths.
        sizes: by path, at least those of `losses`.
        target: mean bits over both lists.
        balance: k.

    Raises:
        ValueError: a list's target lies outside the widths that it offers.
        NoAllocation: no choice of widths has such a mean.
    """
    lists = {kind: [path for path in losses if kind_of(path) == kind] for kind in ("content", "quality")}
    share = sum(sizes[p] for p in lists["content"]) / sum(sizes[p] for p in losses)
    of_quality = target / (share * balance + 1 - share)
    found: dict[str, int] = {}
    for kind, paths in lists.items():
        if not paths:
            continue
        aim = of_quality * (balance if kind == "content" else 1)
        offered = sorted(losses[paths[0]])
        if not offered[0] - SLACK <= aim <= offered[-1] + SLACK:
            raise ValueError(
                f"a target of {target:g} bits at a balance of {balance:g} asks a mean of {aim:.3g} of the {kind} list, "
                f"which has {', '.join(map(str, offered))} bits: take a target between, or a balance nearer 1"
            )
        total = sum(sizes[p] for p in paths)
        loss = [[losses[p][width] for width in offered] for p in paths]
        cost = [[width * sizes[p] / total for width in offered] for p in paths]
        picks = choose(loss, cost, aim + SLACK, least=aim - SLACK)
        found |= {p: offered[pick] for p, pick in zip(paths, picks, strict=True)}
    return found


def mixed_activations(
    model: nn.Module,
    layers: dict[str, Any],
    batches: list[tuple[Tensor, ...]],
    target: float,
    balance: float,
    kept_share: float,
    steps: int,
) -> dict[str, int]:
    """Bits of each layer's inputs: 4 or 8 by the two lists, 16 for the most sensitive, whose inputs stay floats.

    Args:
        model: with its weights in floats.
        layers: by path.
        batches: that ranges are taken from.
        target: mean bits of the inputs that are rounded, weighed by the parameters that they meet, as weights are.
        balance: k.
        kept_share: of the layers; one layer at least where it is above 0.
        steps: of the sampler in which sensitivities are taken.
    """
    grids = {width: activation_grids(model, layers, batches, width) for width in QUALITY}
    plain, sizes = _pictures(model, steps), {path: layer.weight.numel() for path, layer in layers.items()}
    losses: dict[str, dict[int, float]] = {path: {} for path in layers}
    signal: dict[str, float] = {}
    for path, layer in layers.items():
        for width in QUALITY:
            grid = grids[width][path]
            handle = layer.register_forward_pre_hook(lambda _, args, grid=grid: (grid(args[0]), *args[1:]))
            made = _pictures(model, steps)
            handle.remove()
            signal[path] = min(sqnr_db(plain, made), 100.0)  # of the last, 8 bits, in the end
            alike = structural_similarity(plain, made)
            losses[path][width] = 1 - alike if kind_of(path) == "content" else -signal[path]
    kept = sorted(layers, key=lambda path: signal[path])[: math.ceil(kept_share * len(layers))]
    rest = {path: each for path, each in losses.items() if path not in kept}
    return {**dict.fromkeys(layers, HALF), **(by_two_lists(rest, sizes, target, balance) if rest else {})}


def mean_bits(shares: dict[int, float]) -> float:
    """Mean bits of weights whose shares by width are given: 4.0064 for 0.23769, 0.64186, 0.12044 of 2, 4, 8 bits."""
    return sum(width * share for width, share in shares.items())
