"""Closed forms of this suite's systems as cards name them: settings to products of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from suites.dynamic import elasticvit_space as evit
from suites.dynamic.ofa_space import choice, digits_space, macs, mobilenet_v3_space

Settings = Mapping[str, Any]


def _vit(model: Settings, hidden: list[int], heads: int) -> int:
    """Products of a ViT of so many blocks with these hidden widths, and of `heads` linear heads on its class token."""
    width, patch = model.get("width", 48), model.get("patch", 4)
    places = (model.get("resolution", 32) // patch) ** 2
    tokens = places + 1
    blocks = sum(tokens * (4 * width**2 + 2 * width * h) + 2 * tokens**2 * width for h in hidden)
    return places * 3 * patch**2 * width + blocks + heads * width * model.get("classes", 10)


def _hidden(model: Settings) -> int:
    return int(model.get("width", 48) * model.get("mlp_ratio", 4.0))


def jei_dnn(model: Settings, method: Settings) -> int:
    """Front, blocks up to the exit, and the head of each of them."""
    exit = method["exit"]
    return _vit(model, [_hidden(model)] * exit, exit)


def matformer(model: Settings, method: Settings) -> int:
    """A ViT whose MLPs have a share of their units."""
    given: Any = method.get("granularity", "XL")
    depth = model.get("depth", 12)
    names: dict[Any, Any] = {"XL": 1.0, "L": 0.5, "M": 0.25, "S": 0.125}
    shares: list[Any] = given if isinstance(given, list) else [names.get(given, given) for _ in range(depth)]
    return _vit(model, [max(1, int(share * _hidden(model))) for share in shares], 1)


def sortednet(model: Settings, method: Settings) -> int:
    """The first blocks of a ViT with a share of their units."""
    units = max(1, int(method.get("width", 1.0) * _hidden(model)))
    return _vit(model, [units] * method.get("depth", model.get("depth", 12)), 1)


def ofa(model: Settings, method: Settings) -> int:
    """A sub-network of the space."""
    small = model.get("space") == "digits"
    space = digits_space() if small else mobilenet_v3_space(model.get("width", 1.0), model.get("classes", 1000))
    of = choice(space, *(method.get(name) for name in ("depth", "expand", "kernel")))
    return macs(space, of, model.get("resolution", 224))


def elasticvit(model: Settings, method: Settings) -> int:
    """A sub-network of the store."""
    names = ("channels", "depths", "expansions", "kernels", "mlp", "values")
    base = evit.DIGITS if model.get("base") == "digits" else evit.S1
    store = evit.shape_of(base, *(model.get(name) for name in names))
    return evit.macs(evit.shape_of(store, *(method.get(name) for name in names)), model.get("resolution", 192))


def b_lenet(model: Settings, method: Settings) -> int:
    """To the first exit, or to the end with the exit's head beside it."""
    return 220_150 if method["exit"] == 1 else 1_247_720


def cbnet(model: Settings, method: Settings) -> int:
    """The autoencoder, where there is one, and B-LeNet to its first exit."""
    if not method.get("convert", True):
        return 220_150
    return 220_150 + sum(a * b for a, b in pairwise([784, *method.get("hidden", [256, 64]), 784]))
