"""The claim of Token Transforming: pruning and merging are both Y = W X."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.common.vit import Heads, Tokens
from suites.vit_tokens.diffrate import PruneThenMerge
from suites.vit_tokens.evit import KeepAttended
from suites.vit_tokens.matrices import diffrate_matrix, evit_matrix, tome_matrix
from suites.vit_tokens.scores import class_attention, key_metric
from suites.vit_tokens.token_transforming import Transform
from suites.vit_tokens.tome import Merge


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(torch.float32)


def draw(seed, count, batch=2, heads=3, width=12):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, count, width, generator=generator)
    q, k, v = torch.randn(3, batch, heads, count, width // heads, generator=generator).unbind(0)
    return x, Heads(q, k, v), generator


@given(seed=st.integers(0, 999), count=st.integers(3, 30), protected=st.sampled_from([0, 1, 2]), data=st.data())
@settings(max_examples=40, deadline=None)
def test_tome_is_a_matrix(seed, count, protected, data):
    x, heads, generator = draw(seed, count)
    size = torch.randint(1, 9, (2, count), generator=generator).float()
    r = data.draw(st.integers(1, max(1, (count - protected) // 2)))
    if (count - protected) // 2 < 1:
        return
    out = Merge(r)(Tokens(x, protected, size), heads)
    w = tome_matrix(key_metric(heads), size, r, protected)
    assert torch.allclose(w @ x, out.x, atol=1e-6)
    assert torch.allclose(w.sum(dim=-1), torch.ones(2, count - r))
    assert torch.allclose((w > 0).to(torch.double) @ size[..., None].double(), out.size[..., None].double())


@given(
    seed=st.integers(0, 999),
    count=st.integers(4, 30),
    protected=st.sampled_from([1, 2]),
    fuse=st.booleans(),
    rate=st.floats(0.1, 0.9),
)
@settings(max_examples=40, deadline=None)
def test_evit_is_a_matrix(seed, count, protected, fuse, rate):
    x, heads, _ = draw(seed, count)
    out = KeepAttended(rate, fuse)(Tokens(x, protected), heads)
    if out.count == count and torch.equal(out.x, x):
        return
    score = class_attention(heads, None, protected)
    keep = out.count - protected - fuse
    assert torch.allclose(evit_matrix(score, keep, protected, fuse) @ x, out.x, atol=1e-9)


@given(seed=st.integers(0, 999), count=st.integers(4, 30), protected=st.sampled_from([1, 2]), data=st.data())
@settings(max_examples=40, deadline=None)
def test_diffrate_is_a_matrix(seed, count, protected, data):
    x, heads, _ = draw(seed, count)
    prune = data.draw(st.integers(protected + 1, count))
    merge = data.draw(st.integers(protected + 1, prune))
    if merge == count:
        return
    out = PruneThenMerge(prune, merge)(Tokens(x, protected), heads)
    w = diffrate_matrix(class_attention(heads, None, protected), x, prune, merge, protected)
    assert torch.allclose(w @ x, out.x, atol=1e-9)
    assert torch.allclose(w.sum(dim=-1), torch.ones(2, merge))


def test_a_cold_transforming_matrix_selects_and_a_hot_one_averages():
    _, heads, _ = draw(0, 10)
    chosen = torch.tensor([[2, 5, 9], [1, 2, 3]])
    cold, hot = (Transform(0.5, t).matrix(heads, chosen) for t in (1e-4, 1e6))
    assert torch.allclose(cold, torch.nn.functional.one_hot(chosen, 10).double())
    assert torch.allclose(hot, torch.full_like(hot, 0.1), atol=1e-5)
