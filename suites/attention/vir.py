"""ViR: vision retention (Hatamizadeh et al. 2023, arXiv 2310.19731).

A pre-norm ViT block with LayerScale whose attention is retention: o_i = sum_{j <= i} g_h^(i - j) (q_i . k_j / sqrt d)
v_j, no softmax and no gate, g_h = 1 - exp(linspace(ln 1/32, ln 1/512, H)). The class token stands last, since order is
causal; positions are those of the patches. Three equal forms: parallel, recurrent (S <- g S + k v^T, o = q S) and
chunks.

Bidirectional the patches are read a second time in reverse before the class token: 2 P + 1 tokens in place of P + 1, in
any of the three forms. In the first block the second reading of patch i (from 0) weighs patch j by g^(2 P - 1 - i - j)
+ [j >= i] g^(j - i), so it sees all of them.

The released parallel path puts a softmax over the decayed scores and is then neither causal nor equal to its
recurrence; this is the softmax-free form, for which the paper's dual forms hold. The released bidirectional path
mirrors the class token too and then reads its answer from the last token, which is the first patch; here the class
token is one and last.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.attention.image_network import ImageNetwork
from suites.common.initial import draw


def decays(heads: int) -> Tensor:
    """G of each head, [heads]."""
    return 1 - torch.exp(torch.linspace(math.log(1 / 32), math.log(1 / 512), heads))


def parallel(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """All positions by one square of decayed scores; q, k, v [batch, heads, tokens, size]."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return (scores * decay_mask(g, q.shape[2])) @ v


def decay_mask(g: Tensor, tokens: int) -> Tensor:
    """g^(i - j) for j <= i, else 0, [heads, tokens, tokens]."""
    place = torch.arange(tokens, device=g.device)
    distance = place[:, None] - place[None, :]
    return torch.where(
        distance >= 0, g[:, None, None] ** distance.clamp(min=0), torch.zeros((), dtype=g.dtype, device=g.device)
    )


