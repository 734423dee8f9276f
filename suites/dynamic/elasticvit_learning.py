"""How a store of ElasticViTs learns: banks of sub-networks by cost, of which neighbours follow each other."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from suites.common.training import Pace, fit
from suites.dynamic.elastic import parts_of
from suites.dynamic.elasticvit_space import PER_BLOCK, macs, shape_of
from suites.dynamic.learning import BATCH, Work

#: Banks by cost, and sub-networks of each.
BANKS, MEMBERS = 5, 6
#: Sub-networks drawn to fill the banks.
DRAWN = 200


def drawn(shape: Any, rng: random.Random) -> Any:
    """A sub-network's shape, each size drawn between half of the store's and the whole."""

    def size(most: int, step: int = 1, least: int = 1) -> int:
        return rng.randrange(max(least, most // 2 // step * step), most + 1, step)

    widths = [size(w, 8, 8) for w in shape.channels[:3]] + [size(w, 16, 16) for w in shape.channels[3:]]
    depths = [size(depth) for depth in shape.depths]
    most = {name: [min(stage) for stage in shape.stages(name)] for name in PER_BLOCK}
    expansions = [1, *(size(e, 1, 2) for e in most["expansions"][1:])]
    kernels = [rng.choice(range(3, k + 1, 2)) for k in most["kernels"]]
    mlp, values = ([size(ratio) for ratio in most[name]] for name in ("mlp", "values"))
    return shape_of(shape, widths, depths, expansions, kernels, mlp, values)


def banks_of(store: Any, rng: random.Random, cost: Any) -> list[list[Any]]:
    """Sub-networks by cost, cheapest bank first, each with as many members at most."""
    found = sorted((drawn(store.shape, rng) for _ in range(DRAWN)), key=lambda s: cost(s, store.resolution))
    each = len(found) // BANKS
    return [rng.sample(found[place * each : (place + 1) * each], MEMBERS) for place in range(BANKS)]


def nearest(minimal: list[Any], shape: Any) -> Any:
    """The one of several small networks whose channels and depths differ least from a shape, as shares of them."""

    def apart(other: Any) -> float:
        pairs = zip((*shape.channels, *shape.depths), (*other.channels, *other.depths), strict=True)
        return sum(abs(a - b) / max(a, b) for a, b in pairs)

    return min((one for one in minimal if one is not shape), key=apart)


def learn(store: Any, task: Any, sampling: str, steps: int, work: Work) -> dict[str, Tensor]:
    """The store's weights after elastic training: each step the largest network by labels, and by its answers one drawn
    and the nearest of the cheapest bank."""
    rng = random.Random(0)
    banks = banks_of(store, rng, macs)
    losses: dict[int, float] = {}
    place, bank, direction = -1, 0, 1

    def answer(shape: Any, images: Tensor) -> Tensor:
        with torch.device("meta"):
            small = type(store)(shape, store.resolution).train()
        return functional_call(small, parts_of(store, small), (images,))

    def pick() -> Any:
        nonlocal bank, direction
        if sampling == "uniform":
            return drawn(store.shape, rng)
        if not 0 <= bank + direction < BANKS:
            direction = -direction
        bank += direction
        members = banks[bank]
        known = [one for one in members if id(one) in losses]
        if known and rng.random() < place / max(1, steps):
            return min(known, key=lambda one: losses[id(one)])
        return rng.choice(members)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal place
        place += 1
        whole = store(images)
        work.learned(macs(store.shape, store.resolution))
        total = F.cross_entropy(whole, labels)
        wanted = whole.detach().softmax(dim=-1)
        chosen = pick()
        for shape in (chosen, nearest(banks[0], chosen)):
            logits = answer(shape, images)
            work.learned(macs(shape, store.resolution))
            losses[id(shape)] = float(F.cross_entropy(logits.detach(), labels))
            total = total + F.cross_entropy(logits, wanted)
        return total

    fit(store, task.training_batches(BATCH, steps, 0), loss, Pace(steps, 2e-3))
    return store.state_dict()
