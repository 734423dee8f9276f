"""How stores of once-for-all networks learn: progressive shrinking, delayed epsilon-shrinking, and their controls."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.common.task import learning_task
from suites.common.training import Pace, classification, fit
from suites.dynamic.learning import BATCH, Work
from suites.dynamic.ofa_space import Choice, Space, choice, largest_macs, macs, smallest

RATE = 3e-3
#: Mean and variance of each channel.
Moments = tuple[Tensor, Tensor]


def drawn(space: Space, rng: random.Random, depths: Any = None, expands: Any = None, kernels: Any = None) -> Choice:
    """A sub-network drawn uniformly from the choices that are open."""
    depth = [rng.choice(depths or space.depths) for _ in space.widths]
    blocks = sum(depth)
    expand = [rng.choice(expands or space.expands) for _ in range(blocks)]
    kernel = [rng.choice(kernels or space.kernels) for _ in range(blocks)]
    return choice(space, depth, expand, kernel)


def shrink(store: Any, task: Any, recipe: str, of: Choice, steps: int, work: Work) -> dict[str, Tensor]:
    """The store's weights after progressive shrinking, or after a control, from those that it has."""
    space: Space = store.space
    if recipe in ("truncated", "alone"):
        alone = recipe == "alone"
        if alone:
            _restart(store)
            store.activate(of)
        work.learned(_products(store), BATCH * steps)
        pace = Pace(steps, RATE if alone else RATE / 3)
        fit(store, task.training_batches(BATCH, steps, 0), classification(store), pace)
        if not alone:
            sort(store)
        return store.state_dict()
    teacher = _frozen(store)
    sort(store)
    full = ((max(space.depths),), (max(space.expands),))
    rng = random.Random(0)
    phases = [(full[0], full[1], 1), (space.depths, full[1], 2), (space.depths, space.expands, 4)]
    for place, (depths, expands, count) in enumerate(phases):
        each = max(1, steps // len(phases))

        def loss(images: Tensor, labels: Tensor, open_: Any = (depths, expands), count: int = count) -> Tensor:
            with torch.no_grad():
                wanted = teacher(images).softmax(dim=-1)
            work.looked(largest_macs(space, store.resolution))
            total = torch.zeros(())
            for _ in range(count):
                store.activate(drawn(space, rng, *open_))
                work.learned(_products(store))
                logits = store(images)
                total = total + F.cross_entropy(logits, labels) + F.cross_entropy(logits, wanted)
            return total

        fit(store, task.training_batches(BATCH, each, place), loss, Pace(each, RATE / 3))
    store.activate(choice(space))
    return store.state_dict()


def delayed(store: Any, task: Any, warm: float, ramp: float, steps: int, work: Work) -> dict[str, Tensor]:
    """The store's weights after delayed epsilon-shrinking from random ones.

    The largest network learns alone for a share `warm` of the steps; then every step takes the largest (labels), the
    smallest and two random ones (the largest's answers of that step), summed with weights 1 and beta; beta grows to 1
    over a share `ramp` of the steps. Channels are sorted once in between.
    """
    space: Space = store.space
    _restart(store)
    rng, start = random.Random(0), int(warm * steps)
    length = max(1, int(ramp * steps))
    place = -1

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal place
        place += 1
        if place == start:
            sort(store)
        store.activate(choice(space))
        work.learned(_products(store))
        logits = store(images)
        total = F.cross_entropy(logits, labels)
        if place < start:
            return total
        beta = min(1.0, (place - start + 1) / length)
        wanted = logits.detach().softmax(dim=-1)
        for of in (smallest(space), drawn(space, rng), drawn(space, rng)):
            store.activate(of)
            work.learned(_products(store))
            total = total + beta * F.cross_entropy(store(images), wanted)
        return total

    fit(store, task.training_batches(BATCH, steps, 0), loss, Pace(steps, RATE))
    store.activate(choice(space))
    return store.state_dict()


def _products(store: Any) -> int:
    """Of the sub-network that is active, on one image; crops of kernels, a few per batch, are left out."""
    return macs(store.space, store.active, store.resolution)


def sort(store: Any) -> None:
    """Sort the channels inside every block of the store."""
    for unit in store.units:
        for block in unit:
            block.sort()


def _restart(store: Any) -> None:
    """Random weights in place of what was learned; crops of kernels as they start."""
    for module in store.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for name, parameter in store.named_parameters():
        if name.endswith(".matrix"):
            with torch.no_grad():
                parameter.copy_(torch.eye(len(parameter)))


def _frozen(store: Any) -> Any:
    task, store.task = store.task, None
    teacher = copy.deepcopy(store).eval().requires_grad_(False)
    store.task = task
    return teacher


def recalibrate(store: Any, batches: int) -> None:
    """Give the blocks that run statistics of norms from training batches; the store's own stay.

    Raises:
        ValueError: the store was loaded without a task to take batches from.
    """
    task = learning_task(store, "recalibration", "set recalibrated=0 or name a task")
    recalibrate_on(store, [images for images, _ in task.training_batches(BATCH, batches, 3)])


@torch.no_grad()
def recalibrate_on(store: Any, batches: list[Tensor]) -> None:
    """The same from these batches, in one forward of each: every norm normalises by its batch and notes the moments,
    whose means over the batches are kept."""
    blocks = [b for unit, depth in zip(store.units, store.active.depths, strict=True) for b in list(unit)[:depth]]
    notes: list[list[list[Moments]]] = [[[], [], []] for _ in blocks]
    store.final_stats = None
    for block, kept in zip(blocks, notes, strict=True):

        def note(place: int, y: Tensor, norm: Any, kept: list[list[Moments]] = kept) -> Tensor:
            mean, var = _moments(y)
            kept[place].append((mean, var))
            return F.batch_norm(y, mean, var, norm.weight[: len(mean)], norm.bias[: len(mean)], False, 0.0, norm.eps)

        block._norm = note
    last: list[Moments] = []
    hook = store.final[0].register_forward_hook(lambda module, args, y: last.append(_moments(y)))
    for images in batches:
        store(images)
    hook.remove()
    for block, kept in zip(blocks, notes, strict=True):
        del block._norm
        block.stats = [_mean_of(moments) for moments in kept]
    store.final_stats = _mean_of(last)


def _moments(y: Tensor) -> Moments:
    """Mean and variance of each channel."""
    return y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), unbiased=False)


def _mean_of(kept: list[Moments]) -> Moments:
    means, variances = zip(*kept, strict=True)
    return torch.stack(means).mean(dim=0), torch.stack(variances).mean(dim=0)
