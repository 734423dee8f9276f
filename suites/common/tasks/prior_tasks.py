"""Functions drawn from a Gaussian process: how well a posterior says what the next observations will be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest, check_finite, logits
from bench.scores import Score, mean
from suites.common import gaussian_process as gp
from suites.common.task import TaskError, TrainedTask, content_key

#: Training points of held-out data sets, and how many data sets there are of each; queries of one.
KNOWN, EACH, ASKED = (50, 20, 10, 5), 50, 10
#: Seed of the held-out functions, far from those that are learned from.
HELD_OUT_SEED = 1_000_000
#: What a change of the prior counts up, so that weights of other functions are none of these.
GENERATOR = 1


class PriorTasks(TrainedTask):
    """Mean negative log density of held-out observations; a module takes (x, y, queries) and has `log_density`."""

    name = "prior_tasks"
    metric = "nll"
    most = max(KNOWN)

    def __init__(self, cache: Path, seed: int, *, drawn: bool = False):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the functions that are learned from; held-out ones are the same for every seed.
            drawn: every data set has kernel parameters of its own; else they are known.
        """
        super().__init__(cache, seed)
        self.are_drawn = drawn

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module gives densities of one-dimensional functions."""
        if not hasattr(module, "log_density"):
            raise TaskError(f'model "{model_name}" gives no densities: prior_tasks is for pfn_small, gp_exact and kin')
        if getattr(module, "features", 1) != 1:
            raise TaskError(f'model "{model_name}" takes {module.features} features, and the functions have one')

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """What the module says of its own learning, where it learns, and its score."""
        learner: Any = module
        found: dict[str, Any] = learner.learn_prior(self, self.seed) if hasattr(module, "learn_prior") else {}
        module.eval()
        with torch.inference_mode():
            return {**found, "test_nll": self.score(Run(module)).value}

    def drawn(self, steps: int, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of points [count, 60, 1] and observations [count, 60] that no other step has."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            yield gp.data_sets(count, self.most + ASKED, drawn=self.are_drawn, generator=generator)

    def prior_values(self, seed: int) -> Tensor:
        """Observations of many functions, [any]."""
        generator = torch.Generator().manual_seed(seed)
        return gp.data_sets(20_000, 1, drawn=self.are_drawn, generator=generator)[1].flatten()

    def data_digest(self) -> str:
        """Hash of the generator's version and the held-out functions' numbers."""
        return content_key({"generator": GENERATOR, "known": KNOWN, "each": EACH, "drawn": self.are_drawn})

    def recipe(self) -> dict[str, Any]:
        """The prior; the rest is the module's."""
        return {"centre": gp.CENTRE, "spread": gp.SPREAD if self.are_drawn else 0, "most": self.most}

    def batches(self, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """Data sets of one number of training points at a time: (x, y, queries), and the queries' observations."""
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        for known in KNOWN:
            x, y = gp.data_sets(EACH, known + ASKED, drawn=self.are_drawn, generator=generator)
            for part, told in zip(x.split(batch_size), y.split(batch_size), strict=True):
                yield (part[:, :known], told[:, :known], part[:, known:]), told[:, known:]

    def score(self, run: Run) -> Score:
        """Of each held-out data set the mean negative log density of its queries, in nats."""
        seen, values, module = SamplesDigest(), list[float](), run.module
        for given, wanted in self.batches(EACH):
            seen.feed(*given, wanted)
            found = logits(run(*given))
            scorer: Any = module
            density = scorer.log_density(found, run.send(wanted)).float().cpu()
            check_finite(density, "the negative log density", done=len(values))
            values += (-density.mean(1)).double().tolist()
        by_known = {str(known): sum(values[i * EACH : (i + 1) * EACH]) / EACH for i, known in enumerate(KNOWN)}
        return mean("nll", values, seen.hex(), by_known=by_known)

    def describe(self) -> dict[str, Any]:
        """Name, split, number of data sets, hash, the prior."""
        return {
            "name": self.name, "n": EACH * len(KNOWN),
            "split": f"{EACH} functions for each of {KNOWN} training points, the same for every seed",
            "digest": self.data_digest(), "preprocessing": self.recipe(),
        }  # fmt: skip
