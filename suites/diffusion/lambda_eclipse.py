"""lambda-ECLIPSE: a small transformer in place of the diffusion prior; Patel et al. 2024, arXiv 2402.05195.

Text states, an edge picture's embedding, the pooled text and an empty image slot are read causally; a learned
read-out token at the end gives the image embedding in one forward. The baseline is the same network with
a time embedding, run as a diffusion prior with guidance. The network of the released size is counted; width and depth
are inferred from its 34 M parameters. The paper-size baseline is diffusers' PriorTransformer (`kandinsky22_prior`). A
subject's words are replaced by its image embedding before any of this, which changes no count.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.rectified_flow import noise, time_features
from suites.common.tasks.digit_embeddings import sentences
from suites.common.training import Loss

__all__ = ["Prior", "load_checkpoint", "prior"]

#: Weight of the contrastive term; its form and weight are ours.
CONTRAST = 0.2


class PriorBlock(nn.Module):
    """Causal attention and an MLP, with biases and layer norms before each."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape, [batch, tokens, width]."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Prior(nn.Module):
    """Text and edges in, an image embedding out: in one forward, or along a chain of them where there is a time.

    Attributes:
        fixed_steps: of its chain, whatever the case asks for; None asks the case.
    """

    fixed_steps: int | None = None

    def __init__(self, *, embedding: int, width: int, heads: int, depth: int, words: int, steps: int):
        super().__init__()
        self.embedding, self.width, self.words, self.steps = embedding, width, words, steps
        self.text, self.pooled, self.image = (nn.Linear(embedding, width) for _ in range(3))
        self.edges = nn.Linear(embedding, width) if not steps else None
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) if steps else None
        self.places = nn.Parameter(0.02 * torch.randn(1, words + 4, width))
        self.readout = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(PriorBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, embedding)
        self.mean, self.std = nn.Parameter(torch.zeros(1, embedding)), nn.Parameter(torch.ones(1, embedding))
        self.scale: float | None = None

    def forward(self, image: Tensor, text: Tensor, pooled: Tensor, fourth: Tensor) -> Tensor:
        """The image embedding [batch, embedding].

        Args:
            image: what stands in the image slot, [batch, embedding]: noise or zeros.
            text: states of the words, [batch, words, embedding].
            pooled: of the text, [batch, embedding].
            fourth: embedding of the edge picture [batch, embedding], or times [batch] of a diffusion prior.
        """
        if self.time is None:
            assert self.edges is not None
            extra = self.edges(fourth)
        else:
            extra = self.time(time_features(fourth, self.width))
        slots = [extra, self.pooled(pooled), self.image(image)]
        readout = self.readout.expand(len(image), -1, -1)
        x = torch.cat([self.text(text), *(each[:, None] for each in slots), readout], dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x[:, -1])) * self.std + self.mean

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Random embeddings."""
        image, pooled = torch.randn(batch, self.embedding), torch.randn(batch, self.embedding)
        fourth = torch.rand(batch) if self.steps else torch.randn(batch, self.embedding)
        return image, torch.randn(batch, self.words, self.embedding), pooled, fourth

    # ------------------------------------------------------------------------------------------ the sampler

    def forward_macs(self) -> int:
        """MACs of one forward: projections of all tokens, causal attention counted whole, the read-out."""
        n, c, e = self.words + 4, self.width, self.embedding
        ends = (self.words + 2) * e * c + (2 * c**2 if self.steps else e * c) + e * c
        return len(self.blocks) * (12 * n * c**2 + 2 * n**2 * c) + ends

    def plan(self, shape: dict[str, Any]) -> list[dict[str, Any]]:
        """One forward; of a diffusion prior as many steps as the case asks, two forwards each with guidance."""
        if not self.steps:
            return [{"index": 0, "evaluations": 1, "macs": self.forward_macs()}]
        self.scale = shape.get("guidance")
        count = self.fixed_steps or int(shape.get("steps") or self.steps)
        branches = 1 if self.scale is None else 2
        self.planned = [
            {
                "index": i, "t": 1 - i / count, "dt": 1 / count, "evaluations": branches,
                "macs": branches * self.forward_macs(),
            }
            for i in range(count)
        ]  # fmt: skip
        return self.planned

    def start(self, noise: Tensor, cond: tuple[Tensor, ...]) -> dict[str, Any]:
        """The image slot and what is known of the text."""
        return {"x": noise if self.steps else torch.zeros_like(noise), "cond": cond}

    def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """The only forward, or one step towards the predicted embedding, the clean one as in unCLIP's prior."""
        text, pooled, edges = state["cond"]
        if not self.steps:
            return {**state, "x": self(state["x"], text, pooled, edges)}
        now, x = self.planned[index], state["x"]
        clean = self._guided(x, now["t"], text, pooled)
        return {**state, "x": x + now["dt"] / now["t"] * (clean - x)}

    def _guided(self, x: Tensor, t: float, text: Tensor, pooled: Tensor) -> Tensor:
        times = torch.full((len(x),), t, device=x.device, dtype=x.dtype)
        if self.scale is None:
            return self(x, text, pooled, times)
        empty = [torch.cat([each, torch.zeros_like(each)]) for each in (text, pooled)]
        aware, unaware = self(torch.cat([x, x]), *empty, torch.cat([times, times])).chunk(2)
        return unaware + self.scale * (aware - unaware)

    def finish(self, state: dict[str, Any]) -> Tensor:
        """The image embeddings."""
        return state["x"]

    def example_noise(self, batch: int, seed: int) -> Tensor:
        """Noise for the image slot."""
        return noise(range(batch), seed, (self.embedding,))

    def example_cond(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Text states, pooled text, edges."""
        text = noise(range(batch), 1, (self.words, self.embedding))
        return text, text.mean(dim=1), noise(range(batch), 2, (self.embedding,))

    # ------------------------------------------------------------------------------------------ learning

    def learning_loss(self, generator: torch.Generator) -> Loss:
        """The loss of labels and embeddings of one batch.

        In one forward: the distance from the wanted embedding, and a term that tells embeddings of other classes apart.
        Of a diffusion prior: the distance of the clean embedding that it predicts from a noisy one; a tenth of the
        texts is hidden.
        """

        def loss(labels: Tensor, wanted: Tensor) -> Tensor:
            text = sentences(labels, self.words)
            pooled, empty = text.mean(dim=1), torch.zeros_like(wanted)
            if not self.steps:
                made = self(empty, text, pooled, empty)
                return F.mse_loss(made, wanted) + CONTRAST * contrast(made, wanted, labels)
            t = torch.rand(len(wanted), generator=generator)
            e = torch.randn(wanted.shape, generator=generator)
            shown = (torch.rand(len(wanted), generator=generator) >= 0.1).to(wanted)
            x = (1 - t[:, None]) * wanted + t[:, None] * e
            return F.mse_loss(self(x, text * shown[:, None, None], pooled * shown[:, None], t), wanted)

        return loss


def contrast(made: Tensor, wanted: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of which wanted embedding belongs to each made one; others of its class are left out."""
    scores = F.normalize(made, dim=1) @ F.normalize(wanted, dim=1).T / temperature
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = scores.masked_fill((labels[:, None] == labels[None]) & ~own, float("-inf"))
    return F.cross_entropy(scores, torch.arange(len(labels), device=labels.device))


def prior(
    *,
    embedding: PositiveInt = 1280,
    width: PositiveInt = 512,
    heads: PositiveInt = 16,
    depth: PositiveInt = 10,
    words: PositiveInt = 77,
    chain: Count = 0,
) -> Prior:
    """A prior in evaluation mode with random weights; the defaults are the released size.

    Args:
        embedding: numbers of an image embedding and of a word's state.
        width: features per token; a multiple of `heads`.
        heads: of attention.
        depth: blocks.
        words: states of the text.
        chain: 0 for one forward without a time; else a diffusion prior of so many steps where the case names none. It
            is not called `steps`, for a builder is given the case's numbers by their names, and of one forward these
            would make a chain.

    Raises:
        ValueError: `width` is not a multiple of `heads`, or odd.
    """
    if width % heads or width % 2:
        raise ValueError(f"width={width} must be even and a multiple of heads={heads}")
    return Prior(embedding=embedding, width=width, heads=heads, depth=depth, words=words, steps=chain).eval()


def params(embedding: int, width: int, depth: int, words: int = 77) -> int:
    """Parameters of the one-forward network: blocks of 12 C^2 + 13 C, projections, places, read-out, mean, spread."""
    projections = 4 * (embedding * width + width) + width * embedding + embedding
    return depth * (12 * width**2 + 13 * width) + projections + (words + 4) * width + 3 * width + 2 * embedding
