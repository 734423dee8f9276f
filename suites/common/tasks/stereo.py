"""Pairs of views with a known disparity: smooth random patterns on a background and on planes before it.

The right view is a pattern; a place of the left one shows what the right one shows as many pixels to its left as the
place's disparity says. A network learns from the two views alone, by how well the right one, read where its disparities
say, rebuilds the left one; true disparities are used to score and for nothing else.

Source: the loss is that of Godard et al. 2017, "Unsupervised Monocular Depth Estimation with Left-Right Consistency",
section 3.2: 0.85 (1 - SSIM) / 2 + 0.15 |difference| at every scale, and a term for smooth disparities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.flags import flag
from bench.meters.quality import QualityError, Run, SamplesDigest, check_finite
from bench.scores import Score, mean
from bench.statistics import mean_interval
from suites.common.task import TaskError, TrainedTask, content_key
from suites.common.training import Pace, fit

HELD_OUT = 48
#: Seeds of held-out pairs start here, far from those that are learned from.
HELD_OUT_SEED = 1_000_000
#: What a change of the generator counts up, so that weights of other pairs are none of these.
GENERATOR = 1
#: Distances of the pattern's random values in pixels: wide ones are found from afar, narrow ones are placed exactly.
BLOTS = (3, 6, 12)
#: A disparity of 1, the largest that a network can say, in shares of the width.
MOST = 1 / 12


@dataclass(frozen=True)
class Training:
    """How a network is trained on pairs that are all different."""

    steps: int = 600
    batch: int = 4
    rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0


def pairs(count: int, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Left and right views, [count, 2, 3, high, wide], and the left one's disparities in pixels, [count, high, wide].

    Each pair follows from its own seed.
    """
    made = [_pair(size, torch.Generator().manual_seed(seed + i)) for i in range(count)]
    return torch.stack([views for views, _ in made]), torch.stack([apart for _, apart in made])