def step(q: Tensor, k: Tensor, v: Tensor, state: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """One position [batch, heads, 1, size] and the state [batch, heads, size, size] after it."""
    state = g[:, None, None] * state + k.transpose(-2, -1) @ v
    return q @ state * q.shape[-1] ** -0.5, state


def recurrent(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """All positions one after the other; shapes alone, which have no order, all at once by the same products."""
    if q.is_meta:
        made = k[..., None] @ v[..., None, :]
        states = g[:, None, None, None] * made + made
        return (q[..., None, :] @ states)[..., 0, :] * q.shape[-1] ** -0.5
    state, out = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), []
    for i in range(q.shape[2]):
        now = slice(i, i + 1)
        o, state = step(q[:, :, now], k[:, :, now], v[:, :, now], state, g)
        out.append(o)
    return torch.cat(out, dim=2)


def chunked(q: Tensor, k: Tensor, v: Tensor, g: Tensor, chunk: int) -> Tensor:
    """Chunk by chunk: the square inside, the state across."""
    state, out = None, []
    for start in range(0, q.shape[2], chunk):
        rows = slice(start, start + chunk)
        inside, state = _chunk(q[:, :, rows], k[:, :, rows], v[:, :, rows], state, g)
        out.append(inside)
    return torch.cat(out, dim=2)


def _chunk(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, g: Tensor) -> tuple[Tensor, Tensor]:
    count = q.shape[2]
    place = torch.arange(1, count + 1, device=q.device)
    out = parallel(q, k, v, g)
    faded = k * (g[:, None] ** (count - place))[..., None]
    own = faded.transpose(-2, -1) @ v
    if state is None:
        return out, own
    across = q @ state * (g[:, None] ** place)[..., None] * q.shape[-1] ** -0.5
    return out + across, state * (g**count)[:, None, None] + own


class Retention(nn.Module):
    """Projections and retention in the form that `chunk` says: 0 parallel, 1 recurrent, else chunks of that length."""

    decay: Tensor

    def __init__(self, width: int, heads: int, chunk: int = 0):
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("decay", decays(heads), persistent=False)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v, each [batch, heads, tokens, size]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """Retained features, [batch, tokens, width]."""
        q, k, v = self.project(x)
        g = self.decay.to(x.dtype)
        if self.chunk == 0:
            out = parallel(q, k, v, g)
        elif self.chunk == 1:
            out = recurrent(q, k, v, g)
        else:
            out = chunked(q, k, v, g, self.chunk)
        return self.proj(out.transpose(1, 2).flatten(2))

    def stream(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One more token [batch, 1, width] and the state; the state's size does not depend on how many came before."""
        q, k, v = self.project(x)
        if state is None:
            state = q.new_zeros(*q.shape[:2], q.shape[3], q.shape[3])
        out, state = step(q, k, v, state, self.decay.to(x.dtype))
        return self.proj(out.transpose(1, 2).flatten(2)), state


class Block(nn.Module):
    """Pre-norm retention and MLP with LayerScale."""

    def __init__(self, width: int, heads: int, chunk: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Retention(width, heads, chunk)
        self.scale1 = nn.Parameter(torch.full((width,), 1e-5))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale2 = nn.Parameter(torch.full((width,), 1e-5))

    def mlp(self, x: Tensor) -> Tensor:
        """What the MLP makes of features before its residual."""
        return x + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))

    def forward(self, x: Tensor) -> Tensor:
        """Features, [batch, tokens, width]."""
        return self.mlp(x + self.scale1 * self.attn(self.norm1(x)))

    def stream(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One more token and the state."""
        out, state = self.attn.stream(self.norm1(x), state)
        return self.mlp(x + self.scale1 * out), state


def mirrored(x: Tensor) -> Tensor:
    """A sequence [batch, tokens, width] and then the same in reverse, [batch, 2 tokens, width]."""
    return torch.cat([x, x.flip(1)], dim=1)


class ViR(ImageNetwork):
    """Patches, blocks, and a head on the class token, which stands last."""

    def __init__(
        self, width: int, heads: int, depth: int, patch: int, resolution: int, classes: int, channels: int, chunk: int,
        bidirectional: bool = False,
    ):  # fmt: skip
        super().__init__(resolution, channels, classes)
        self.grid, self.bidirectional = resolution // patch, bidirectional
        self.patch_embed = nn.Conv2d(channels, width, patch, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, chunk) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        self.draw_linear_maps()
        draw(self.pos_embed)
        draw(self.cls_token)

    def tokens(self, images: Tensor) -> Tensor:
        """Patches with positions, bidirectional the same in reverse, then the class token, [batch, tokens, width]."""
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        x = mirrored(x) if self.bidirectional else x
        return torch.cat([x, self.cls_token.expand(len(x), -1, -1)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -1]))


def vir(
    *,
    width: PositiveInt = 384,
    heads: PositiveInt = 6,
    depth: PositiveInt = 12,
    patch: PositiveInt = 16,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
    channels: PositiveInt = 3,
    chunk: Count = 0,
    bidirectional: bool = False,
) -> ViR:
    """A vision retention network in evaluation mode with random weights.

    Args:
        width: features per token, a multiple of `heads`.
        heads: retention heads.
        depth: blocks.
        patch: side of a patch.
        resolution: side of the image, a multiple of `patch`.
        classes: logits.
        channels: colour channels.
        chunk: 0 parallel, 1 recurrent, else the length of a chunk.
        bidirectional: whether the patches are read a second time in reverse, so that order hides none from another.

    Raises:
        ValueError: sizes that do not divide.
    """
    if width % heads or resolution % patch:
        raise ValueError(f"width={width} must be a multiple of heads={heads}, resolution={resolution} of patch={patch}")
    return ViR(width, heads, depth, patch, resolution, classes, channels, chunk, bidirectional).eval()


def retention_macs(tokens: int, width: int, heads: int, chunk: int = 0) -> int:
    """Products of one retention without its linear maps, in each form.

    Parallel 2 N^2 C; recurrent 2 N C d; in chunks the squares, a state per chunk, and the state read by all but the
    first.
    """
    size = width // heads
    if chunk == 0:
        return 2 * tokens**2 * width
    if chunk == 1:
        return 2 * tokens * width * size
    lengths = [min(chunk, tokens - start) for start in range(0, tokens, chunk)]
    squares = sum(2 * length**2 * width for length in lengths)
    return squares + tokens * width * size + (tokens - lengths[0]) * width * size


def macs(
    *,
    width: int = 384,
    heads: int = 6,
    depth: int = 12,
    patch: int = 16,
    resolution: int = 224,
    classes: int = 1000,
    channels: int = 3,
    chunk: int = 0,
    bidirectional: bool = False,
) -> int:
    """Products of one forward of one image; the recurrent state's outer products are counted as products.

    With P patches it is P p^2 c C + L (12 N C^2 + retention) + classes C, N = P + 1 tokens, bidirectional 2 P + 1.
    """
    patches = (resolution // patch) ** 2
    tokens = (2 if bidirectional else 1) * patches + 1
    block = tokens * 12 * width**2 + retention_macs(tokens, width, heads, chunk)
    return patches * patch**2 * channels * width + depth * block + classes * width


def state_numbers(width: int, heads: int) -> int:
    """Numbers of one layer's state: C d, whatever the length."""
    return width * (width // heads)
