"""FlashAttention-2: exact attention in tiles with an online softmax (Dao 2023, arXiv 2307.08691).

For a tile of queries the loop over key tiles keeps a running maximum m, a running sum l and an output O that is divided
by l once, at the end; only m + log l is stored for the backward. Causal tiles above the diagonal are skipped, only
those on it are masked. Nothing is approximated: backends differ in time and memory alone. The rows are torch's kernels
and the package's; `tiled_reference` is the loop in Python.

Counting: 2 N^2 d H products forward, the causal half shown apart. The paper counts 4 N^2 d H operations, half of it
where causal, and 2.5 times that backward; its utilisation in training counts 6 P + 12 L width N operations a token and
does not halve for causality (recalled).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.attention.operator import AttentionOperator, masked_attention
from suites.common.decoder import Decoder, as_decoder
from suites.common.decoder_cache import Keeper, behind
from suites.common.torchvision_remedy import NotInstalled

TORCH_BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
BACKENDS_BY_NUMBER = {int(backend.value): backend.name.lower() for backend in SDPBackend.__members__.values()}


class NotHere(UsageError, NotImplementedError):
    """A kernel that does not run such tensors on this device: the row is `unsupported`, with this reason."""


def flash_attention(
    *,
    length: PositiveInt = 512,
    heads: PositiveInt = 8,
    width: PositiveInt = 64,
    causal: bool = False,
    backend: Literal["sdpa", "math", "flash", "efficient", "cudnn", "flex", "flash_attn", "tiled_reference"] = "sdpa",
    tile: PositiveInt = 64,
    backward: bool = False,
) -> FlashAttention:
    """Softmax attention by one backend.

    Args:
        length: N.
        heads: attention heads.
        width: numbers per head.
        causal: whether a query sees only what stands before it.
        backend: sdpa is torch's own choice on the device (`chosen` names it); math writes the scores out; flash,
            efficient and cudnn force one of torch's kernels; flex and flash_attn are other implementations;
            tiled_reference the loop.
        tile: tile of the loop.
        backward: also runs the backward of the sum of the output; the call then gives the gradient of the queries.

    Raises:
        NotInstalled: the package flash_attn is asked for and not installed.
    """
    if backend == "flash_attn":
        _flash_attn()
    return FlashAttention(heads, length, width, causal, backend, tile, backward).eval()


class FlashAttention(AttentionOperator):
    """Attention by a named backend."""

    def __init__(self, heads: int, tokens: int, size: int, causal: bool, backend: str, tile: int, backward: bool):
        super().__init__(heads, tokens, size)
        self.causal, self.backend, self.tile, self.backward = causal, backend, tile, backward

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What is attended; with `backward` the gradient of its sum with respect to the queries."""
        if not self.backward:
            return self._attend(q, k, v)
        with torch.inference_mode(False), torch.enable_grad():
            inputs = [x.clone().requires_grad_() for x in (q, k, v)]
            self._attend(inputs[0], inputs[1], inputs[2]).sum().backward()
        gradient = inputs[0].grad
        assert gradient is not None
        return gradient

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The scores written out."""
        seen = behind(q.shape[2], k.shape[2], q.device) if self.causal else None
        if not self.backward:
            return masked_attention(q, k, v, seen)
        with torch.inference_mode(False), torch.enable_grad():
            inputs = [x.clone().requires_grad_() for x in (q, k, v)]
            masked_attention(inputs[0], inputs[1], inputs[2], seen).sum().backward()
        gradient = inputs[0].grad
        assert gradient is not None
        return gradient

    @property
    def form(self) -> str:
        """Which implementation runs."""
        return self.backend

    @property
    def macs_dense(self) -> int | None:
        """Products of the whole square, of a causal forward; None where nothing is ruled out."""
        return macs(self.tokens, self.heads, self.size) if self.causal and not self.backward else None

    @property
    def macs_nonzero(self) -> int | None:
        """Of them those on and below the diagonal."""
        whole = self.macs_dense
        return None if whole is None else whole - causal_unused_macs(self.tokens, self.heads, self.size)

    def required_bytes(self, q: Tensor, k: Tensor, v: Tensor) -> int:
        """Bytes of the scores and weights where they are written out; the fused kernels keep a few tiles."""
        if self.backend not in ("math", "flex"):
            return 0
        return 2 * q.shape[0] * score_bytes(q.shape[2], q.shape[1], q.element_size())

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_by(self.backend, q, k, v, causal=self.causal, tile=self.tile)

    def chosen(self, q: Tensor, k: Tensor, v: Tensor) -> str:
        """The kernel that torch picks for these inputs, by name."""
        number = torch._fused_sdp_choice(q, k, v, is_causal=self.causal)
        return BACKENDS_BY_NUMBER.get(int(number), str(number))


def attend_by(backend: str, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, tile: int = 64) -> Tensor:
    """Softmax attention by a named backend.

    Raises:
        NotHere: the backend does not run such tensors here.
        NotInstalled: it is not installed.
    """
    if backend == "tiled_reference":
        return tiled(q, k, v, causal, tile)[0]
    if backend == "flex":
        return _flex(q, k, v, causal)
    if backend == "flash_attn":
        return _flash_attn()(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), causal=causal).transpose(1, 2)
    if backend == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    try:
        with sdpa_kernel(TORCH_BACKENDS[backend]):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    except RuntimeError as error:
        if "No available kernel" not in str(error) and "No viable backend" not in str(error):
            raise
        raise NotHere(f"backend {backend} does not run {q.dtype} on {q.device.type}: {error}") from error


def attention_backend(
    model: nn.Module,
    *,
    backend: Literal["sdpa", "math", "flash", "efficient", "cudnn", "flex", "flash_attn", "tiled_reference"] = "math",
) -> Decoder:
    """The decoder whose whole sequences (training steps, prompts) attend by one backend; single steps are its own.

    Args:
        model: a decoder with a plain cache.
        backend: as of `flash_attention`.

    Raises:
        ValueError: not such a model.
        NotInstalled: the package flash_attn is asked for and not installed.
    """
    if backend == "flash_attn":
        _flash_attn()
    decoder = as_decoder(model, "attention_backend")
    for block in decoder.blocks:
        block.attention.keeper = BackendKeeper(backend)
    return decoder


class BackendKeeper(Keeper):
    """The plain cache; whole sequences attend by a named backend, shared key heads repeated."""

    def __init__(self, backend: str):
        super().__init__()
        self.backend = backend

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of a whole sequence."""
        share = q.shape[1] // k.shape[1]
        if share > 1:
            k, v = (part.repeat_interleave(share, dim=1) for part in (k, v))
        return attend_by(self.backend, q, k, v, causal=True)


