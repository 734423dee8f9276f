"""Closed forms of the house's scene reader for cards: products of one request of 64 + 5 and 3 new tokens.

A model's settings are those of `suites.common.scene_reader:scene_reader`, at a patch of 4; the method's own products
are not among these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from suites.common.decoder_shape import uniform
from suites.common.digit_scenes import WORDS
from suites.vlm_tokens import closed_forms, schedules
from suites.vlm_tokens.visiondrop import shared_out

Settings = Mapping[str, Any]
VISUAL, TEXT, NEW, PATCH = 64, 5, 3, 4
DEFAULTS = {"width": 96, "layers": 8, "heads": 4, "hidden": 256, "depth": 3}


def _request(
    model: Settings, visual: Sequence[int], projected: int = VISUAL, screens: int = 1, text: int = TEXT
) -> int:
    sizes = {**DEFAULTS, **model}
    width = sizes["width"]
    shape = uniform(width=width, layers=sizes["layers"], heads=sizes["heads"], hidden=sizes["hidden"], vocabulary=WORDS)
    tower = closed_forms.vit_macs(VISUAL + 1, width, sizes["depth"], 4 * width, PATCH**2)
    return screens * (tower + projected * width**2) + closed_forms.request_macs(shape, text, visual, NEW)


def _layers(model: Settings) -> int:
    return int(model.get("layers", DEFAULTS["layers"]))


def plain(model: Settings, method: Settings) -> int:
    """Without a method."""
    return _request(model, schedules.plain(VISUAL, _layers(model)))


def pyramiddrop(model: Settings, method: Settings) -> int:
    """Stages or cuts."""
    return _request(
        model,
        schedules.pyramiddrop(
            VISUAL, _layers(model), method.get("lam", 0.5), method.get("stages", 4), method.get("cuts")
        ),
    )


def fastv(model: Settings, method: Settings) -> int:
    """One cut."""
    return _request(model, schedules.fastv(VISUAL, _layers(model), method.get("K", 2), method.get("R", 0.5)))


def share(model: Settings, method: Settings) -> int:
    """Uniform and random dropping."""
    return _request(model, schedules.share(VISUAL, _layers(model), method.get("keep", 0.5), method.get("layer", 0)))


def aim(model: Settings, method: Settings) -> int:
    """Merging and pruning."""
    chosen = {"merge": method.get("merge", 0.25), "first": method.get("l1"), "span": method.get("span")}
    return _request(model, schedules.aim(VISUAL, _layers(model), lag=method.get("lag", 1), **chosen))


def visiondrop(model: Settings, method: Settings) -> int:
    """Stages; the projector runs on what the tower's leaves."""
    splits = method.get("splits") or shared_out(VISUAL, method.get("mean", 32 / 576))
    return _request(model, schedules.visiondrop(VISUAL, _layers(model), splits, method.get("cuts")), sum(splits[0]))


def csp(model: Settings, method: Settings) -> int:
    """Few, all, few."""
    names = ("n_c", "n_p", "a", "b")
    return _request(model, schedules.csp(VISUAL, _layers(model), *(method.get(name) for name in names)))


def ahc(model: Settings, method: Settings) -> int:
    """Screens; 64 + 2 + 64 + 1 + 64 + 1 + 4 tokens of a history of two, 200 in all."""
    screens, k = 1 + int(model.get("history", 2)), int(method.get("k", 6))
    visual = schedules.ahc(screens, VISUAL, _layers(model), k)
    return _request(model, visual, screens=screens if k else 1, text=200 - screens * VISUAL)