def _pair(size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    wide = size[1]
    right = sum(_blots(size, side, generator) for side in BLOTS)
    assert isinstance(right, Tensor)
    most = MOST * wide
    apart = torch.full(size, most * (0.1 + 0.2 * float(torch.rand(1, generator=generator))))
    for nearness in (0.5, 0.7, 0.9):  # a nearer plane hides what is behind it
        top, left = (int(torch.randint(0, side // 2, (1,), generator=generator)) for side in size)
        tall, broad = (int(torch.randint(side // 4, side // 2, (1,), generator=generator)) for side in size)
        apart[top : top + tall, left : left + broad] = most * nearness
    return torch.cat((rebuilt(right, apart[None]), right)), apart


def _blots(size: tuple[int, int], side: int, generator: torch.Generator) -> Tensor:
    """Random values `side` pixels apart and smooth between them, [1, 3, high, wide]."""
    coarse = torch.randn(1, 3, *(-(-length // side) + 1 for length in size), generator=generator)
    fine = F.interpolate(coarse, scale_factor=side, mode="bilinear", align_corners=False)
    return fine[..., : size[0], : size[1]]


def rebuilt(right: Tensor, apart: Tensor) -> Tensor:
    """The left view by the right one, [batch, c, high, wide], and disparities in pixels, [batch, high, wide].

    Between two pixels it is read linearly; beyond the edge it is the edge.
    """
    high, wide = right.shape[-2:]
    rows = torch.linspace(-1, 1, high, device=right.device)[:, None].expand(high, wide)
    columns = torch.arange(wide, device=right.device) - apart
    places = torch.stack((2 * columns / (wide - 1) - 1, rows.expand_as(columns)), -1)
    return F.grid_sample(right, places.to(right.dtype), padding_mode="border", align_corners=True)


def unlikeness(one: Tensor, other: Tensor) -> Tensor:
    """(1 - SSIM) / 2 in 3 x 3 windows, per place; Wang et al. 2004, formula 13."""
    mine, theirs = F.avg_pool2d(one, 3, 1), F.avg_pool2d(other, 3, 1)
    vary = F.avg_pool2d(one.square(), 3, 1) - mine.square()
    varies = F.avg_pool2d(other.square(), 3, 1) - theirs.square()
    together = F.avg_pool2d(one * other, 3, 1) - mine * theirs
    same = (2 * mine * theirs + 1e-2) * (2 * together + 9e-2)
    return (1 - same / ((mine.square() + theirs.square() + 1e-2) * (vary + varies + 9e-2))).clamp(0, 2) / 2


#: Scales at which a network says its disparities.
SCALES = 4


def photometric(views: Tensor, disparities: list[Tensor]) -> Tensor:
    """The loss of disparities at four scales (shares of MOST, [batch, 1, h, w]), a scalar.

    Those of the left view come first; those of the right one follow, if there are some.
    """
    left, right = views.unbind(1)
    total = left.new_zeros(())
    for place, said in enumerate(disparities):
        wanted, given, sign = (left, right, 1) if place < SCALES else (right, left, -1)
        whole = F.interpolate(said, size=left.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        made = rebuilt(given, sign * whole * MOST * left.shape[-1])
        total = total + 0.85 * unlikeness(made, wanted).mean() + 0.15 * (made - wanted).abs().mean()
        total = total + 1e-2 * ((whole[:, 1:] - whole[:, :-1]).abs().mean() + whole.diff(dim=2).abs().mean())
    return total / len(disparities)


class Stereo(TrainedTask):
    """End-point error of held-out pairs; a module says the `size` of a view and takes [batch, 2, 3, high, wide]."""

    name = "stereo"
    metric = "end_point_error"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the pairs to learn from; held-out ones are the same for every seed.
            training: the recipe; None for the default.
        """
        super().__init__(cache, seed)
        self.training = training or Training()
        self.size = (64, 96)

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module says that it takes pairs of views; settles their size."""
        if getattr(module, "takes", None) != "views":
            raise TaskError(f'model "{model_name}" does not take pairs of views: stereo is for pairs_ccnext')
        self.size = tuple(module.size)  # type: ignore[arg-type]

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the module on views alone; the end-point error of the held-out pairs."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        batches = self.training_batches(how.batch, how.steps, self.seed)
        losses = fit(module, batches, lambda views, _: photometric(views, module(views)), pace)
        with torch.inference_mode():
            found = self.score(Run(module, batch=8))
        return {"train_loss": sum(losses[-20:]) / len(losses[-20:]), "test_end_point_error": found.value}

    def data_digest(self) -> str:
        """Hash of the generator's version and the held-out pairs' numbers."""
        return content_key(
            {"generator": GENERATOR, "held_out": HELD_OUT, "seed": HELD_OUT_SEED, "size": list(self.size)}
        )

    def recipe(self) -> dict[str, Any]:
        """The training and the size of a view."""
        return {**asdict(self.training), "size": list(self.size), "most": MOST}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out pairs and their disparities."""
        for first in range(0, HELD_OUT, batch_size):
            yield pairs(min(batch_size, HELD_OUT - first), self.size, HELD_OUT_SEED + first)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of pairs that no other step has."""
        for step in range(steps):
            yield pairs(batch_size, self.size, (seed * 1000 + step) * batch_size % HELD_OUT_SEED)

    def score(self, run: Run) -> Score:
        """Of each held-out pair the mean distance of said from true disparities, and that of one constant for all.

        Places whose partner lies beyond the right view's edge are left out. A flag tells of a module that is no better,
        pair by pair, than that constant, which is what can be said without a look at the views.
        """
        seen, values, truths = SamplesDigest(), list[float](), list[Tensor]()
        for views, apart in self.batches(run.batch):
            seen.feed(views, apart)
            answer = run(views)
            said = (answer[0] if isinstance(answer, list | tuple) else answer).detach().float().cpu()
            if said.shape != (len(views), 1, *apart.shape[1:]):
                raise QualityError(
                    f"disparities of shape {tuple(said.shape)} cannot be scored on views of {tuple(apart.shape)}"
                )
            check_finite(said, "the end-point error", done=len(values))
            said = said * MOST * views.shape[-1]
            visible = torch.arange(apart.shape[-1]) >= apart
            for one, true, sees in zip(said[:, 0], apart, visible, strict=True):
                values.append(float((one - true)[sees].abs().mean()))
                truths.append(true[sees])
        constant = torch.cat(truths).median()
        flat = [float((constant - true).abs().mean()) for true in truths]
        found = mean("end_point_error", values, seen.hex(), constant=sum(flat) / len(flat))
        return replace(found, flags=_flags(values, flat))

    def describe(self) -> dict[str, Any]:
        """Name, split, number of pairs, hash, their size."""
        return {
            "name": self.name, "n": HELD_OUT, "split": f"{HELD_OUT} made pairs of views, the same for every seed",
            "digest": self.data_digest(), "preprocessing": {"size": list(self.size), "most": MOST},
        }  # fmt: skip


def _flags(values: list[float], flat: list[float]) -> tuple[dict[str, str], ...]:
    """A flag unless the module is nearer to the truth, pair by pair, than one constant."""
    gain, low, _ = mean_interval([other - own for own, other in zip(values, flat, strict=True)])
    if low is not None and low > 0:
        return ()
    text = f"no better than one constant: {gain:+.3f} px over {len(values)} pairs, and the interval holds zero or less"
    return (flag("no_better_than_plain", "warn", text),)
