"""MixDQ: few-step text-to-image diffusion with mixed bits (Zhao et al. 2024, arXiv 2405.17873).

The first word of a prompt is always the same and carries the outlier: its keys and values in cross-attention are
computed once in floats and kept, those of the other words are rounded. Two lists of sensitivities, each with one layer
rounded at a time: layers of cross-attention and feed-forward ("content") by structural similarity of the pictures, all
others ("quality") by SQNR. An integer programme per list picks a width a layer; content layers may take 2, 4 or 8 bits,
others 4 or 8. Weights per output channel, activations per tensor, static. At 8 and 8 bits the products are whole
numbers, zero points corrected by sums of weights that were made beforehand; mixed rows are simulated.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.unet import Attention, Unet
from suites.quantization.allocate import choose
from suites.quantization.grids import sqnr_db
from suites.quantization.layers import IntLayer, LayerLike, RoundedLayer, Static
from suites.quantization.network import calibration_batches, folded, needs_layers, on_meta, replaced, without_task
from suites.quantization.whitepaper import activation_grids, rounded_weight

CONTENT, QUALITY = (2, 4, 8), (4, 8)
#: How far the mean of the bits may be from its target.
SLACK = 0.02


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


def mixdq(
    model: nn.Module,
    *,
    bits: Literal["8", "mixed", "4", "off"] = "8",
    target: Positive = 6.0,
    balance: Positive = 1.0,
    activation_bits: Literal[8, 32] = 8,
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
        first_word: whether the first word's keys and values stay floats.
        steps: of the sampler in which sensitivities are taken.
        calibration_samples: that ranges are taken from.
        seed: of the samples.
    """
    if bits == "off":
        return model
    folded(model)
    layers = needs_layers(model, "mixdq")
    widths = dict.fromkeys(layers, 4 if bits == "4" else 8)
    if bits == "mixed" and not on_meta(model):
        widths = mixed_bits(model, target, balance, steps)
    firsts = _first_words(model) if first_word else {}
    batches = [] if on_meta(model) else calibration_batches(model, calibration_samples, seed)
    grids = activation_grids(model, layers, batches, activation_bits)
    whole = bits == "8" and activation_bits == 8
    for path, layer in layers.items():
        made: LayerLike
        if whole:
            made = IntLayer(layer, grids[path])
        else:
            layer.weight = nn.Parameter(rounded_weight(layer.weight.detach(), widths[path], "channel", True))
            grid = grids[path]
            made = RoundedLayer(layer, widths[path], None if grid is None else Static(grid), activation_bits)
        replaced(model, path, FirstWordApart(made, firsts[path]) if path in firsts else made)
    model.widths = widths  # type: ignore[assignment]
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
    content = [path for path in losses if kind_of(path) == "content"]
    quality = [path for path in losses if kind_of(path) == "quality"]
    share = sum(sizes[p] for p in content) / sum(sizes.values())
    of_quality = target / (share * balance + 1 - share)
    found: dict[str, int] = {}
    for paths, wanted, offered in ((content, of_quality * balance, CONTENT), (quality, of_quality, QUALITY)):
        if not paths:
            continue
        total = sum(sizes[p] for p in paths)
        aim = min(max(wanted, offered[0]), offered[-1])
        loss = [[losses[p][width] for width in offered] for p in paths]
        cost = [[width * sizes[p] / total for width in offered] for p in paths]
        picks = choose(loss, cost, aim + SLACK, least=aim - SLACK)
        found |= {p: offered[pick] for p, pick in zip(paths, picks, strict=True)}
    return found


def mean_bits(shares: dict[int, float]) -> float:
    """Mean bits of weights whose shares by width are given: 4.0064 for 0.23769, 0.64186, 0.12044 of 2, 4, 8 bits."""
    return sum(width * share for width, share in shares.items())