def _flash_attn() -> Any:
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise NotInstalled(
            f"flash_attn is not installed ({error}); it needs a GPU: python -m pip install flash-attn"
        ) from error
    return flash_attn_func


def _flex(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not causal:
        return flex_attention(q, k, v)
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, q.shape[2], k.shape[2], device=q.device.type)
    return flex_attention(q, k, v, block_mask=mask)


def tiled(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = False, tile: int = 64, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp [batch, heads, queries] by the loop over tiles; `seen` [queries, keys] masks further.

    A query that sees nothing gets zeros and a log-sum-exp of -inf.
    """
    outputs, sums = [], []
    for start in range(0, q.shape[2], tile):
        rows = q[:, :, start : start + tile]
        out, lse = _row_of_tiles(rows, k, v, start, causal, tile, seen)
        outputs.append(out)
        sums.append(lse)
    return torch.cat(outputs, dim=2), torch.cat(sums, dim=2)


def _row_of_tiles(
    q: Tensor, k: Tensor, v: Tensor, start: int, causal: bool, tile: int, seen: Tensor | None
) -> tuple[Tensor, Tensor]:
    top = q.new_full((*q.shape[:3], 1), -torch.inf)
    total, out = torch.zeros_like(top), q.new_zeros(*q.shape[:3], v.shape[3])
    rows = torch.arange(start, start + q.shape[2], device=q.device)[:, None]
    for first in range(0, k.shape[2], tile):
        if causal and first > start + q.shape[2] - 1:
            break  # tiles wholly above the diagonal
        columns = torch.arange(first, min(first + tile, k.shape[2]), device=q.device)
        scores = q @ k[:, :, first : first + tile].transpose(-2, -1) * q.shape[-1] ** -0.5
        if causal and first + tile - 1 > start:  # a tile on the diagonal
            scores = scores.masked_fill(rows < columns, -torch.inf)
        if seen is not None:
            scores = scores.masked_fill(~seen[rows, columns], -torch.inf)
        higher = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
        safe = torch.where(torch.isinf(higher), torch.zeros_like(higher), higher)
        weights, fade = torch.exp(scores - safe), torch.exp(top - safe)
        out = out * fade + weights @ v[:, :, first : first + tile]
        total = total * fade + weights.sum(dim=-1, keepdim=True)
        top = higher
    lse = (top + total.log()).squeeze(-1)
    return torch.where(total > 0, out / total, torch.zeros_like(out)), lse


def macs(tokens: int, heads: int, size: int) -> int:
    """Products of the whole square: 2 N^2 d H."""
    return 2 * tokens**2 * size * heads


def causal_unused_macs(tokens: int, heads: int, size: int) -> int:
    """Of them those above the diagonal."""
    return tokens * (tokens - 1) * size * heads


def paper_operations(tokens: int, heads: int, size: int, causal: bool = False, backward: bool = False) -> float:
    """Operations as the paper counts them: 4 N^2 d H, half where causal, 2.5 times that for a backward."""
    forward = 4 * tokens**2 * size * heads / (2 if causal else 1)
    return 2.5 * forward if backward else forward


def training_operations(parameters: int, layers: int, width: int, tokens: int) -> int:
    """Operations of a token in training as the paper counts them: 6 P + 12 L width N, not halved for causality."""
    return 6 * parameters + 12 * layers * width * tokens


def score_bytes(tokens: int, heads: int, number: int = 2) -> int:
    """Bytes of the score matrix that the fused kernels do not write."""
    return heads * tokens**2 * number
