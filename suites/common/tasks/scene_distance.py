"""Fields that learn the signed distance of a made scene, judged on points that they never saw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest, check_finite, logits
from bench.scores import Score, mean
from suites.common import signed_distance as scenes
from suites.common.task import TaskError, TrainedTask, content_key

HELD_OUT = 4096
#: Seed of the held-out points, far from those that are learned from.
HELD_OUT_SEED = 1_000_000
#: What a change of the scenes counts up, so that weights of other scenes are none of these.
GENERATOR = 1


class SceneDistance(TrainedTask):
    """Mean error of the distance, and of the normal's direction; a field takes points and directions.

    Its answer begins with the distance; three more numbers are its gradient. It learns by `learn_scene(task, seed)`.
    """

    name = "scene_distance"
    metric = "distance_error"

    def __init__(self, cache: Path, seed: int, *, scene: scenes.Shape = "torus"):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of weights and points; held-out points are the same for every seed.
            scene: sphere, torus or gyroid.

        Raises:
            TaskError: there is no such scene.
        """
        super().__init__(cache, seed)
        if scene not in get_args(scenes.Shape):
            raise TaskError(f'scene="{scene}" is unknown: there are {", ".join(get_args(scenes.Shape))}')
        self.scene = scene

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module learns scenes."""
        if not hasattr(module, "learn_scene"):
            raise TaskError(f'model "{model_name}" learns no scene: scene_distance is for neus and kiloneus')

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """What the module says of its own learning, and its error on held-out points."""
        learner: Any = module
        found: dict[str, Any] = learner.learn_scene(self, self.seed)
        module.eval()
        return {**found, "test_distance_error": self.score(Run(module)).value}

    def points(self, steps: int, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of points [count, 3] and their distances [count]; all are drawn from at most 64 sets."""
        sets = [
            scenes.sampled(self.scene, count, (seed * 1000 + number) % HELD_OUT_SEED)
            for number in range(min(steps, 64))
        ]
        for step in range(steps):
            yield sets[step % len(sets)]

    def data_digest(self) -> str:
        """Hash of the generator's version, the scene and the held-out points' numbers."""
        return content_key({"generator": GENERATOR, "scene": self.scene, "n": HELD_OUT, "seed": HELD_OUT_SEED})

    def recipe(self) -> dict[str, Any]:
        """The scene; the rest is the module's."""
        return {"scene": self.scene}

    def batches(self, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """Held-out points and directions, and what belongs to them: distance and normal, [n, 4]."""
        points, distances = scenes.sampled(self.scene, HELD_OUT, HELD_OUT_SEED)
        wanted = torch.cat([distances[:, None], scenes.normals(self.scene, points)], 1)
        directions = F.normalize(points + 1e-3, dim=1)
        for parts in zip(*(side.split(batch_size) for side in (points, directions, wanted)), strict=True):
            yield parts[:2], parts[2]

    def score(self, run: Run) -> Score:
        """|error| of the distance of each held-out point, and beside it the angle between normals in degrees."""
        seen, errors, angles = SamplesDigest(), list[float](), list[float]()
        for given, wanted in self.batches(1024):
            seen.feed(*given, wanted)
            found = logits(run(*given)).detach().float().cpu()
            check_finite(found, "the distance error", done=len(errors))
            errors += (found[:, 0] - wanted[:, 0]).abs().double().tolist()
            cosine = F.cosine_similarity(found[:, 1:4], wanted[:, 1:]).clamp(-1, 1)
            angles += (180 / math.pi * cosine.acos()).double().tolist()
        return replace(mean("distance_error", errors, seen.hex()), also=(mean("normal_error", angles, seen.hex()),))

    def describe(self) -> dict[str, Any]:
        """Name, split, number of points, hash, the scene."""
        return {
            "name": self.name, "n": HELD_OUT, "split": f"{HELD_OUT} points of the scene, the same for every seed",
            "digest": self.data_digest(), "preprocessing": {"scene": self.scene},
        }  # fmt: skip
