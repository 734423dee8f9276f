"""Delayed epsilon-shrinking: the largest network learns alone for half of the schedule (arXiv 2407.06167).

A recipe for a store of once-for-all networks; what it serves is exactly once-for-all's. The paper's store has one
kernel (7); where a store has several, as that of digits, they are drawn like depths and expansions. Its row's cost is
training work (`ofa_space.deps_work`), and rows of other shares `warm` are compared at equal work
(`ofa_space.steps_of_work`), not at equal steps.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from bench.config.settings import Blocks, Count, PositiveInt, Rate
from suites.dynamic.learning import Work, remembered
from suites.dynamic.ofa import RECALIBRATED, as_ofa, subnetwork
from suites.dynamic.ofa_learning import delayed
from suites.dynamic.ofa_space import choice


def deps(
    model: nn.Module,
    *,
    warm: Rate = 0.5,
    ramp: Rate = 0.02,
    depth: PositiveInt | Blocks | None = None,
    expand: PositiveInt | Blocks | None = None,
    kernel: PositiveInt | Blocks | None = None,
    form: Literal["slice", "extract"] = "extract",
    recalibrated: Count | None = None,
    training_steps: Count = 0,
) -> nn.Module:
    """A sub-network of a store that learned by delayed epsilon-shrinking.

    Args:
        model: of `ofa_net`.
        warm: T_w / E, share of the schedule in which the largest network learns alone; 0: the sandwich from the start.
        ramp: share of the schedule over which the others' weight grows from 0 to 1.
        depth: blocks of every unit, or of each; None for the most.
        expand: expansion of every block, or of each that runs; None for the largest.
        kernel: side of the depthwise kernel, likewise.
        form: `slice` runs on views of the store, `extract` is a small network with copies.
        recalibrated: batches of 32 from which norms take their statistics anew; None for 8 after training, else none.
        training_steps: of the whole schedule from random weights; 0 takes the weights as they are.

    Raises:
        ValueError: another network, sizes that the space does not offer, or nothing to train on.
    """
    store = as_ofa(model, "deps")
    of = choice(store.space, depth, expand, kernel)
    if training_steps:
        settings, work = {"warm": warm, "ramp": ramp, "steps": training_steps}, Work()
        store.load_state_dict(
            remembered(store, deps, settings, lambda task: delayed(store, task, warm, ramp, training_steps, work), work)
        )
        store.learned = {"method": "deps", **settings}  # type: ignore[assignment]
    wanted = RECALIBRATED * (training_steps > 0) if recalibrated is None else recalibrated
    return subnetwork(store, of, form, wanted)
