"""Products and bytes of a prompt whose layers see different numbers of tokens, and three conventions in print.

With width d, gated network m, key width g, L layers and n_l = T + v_l tokens in layer l:

- prefill: sum_l n_l (2 d^2 + 2 d g + 3 d m) + 2 n_l^2 d, and d V for the last position;
- step t: sum_l 2 d^2 + 2 d g + 3 d m + 2 (n_l + t) d, and d V;
- cache: 2 g sum_l (n_l + t) numbers.

Causal attention counts uncut. Shapes with heads of another size than d / H are counted by their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from suites.common.decoder_shape import (
    DecoderShape,
    attention_macs,
    cached_numbers,
    head_macs,
    network_macs,
    position_macs,
)
from suites.common.shares import at_most


def prefill_macs(shape: DecoderShape, text: int, visual: Sequence[int], *, head: bool = True) -> int:
    """Products of the decoder for a prompt of `text` words and `visual[l]` visual tokens in layer l."""
    total = head_macs(shape) if head else 0
    for layer, count in zip(shape.layers, visual, strict=True):
        n = text + count
        total += n * (attention_macs(layer, shape.width) + network_macs(layer, shape.width))
        total += n**2 * position_macs(layer)
    return total


def decode_macs(
    shape: DecoderShape, text: int, visual: Sequence[int], step: int, *, neurons: float = 1.0, head: bool = True
) -> int:
    """Products of the step that writes the token after `step` new ones have been read, itself included.

    `neurons` is the share of the gated network's neurons that it runs.
    """
    total = head_macs(shape) if head else 0
    for layer, count in zip(shape.layers, visual, strict=True):
        kept = at_most(layer.hidden, neurons)
        total += attention_macs(layer, shape.width) + 3 * shape.width * kept
        total += (text + count + step) * position_macs(layer)
    return total


def request_macs(shape: DecoderShape, text: int, visual: Sequence[int], new: int) -> int:
    """Products of the decoder for a prompt and `new` - 1 steps."""
    steps = sum(decode_macs(shape, text, visual, step) for step in range(1, new))
    return prefill_macs(shape, text, visual) + steps


def cache_bytes(shape: DecoderShape, text: int, visual: Sequence[int], step: int = 0, width: int = 2) -> int:
    """Bytes of keys and values after the prompt and `step` further tokens, `width` bytes a number."""
    return sum(
        width * cached_numbers(layer) * (text + count + step) for layer, count in zip(shape.layers, visual, strict=True)
    )


# ------------------------------------------------------------------------------------------ towers


def vit_macs(tokens: int, width: int, layers: int, hidden: int, patch_inputs: int, class_token: bool = True) -> int:
    """Products of a plain vision transformer on one picture of `tokens` tokens, class token included.

    `patch_inputs` are the numbers of a patch, channels included.
    """
    patches = tokens - int(class_token)
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    return patches * patch_inputs * width + layers * block


def clip_macs(layers: int = 23) -> int:
    """CLIP-L/14 at 336 pixels, 577 tokens: LLaVA needs 23 of its 24 layers."""
    return vit_macs(577, 1024, layers, 4096, 3 * 14 * 14)


def llava_projector_macs(tokens: int = 576, tower: int = 1024, width: int = 4096) -> int:
    """Two linear maps, tower to decoder width and again."""
    return tokens * (tower * width + width * width)


# ------------------------------------------------------------------------------------------ conventions in print


def image_tokens_only(shape: DecoderShape, visual: Sequence[int]) -> int:
    """One product = one FLOP, T = 0, no tower, no head: sum_l 4 v d^2 + 2 v^2 d + 3 v d m (PyramidDrop, FastV).

    Key heads are counted as many as query heads, as the formula has it.
    """
    total = 0
    for layer, v in zip(shape.layers, visual, strict=True):
        total += 4 * v * shape.width**2 + 2 * v**2 * shape.width + 3 * v * shape.width * layer.hidden
    return total


def llm_viewer_flops(shape: DecoderShape, text: int, visual: Sequence[int]) -> int:
    """Operations as LLM-Viewer counts a prompt: two per product, five per entry of the score map, norms and adds (AIM).

    Its norms take seven operations a number and its residuals and gates one each; the tower is left out.
    """
    total = 2 * prefill_macs(shape, text, visual)
    for layer, count in zip(shape.layers, visual, strict=True):
        n = text + count
        total += 5 * layer.heads * n**2
        total += n * (2 * 7 * shape.width + 2 * shape.width + 2 * layer.hidden)
    return total


def profiler_flops(
    shape: DecoderShape, text: int, visual: Sequence[int], tower: int | None = None, projected: int = 576
) -> int:
    """Operations of the whole model as a profiler sees it: two per product, tower and projector inside (VisionDrop).

    Args:
        shape: of the decoder.
        text: words, about 76 in the paper.
        visual: visual tokens per layer.
        tower: products of the tower; None for 23 layers of CLIP-L/14-336.
        projected: tokens that go through the projector.
    """
    seen = clip_macs() if tower is None else tower
    return 2 * (seen + llava_projector_macs(projected, 1024, shape.width) + prefill_macs(shape, text, visual))


# ------------------------------------------------------------------------------------------ what the methods add


def last_row_macs(shape: DecoderShape, text: int, before: int, after: int, score: str = "reuse", layer: int = 0) -> int:
    """Products of scoring a cut by the last token's attention in the layer that follows (PyramidDrop).

    `minimal` projects all keys once more, `released` queries, keys and values of all; `reuse` hands the kept keys on to
    the layer, so that of the keys only those of dropped tokens are extra. All add the last query and its row.
    """
    part, d = shape.layers[layer], shape.width
    n, query, key = text + before, part.heads * part.head, part.kv_heads * part.head
    row = n * query
    if score == "released":
        return n * (d * query + 2 * d * key) + row
    keys = (before - after) if score == "reuse" else n
    return keys * d * key + d * query + row


def aim_pruning_macs(shape: DecoderShape, tokens: int, rounds: int = 5, layer: int = 0) -> int:
    """Products of one pruned layer: the written-out map, H n^2 head width, and `rounds` x H n^2 of PageRank."""
    part = shape.layers[layer]
    return part.heads * tokens**2 * (part.head + rounds)


def merging_macs(tokens: int, rounds: Sequence[int], width: int) -> int:
    """Products of matching odd with even tokens of one frame: sum of ceil(n / 2) floor(n / 2) width."""
    total = 0
    for merged in rounds:
        total += (tokens - tokens // 2) * (tokens // 2) * width
        tokens -= merged
    return total
