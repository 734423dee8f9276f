"""Products of one forward of the networks that papers of this field print, from their sizes alone; no module is built.

N tokens, width C, L blocks. What the papers print: "Gflops" of DiT and SparseDiT are these products; TFLOPs of FLUX,
HunyuanVideo and CogVideoX papers are two for each product over all steps; "MACs" of latent-diffusion U-Nets in
caching papers leave the products of attention out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def dit(tokens: int, width: int, depth: int, patch: int = 2, channels: int = 4) -> int:
    """Peebles and Xie 2023: L (12 N C^2 + 2 N^2 C + 6 C^2), patches in, twice as many out, time and last modulation."""
    n, c = tokens, width
    ends = 3 * n * patch**2 * channels * c + 2 * c**2 + 256 * c + c**2
    return depth * (12 * n * c**2 + 2 * n**2 * c + 6 * c**2) + ends


def pixart(tokens: int, words: int = 120, width: int = 1152, depth: int = 28, attention: bool = True) -> int:
    """PixArt-alpha: cross-attention to the words, one modulation for all blocks."""
    n, t, c = tokens, words, width
    products = 2 * n**2 * c + 2 * n * t * c if attention else 0
    block = 12 * n * c**2 + 2 * n * c**2 + 2 * t * c**2 + products
    return depth * block + 6 * c**2 + 16 * n * c + 32 * n * c + t * (4096 * c + c**2) + 256 * c + c**2


def pixart_flexdit(kinds: Sequence[str], tokens: int, sparse: int, words: int = 120, width: int = 1152) -> int:
    """PixArt-alpha with blocks of FlexDiT; plain ones between a sparse block and a recovery work on sparse tokens.

    Args:
        kinds: of every block: pooling, sparse, recovery or plain.
        tokens: N, of the dense grid.
        sparse: M, of the sparse one.
        words: T, which every block's cross-attention looks at.
        width: of a token.
    """
    n, m, t, c, total, now = tokens, sparse, words, width, 0, tokens

    def cross(queries: int) -> int:
        return 2 * queries * c**2 + 2 * t * c**2 + 2 * queries * t * c

    for kind in kinds:
        if kind == "pooling":
            total += 10 * n * c**2 + cross(n)
        elif kind == "sparse":
            now = m
            total += 10 * m * c**2 + 2 * n * c**2 + 2 * m * n * c + cross(m)
        elif kind == "recovery":
            now = n
            total += 12 * n * c**2 + 2 * m * c**2 + 2 * m * n * c + cross(n)
        else:
            total += 12 * now * c**2 + 2 * now**2 * c + cross(now)
    return total + pixart(n, t, c, 0)


def flux(tokens: int, words: int = 512, guidance: bool = True) -> int:
    """FLUX.1: 19 double and 38 single blocks of width 3072 over picture and text together."""
    d, n = 3072, tokens + words
    blocks = 57 * (12 * n * d**2 + 2 * n**2 * d) + (19 * 12 + 38 * 3) * d**2
    embedded = (64 * tokens + 4096 * words + 64 * tokens) * d
    told = (2 if guidance else 1) * (256 * d + d**2) + 768 * d + d**2
    return blocks + embedded + 2 * d**2 + told


def blocks(depth: int, tokens: int, width: int) -> int:
    """Blocks alone, L (12 n d^2 + 2 n^2 d): as printed of HunyuanVideo (60, 3072) and CogVideoX1.5-5B (42, 3072)."""
    return depth * (12 * tokens * width**2 + 2 * tokens**2 * width)


def hunyuan_tokens(frames: int = 129, height: int = 720, width: int = 1280, words: int = 256) -> int:
    """Tokens of a video: a latent for four frames and 8 x 8 pixels, patches of 2 x 2 latents, and the words."""
    return ((frames - 1) // 4 + 1) * (height // 16) * (width // 16) + words


def var(
    depth: int, scales: Sequence[int], codes: int = 4096, width: int | None = None, branches: int = 2,
    shared: bool = False,
) -> int:  # fmt: skip
    """VAR: all scales of an image, each seeing all before it; two branches with guidance.

    With `shared` one map of the class tells all blocks, computed once a scale.
    """
    c, keys, total = width or 64 * depth, 0, 0
    for k, side in enumerate(scales):
        q, keys = side**2, keys + side**2
        told = 6 * c**2 * (1 if shared else depth)
        total += depth * (12 * q * c**2 + 2 * q * keys * c) + told + q * c * codes + 2 * c**2 + (32 * q * c if k else 0)
    return branches * total


def codes_drafted(
    scales: Sequence[int], drafted: int, drafter: int, refiner: int, codes: int = 4096, logits: str = "all"
) -> tuple[int, int]:
    """CoDe's two networks, guided: the drafter's scales, and the refiner's with its first call over the prefix."""
    keys = [sum(side**2 for side in scales[: k + 1]) for k in range(len(scales))]

    def call(depth: int, q: int, seen: int, first: bool, heads: int) -> int:
        c = 64 * depth
        words = q - 1 if first else q
        return depth * (12 * q * c**2 + 2 * q * seen * c + 6 * c**2) + heads * c * codes + 2 * c**2 + 32 * words * c

    own = sum(call(drafter, scales[k] ** 2, keys[k], k == 0, scales[k] ** 2) for k in range(drafted))
    if drafted == len(scales):
        return 2 * own, 0
    prefix = keys[drafted]
    rest = call(refiner, prefix, prefix, True, prefix if logits == "all" else scales[drafted] ** 2)
    rest += sum(call(refiner, scales[k] ** 2, keys[k], False, scales[k] ** 2) for k in range(drafted + 1, len(scales)))
    return 2 * own, 2 * rest


