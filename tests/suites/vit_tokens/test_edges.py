"""Every method at the ends of its settings, on unusual networks, in half precision, compiled, and on odd memory."""

import pytest
import torch

from suites.common.scan import vision_scan
from suites.common.vit import vit
from suites.vit_tokens.diffrate import diffrate
from suites.vit_tokens.dynamicvit import dynamicvit
from suites.vit_tokens.eet import eet
from suites.vit_tokens.evit import evit
from suites.vit_tokens.lookupvit import lookupvit
from suites.vit_tokens.spatten import spatten
from suites.vit_tokens.stvit import stvit
from suites.vit_tokens.token_transforming import token_transforming
from suites.vit_tokens.tome import tome
from suites.vit_tokens.topvim import topvim

#: Methods at a middling and at their most extreme setting.
METHODS = {
    "tome": (tome, {"r": 3}),
    "tome, as much as there is": (tome, {"r": 999}),
    "tome, dropping": (tome, {"r": 3, "mode": "drop"}),
    "evit": (evit, {"keep_rate": 0.5}),
    "evit, one patch": (evit, {"keep_rate": 0.01}),
    "diffrate": (diffrate, {"prune": [99, 20, 12, 6], "merge": [99, 18, 9, 3]}),
    "dynamicvit": (dynamicvit, {"rho": 0.5}),
    "dynamicvit, one patch": (dynamicvit, {"rho": 0.01}),
    "token_transforming": (token_transforming, {"keep_rate": 0.5}),
    "token_transforming, one token": (token_transforming, {"keep_rate": 0.01}),
    "stvit": (stvit, {"tokens": 4}),
    "stvit, one token": (stvit, {"tokens": 1}),
    "lookupvit": (lookupvit, {"tokens": 4}),
    "lookupvit, all tokens": (lookupvit, {"tokens": 25}),
    "eet": (eet, {"keep_rate": 0.5}),
    "eet, one patch": (eet, {"keep_rate": 0.01}),
    "spatten": (spatten, {"keep_tokens": 0.5, "keep_heads": 0.5, "keep_values": 0.5}),
    "spatten, one of each": (spatten, {"keep_tokens": 0.01, "keep_heads": 0.01, "keep_values": 0.01}),
}
#: Networks, and the methods that rightly refuse them.
NETWORKS = {
    "distilled": ({"distilled": True}, {stvit, lookupvit}),
    "without class token": ({"class_token": False, "pool": "mean"}, {evit, diffrate, eet}),
    "mean over patches": ({"pool": "mean"}, set()),
    "without biases": ({"qkv_bias": False}, set()),
}


def network(**changes):
    torch.manual_seed(0)
    return vit(**{"width": 16, "heads": 2, "depth": 4, "patch": 4, "resolution": 20, "classes": 5, **changes})


def answers(model, dtype=torch.float32):
    """Finite logits of three images that do not lie contiguously in memory."""
    model = model.to(dtype)
    images = torch.randn(3, model.resolution, model.resolution, 3).to(dtype).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = model(images)
    assert logits.dtype == dtype and logits.shape == (3, 5) and torch.isfinite(logits.double()).all()
    return logits


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_unusual_networks_are_reduced_or_refused_with_the_reason(kind, name):
    method, chosen = METHODS[name]
    changes, refused = NETWORKS[kind]
    if method in refused:
        with pytest.raises(ValueError, match="build the model with"):
            method(network(**changes), **chosen)
        return
    model = method(network(**changes), **chosen)
    model.trace_sources = True
    answers(model)
    assert model.token_counts[-1] <= 25


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_method_runs_in_every_precision(dtype, name):
    method, chosen = METHODS[name]
    answers(method(network(), **chosen), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("rate", [0.5, 0.01])
def test_scans_are_pruned_in_every_precision(rate, dtype):
    model = vision_scan(width=16, depth=4, patch=4, resolution=20, classes=5, state=4)
    answers(topvim(model, keep_rate=rate), dtype)
    assert model.token_counts[-1] == (4 if rate == 0.5 else 1)


def test_a_network_with_one_patch_loses_nothing():
    model = network(patch=20)
    for method, chosen in ((tome, {"r": 8}), (evit, {"keep_rate": 0.1}), (spatten, {"keep_tokens": 0.1})):
        reduced = method(network(patch=20), **chosen)
        images = torch.randn(2, 3, 20, 20)
        with torch.no_grad():
            assert torch.allclose(reduced(images), model(images), atol=1e-6)


def test_a_network_too_shallow_for_a_generator_is_refused():
    with pytest.raises(ValueError, match="depth >= 3, not 2"):
        stvit(network(depth=2), tokens=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_one_graph_for_a_compiler(name):
    method, chosen = METHODS[name]
    model, images = method(network(), **chosen), torch.randn(2, 3, 20, 20)
    torch._dynamo.reset()
    with torch.no_grad():
        assert torch.allclose(torch.compile(model, backend="eager", fullgraph=True)(images), model(images), atol=1e-5)
