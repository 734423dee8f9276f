"""MACs of one sample by closed forms, P + S: `function(model_settings, method_settings)`.

P is products and convolutions, S states of scans. Settings that are not given have the builders' defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from suites.common.scan_forms import macs_of_scans
from suites.ssm import efficient_vmamba as ev
from suites.ssm import mobile_mamba as mm
from suites.ssm import serpent as sp
from suites.ssm.mixers import EXPAND, WINDOW, heads_of, matched_count
from suites.ssm.netmamba import STRIDE
from suites.ssm.ss2d import rank_of

Settings = Mapping[str, Any]


def half(side: int, stride: int = 2) -> int:
    """Side of a map after a padded layer of a stride."""
    return -(-side // stride)


def selection(channels: int, state: int, length: int, scans: int) -> int:
    """x_proj and dt_proj of all scans of D = 2 C channels: K L D (2 R + 2 N)."""
    return scans * length * 2 * channels * (2 * rank_of(channels) + 2 * state)


def states(channels: int, state: int, length: int, scans: int, form: str) -> int:
    """S of all scans of D = 2 C channels; the control `identity` has none."""
    return 0 if form == "identity" else macs_of_scans(2 * channels, state, length, scans)


def ss2d(channels: int, state: int, area: int, length: int, scans: int, form: str) -> int:
    """C -> 4 C, depthwise 3x3 on 2 C, selection, scans, 2 C -> C, on a map of an area."""
    around = area * (6 * channels**2 + 18 * channels)
    return around + selection(channels, state, length, scans) + states(channels, state, length, scans, form)


def efficient_vmamba(model: Settings, _: Settings) -> int:
    """Patches, blocks by stage, merging between stages, a linear layer."""
    defaults = {"size": "T", "step": 2, "ssm_stages": "12", "branch": "both", "scan": "parallel", "patch": 4}
    s = {**defaults, "classes": 1000, "resolution": 224, **model}
    dims, depths = s.get("dims") or ev.SIZES[s["size"]][0], s.get("depths") or ev.SIZES[s["size"]][1]
    side = s["resolution"] // s["patch"]
    total = side**2 * 3 * s["patch"] ** 2 * dims[0] + dims[-1] * s["classes"]
    for place, (c, depth) in enumerate(zip(dims, depths, strict=True)):
        if place:
            side = half(side)
            total += side**2 * 4 * dims[place - 1] * c
        scans = str(place + 1) in s["ssm_stages"]
        total += depth * (
            _scan_block(c, side, s) if scans else side**2 * (8 * c * c + 36 * c) + 2 * 4 * c * (4 * c // 8)
        )
    return total


def _scan_block(c: int, side: int, s: Settings) -> int:
    """The scan, the convolution, and the gate once for each of them."""
    length = side**2 if s["step"] == 1 else half(side) ** 2
    gate = 2 * c * (c // 8)
    scan = ss2d(c, ev.STATE, side**2, length, 4, s["scan"]) + gate
    conv = side**2 * (9 * c + c * c) + gate
    return {"both": scan + conv, "ssm": scan, "conv": conv}[s["branch"]]


def mobile_mamba(model: Settings, _: Settings) -> int:
    """Stem, blocks by stage, what stands between stages, a linear layer."""
    defaults = {"size": "T2", "split": "paper", "wavelet": True, "ssm": True, "scan": "parallel", "classes": 1000}
    s = {**defaults, "stem_strides": [2, 2, 2, 2], **model}
    dims, depth, pixels = mm.SIZES[s["size"]]
    dims, depth, side = s.get("dims") or dims, s.get("depth") or depth, s.get("resolution") or pixels
    ratios = list(zip(*mm.ratios_of(s["split"], s.get("global_ratio"), s.get("local_ratio")), strict=True))
    kernels = s.get("kernels") or mm.KERNELS
    total, before = dims[-1] * s["classes"], 3
    for stride, width in zip(s["stem_strides"], (dims[0] // 8, dims[0] // 4, dims[0] // 2, dims[0]), strict=True):
        side = half(side, stride)
        total, before = total + side**2 * 9 * before * width, width
    for place, (c, count) in enumerate(zip(dims, depth, strict=True)):
        if place:
            old, large = dims[place - 1], side**2
            side = half(side)
            total += large * (_around(old) + 4 * old * old) + 8 * old * old
            total += side**2 * (36 * old + 4 * old * c + _around(c))
        total += count * (2 * side**2 * _around(c) + _mixer(c, side, kernels[place], ratios[place], s))
    return total


def _around(c: int) -> int:
    """Depthwise 3x3 and the network of 2 C, a pixel."""
    return 9 * c + 4 * c * c


def _mixer(c: int, side: int, kernel: int, ratios: tuple[float, float], s: Settings) -> int:
    wide, near, _ = mm.split_channels(c, *ratios)
    area = side**2
    total = area * (near * (kernel**2 + 1) + c * c)
    total += ss2d(wide, mm.STATE, area, area, 2, s["scan"]) if s["ssm"] else 0
    return total + (half(side) ** 2 * wide * (32 + 4 * kernel**2) if s["wavelet"] else 0)


def serpent(model: Settings, _: Settings) -> int:
    """Patches, levels with merging, the way back with skips, pixels."""
    s = {"size": "c48_p4", "mixer": "scan", "matched": True, "scan": "parallel", **model}
    width, patch, blocks = sp.SIZES[s["size"]]
    width, patch, blocks = s.get("width") or width, s.get("patch") or patch, s.get("blocks") or blocks
    multiple = patch << (len(blocks) - 1)
    side = half(s.get("resolution") or (64 if s["size"] == "tiny" else 256), multiple) * multiple // patch
    total = side**2 * 2 * 3 * patch**2 * width
    for level, count in enumerate(blocks):
        c, at = width << level, side >> level
        matched = matched_count(s["mixer"], c, count) if s["matched"] else count
        last = level == len(blocks) - 1
        total += (1 if last else 2) * matched * _restoring(s["mixer"], c, at, s["scan"])
        if not last:
            wide, small = 2 * c, (at // 2) ** 2
            total += small * (4 * c * wide + 2 * wide * wide) + at**2 * wide * c
    return total


def _restoring(mixer: str, c: int, side: int, form: str) -> int:
    """One block of a kind on a square map."""
    if mixer == "scan":
        return ss2d(c, ev.STATE, side**2, side**2, 4, form)
    if mixer == "long":
        return side**2 * (6 * c**2 + 18 * c) + fourier(8 * c, side**2)
    mlp = side**2 * 2 * EXPAND * c * c
    if mixer == "conv":
        return mlp + side**2 * 49 * c
    if mixer == "mdta":
        return mlp + side**2 * (4 * c * c + 27 * c + 2 * c * (c // heads_of(c)))
    window = side if mixer == "global" else min(WINDOW, side)
    tokens = (half(side, window) * window) ** 2
    return mlp + tokens * (4 * c * c + 2 * window**2 * c)


def fourier(rows: int, length: int) -> int:
    """Of transforms of 2 L points, 2.5 n log2 n each and half of it as they are real: rows there and back, and their
    kernels there, which are once a batch: this is of a batch of one."""
    points = 2 * length
    return 3 * round(2.5 * rows * points * math.log2(points) / 2)


def scan_lm(model: Settings, _: Settings) -> int:
    """A request of 20 + 4 tokens, as cards are tested at: 23 tokens through the blocks, and the head 4 times."""
    s = {"width": 768, "layers": 24, "state": 16, "vocabulary": 50280, "scan": "parallel", **model}
    d = s["width"]
    block = mamba_block(d, s["state"], 23) + states(d, s["state"], 23, 1, s["scan"])
    return s["layers"] * block + 4 * d * s["vocabulary"]


def netmamba(model: Settings, _: Settings) -> int:
    """4 d n + d K + depth L (2 d D + 4 D + D (R + 2 N) + R D + D d) + depth L D N, L = n + 1."""
    s = {"bytes": 1600, "width": 256, "depth": 4, "state": 16, "classes": 7, "scan": "parallel", **model}
    d, n = s["width"], s["bytes"] // STRIDE
    block = mamba_block(d, s["state"], n + 1) + states(d, s["state"], n + 1, 1, s["scan"])
    return STRIDE * d * n + d * s["classes"] + s["depth"] * block


def mamba_block(width: int, state: int, length: int) -> int:
    """P of a one-way block over a sequence: L (6 d^2 + 8 d) and the selection."""
    return length * (6 * width**2 + 8 * width) + selection(width, state, length, 1)


def netmamba_transformer(model: Settings, _: Settings) -> int:
    """4 d n + d K + depth (12 L d^2 + 2 L^2 d)."""
    s = {"bytes": 1600, "width": 256, "depth": 4, "classes": 7, **model}
    d, n = s["width"], s["bytes"] // STRIDE
    return STRIDE * d * n + d * s["classes"] + s["depth"] * (12 * (n + 1) * d * d + 2 * (n + 1) ** 2 * d)