@dataclass(frozen=True)
class UnetShape:
    """A latent-diffusion U-Net: side of the latent, its channels, width, multiples, and where it attends."""

    side: int = 64
    channels: int = 4
    width: int = 320
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    attends: tuple[bool, ...] = (True, True, True, False)
    words: int = 77
    context: int = 768
    residuals: int = 2


SD15 = UnetShape()
LDM4 = UnetShape(64, 3, 192, (1, 2, 3, 5), (False, True, True, True), 1, 512)


def res_block(n: int, inner: int, outer: int, width: int) -> int:
    """Two 3 x 3 convolutions on n places, the time, and a shortcut where widths differ."""
    return 9 * n * (inner * outer + outer**2) + 4 * width * outer + (n * inner * outer if inner != outer else 0)


def transformer(n: int, c: int, shape: UnetShape, attention: bool = True) -> int:
    """In and out, self-attention, cross-attention, gated MLP on n places of c channels."""
    t, x = shape.words, shape.context
    products = 2 * n**2 * c + 2 * n * t * c if attention else 0
    return 2 * n * c**2 + 4 * n * c**2 + 2 * n * c**2 + 2 * t * x * c + 12 * n * c**2 + products


def unet(shape: UnetShape = SD15, *, attention: bool = True) -> int:
    """All of a U-Net; without the products of attention as caching papers print it."""
    mc, levels = shape.width, len(shape.multiples)
    places = [(shape.side // 2**level) ** 2 for level in range(levels)]
    widths = [mc * multiple for multiple in shape.multiples]
    total, skips, inner = 9 * places[0] * shape.channels * mc + 20 * mc**2, [mc], mc
    for level in range(levels):
        for _ in range(shape.residuals):
            total += res_block(places[level], inner, widths[level], mc)
            inner = widths[level]
            total += transformer(places[level], inner, shape, attention) if shape.attends[level] else 0
            skips.append(inner)
        if level < levels - 1:
            total += 9 * places[level + 1] * inner**2
            skips.append(inner)
    total += 2 * res_block(places[-1], inner, inner, mc) + transformer(places[-1], inner, shape, attention)
    for level in reversed(range(levels)):
        for _ in range(shape.residuals + 1):
            total += res_block(places[level], inner + skips.pop(), widths[level], mc)
            inner = widths[level]
            total += transformer(places[level], inner, shape, attention) if shape.attends[level] else 0
        if level:
            total += 9 * places[level - 1] * inner**2
    return total + 9 * places[0] * mc * shape.channels


def unet_skipped(shape: UnetShape) -> int:
    """A step that keeps the input of the last block upwards: the first and last convolution, that block, the time."""
    n, mc = shape.side**2, shape.width
    block = res_block(n, 2 * mc, mc, mc) + (transformer(n, mc, shape) if shape.attends[0] else 0)
    return 2 * 9 * n * shape.channels * mc + block + 20 * mc**2


def staged(stages: Iterable[tuple[int, int]]) -> int:
    """Bottleneck sampling: steps x products of a forward, over the stages."""
    return sum(steps * macs for steps, macs in stages)


def scale_dit(high: int, window: int, low: int, words: int = 512, width: int = 3072, depth: int = 57) -> int:
    """Blocks of a Scale-DiT forward: linear layers of all tokens, products of the mask's pairs.

    Args:
        high: tokens of the large picture.
        window: tokens of a window.
        low: anchors.
        words: text tokens.
        width: of a token.
        depth: blocks.
    """
    tokens = words + high + low
    pairs = words * (words + high) + high * (words + window + low) + low * (low + words)
    return depth * (12 * tokens * width**2 + 2 * pairs * width)


def in_chunks(
    frames: int, chunk: int, context: int, shared: int, places: int, width: int, depth: int, refined: int = 4
) -> int:
    """VINs: blocks over every chunk with the last frames of the one before it and the global tokens, and the interface.

    Args:
        frames: of the video.
        chunk: frames of a chunk.
        context: frames of the chunk before it.
        shared: global tokens, which look at one key frame a chunk; without any there is no interface.
        places: tokens of a frame.
        width: of a token.
        depth: blocks of the transformer.
        refined: blocks that refine the global tokens.
    """
    begins = range(0, frames, chunk)
    seen = len(begins) * places
    total = 0
    if shared:
        total = blocks(refined, shared, width) + 2 * (shared + seen) * width**2 + 2 * shared * seen * width
    for begin in begins:
        own = min(begin + chunk, frames) - begin
        total += blocks(depth, (own + min(context, begin)) * places + shared, width)
    return total
