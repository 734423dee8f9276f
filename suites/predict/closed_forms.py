"""Multiply-accumulates of cohorts and parameters of surrogates from their settings alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from suites.common import fbnet
from suites.predict import networks
from suites.predict.mlp import CLASSIFIER, ENDS, REGRESSION
from suites.predict.networks import RESOLUTION, Network

Settings = Mapping[str, Any]


def fbnet_rows(model: Settings, method: Settings) -> float:
    """MACs of every distinct row of a stage, once."""
    side, stage = model.get("resolution", RESOLUTION), model.get("stage", 1)
    found = {}
    if stage == 0:
        plans = [networks.fbnet_network(f"fbnet_{plan}", side).rows for plan in fbnet.RELEASED]
        found = {row.key: row.macs for rows in plans for row in (rows[0], rows[-1])}
        return sum(found.values())
    where = fbnet.places(side)
    for (place, candidate), row in networks.table_rows(side).items():
        skips = candidate == fbnet.SKIP
        if row is not None and (stage == 8 if skips else where[place].stage == stage):
            found[row.key] = row.macs
    return sum(found.values())


def mobile_rows(model: Settings, method: Settings) -> float:
    """MACs of every distinct row of a MobileNetV2, once."""
    network = networks.mobilenetv2(model.get("width", 100), model.get("resolution", RESOLUTION))
    return sum({row.key: row.macs for row in network.rows}.values())


def fbnet_networks(model: Settings, method: Settings) -> float:
    """MACs of the networks of a cohort together."""
    first, count = model.get("first", 0), model.get("count", 1)
    plans = [f"fbnet_{plan}" for plan in fbnet.RELEASED]
    names = plans if model.get("released") else [f"fbnet_random_{number}" for number in range(first, first + count)]
    return _together(networks.fbnet_network(name, model.get("resolution", RESOLUTION)) for name in names)


def mobile_networks(model: Settings, method: Settings) -> float:
    """MACs of the networks of a cohort together."""
    side = model.get("resolution", RESOLUTION)
    return _together(networks.mobilenetv2(width, side) for width in model.get("widths", [50, 100, 140]))


def dense_networks(model: Settings, method: Settings) -> float:
    """MACs of the networks of a cohort together."""
    first, count = model.get("first", 0), model.get("count", 50)
    names = list(networks.EXEMPLARS) if model.get("exemplars") else [f"dense_{n}" for n in range(first, first + count)]
    return _together(map(networks.named, names))


def conv_networks(model: Settings, method: Settings) -> float:
    """MACs of the networks of a cohort together."""
    first, count = model.get("first", 0), model.get("count", 50)
    return _together(networks.named(f"conv_{number}") for number in range(first, first + count))


def _together(made: Any) -> float:
    found: list[Network] = list(made)
    return float(sum(network.macs or 0.0 for network in found))


def mlp_widths(model: Settings) -> list[int]:
    """Widths of the regression network, or of the classifier, from its inputs to its answer."""
    between = CLASSIFIER if model.get("decides") else REGRESSION
    width = model.get("width", REGRESSION[0])
    return [model.get("inputs", 7), ENDS, *(width * size // REGRESSION[0] for size in between), ENDS, 1]


def wa_mlp(model: Settings, method: Settings) -> float:
    """MACs of one prediction."""
    return float(sum(before * after for before, after in pairwise(mlp_widths(model))))


def wa_mlp_parameters(model: Settings) -> int:
    """Weights and biases: 8 920 321 of the published regression network."""
    return sum((before + 1) * after for before, after in pairwise(mlp_widths(model)))


def dense_multipliers(inputs: int, outputs: int, reuse: int = 1) -> float:
    """Multipliers of a dense layer on an FPGA that uses each `reuse` times; its initiation interval is at least that.

    Raises:
        ValueError: reuse below 1.
    """
    if reuse < 1:
        raise ValueError(f"reuse={reuse}: a multiplier is used once at least")
    return inputs * outputs / reuse
