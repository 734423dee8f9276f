"""FlashAttention-2: the tiled loop is exact, and every backend is close to fp64."""

import copy

import pytest
import torch

from bench.errors import UsageError
from suites.attention import flash as file
from suites.attention.flash import attention_backend, flash_attention, tiled
from suites.attention.operator import masked_attention
from suites.common.decoder_cache import behind
from tests.suites.decode.walking import ids_of, small, walk


def inputs(tokens=70, keys=None, dtype=torch.double, size=16):
    torch.manual_seed(0)
    shapes = [(2, 3, n, size) for n in (tokens, keys or tokens, keys or tokens)]
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens, tile", [(64, 16), (70, 16), (70, 64), (1, 16), (33, 33), (5, 100)])
def test_the_tiled_loop_is_the_written_out_form_to_the_last_digits(tokens, tile, causal):
    q, k, v = inputs(tokens)
    seen = behind(tokens, tokens, q.device) if causal else None
    out, lse = tiled(q, k, v, causal, tile)
    assert torch.allclose(out, masked_attention(q, k, v, seen), atol=1e-12)
    scores = q @ k.transpose(2, 3) / 4
    if causal:
        scores = scores.masked_fill(~seen, -torch.inf)
    assert torch.allclose(lse, scores.logsumexp(-1), atol=1e-12)


def test_a_query_that_sees_nothing_gets_zeros():
    q, k, v = inputs(9)
    seen = torch.ones(9, 9, dtype=torch.bool)
    seen[4] = False
    out, lse = tiled(q, k, v, tile=4, seen=seen)
    assert torch.all(out[:, :, 4] == 0) and torch.all(lse[:, :, 4] == -torch.inf)
    assert torch.allclose(out, masked_attention(q, k, v, seen), atol=1e-12)
    assert torch.all(masked_attention(q, k, v, seen)[:, :, 4] == 0)


def test_one_key_is_its_value():
    q, k, v = inputs(7, keys=1)
    assert torch.allclose(tiled(q, k, v)[0], v.expand(-1, -1, 7, -1), atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "math", "flash", pytest.param("flex", marks=pytest.mark.slow)])
def test_every_backend_is_as_near_to_fp64_as_the_written_out_form(backend, dtype, causal):
    exact_inputs = inputs(80)
    given = [x.to(dtype) for x in exact_inputs]
    exact = masked_attention(*[x.double() for x in given], behind(80, 80, torch.device("cpu")) if causal else None)
    make = {"length": 80, "heads": 3, "width": 16, "causal": causal}
    error = (flash_attention(**make, backend=backend)(*given).double() - exact).abs().max()
    math = (flash_attention(**make, backend="math")(*given).double() - exact).abs().max()
    assert error <= 2 * math + 1e-7


@pytest.mark.parametrize("backend", ["sdpa", "tiled_reference"])
@pytest.mark.parametrize("backward", [False, True])
def test_the_row_agrees_with_its_reference(backend, backward):
    module = flash_attention(length=40, heads=2, width=8, causal=True, backend=backend, tile=16, backward=backward)
    given = module.example_inputs(2)
    with torch.inference_mode():
        out, reference = module(*given), module.reference(*given)
    assert out.shape == (2, 2, 40, 8)
    assert torch.allclose(out, reference, atol=module.tolerance)


def test_what_a_machine_lacks_says_so():
    given = inputs(8, dtype=torch.float32)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="does not run"):
            flash_attention(length=8, backend="cudnn")(*given)
        assert flash_attention(length=8).chosen(*given) in ("flash_attention", "math")
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match="pip install flash-attn"):
            flash_attention(backend="flash_attn")


def test_what_a_machine_lacks_is_a_row_without_support():
    """A worker calls a row `unsupported` by the kind of its error."""
    from bench.worker.child import classify

    if not torch.cuda.is_available():
        with pytest.raises(UsageError) as found:
            flash_attention(length=8, backend="cudnn")(*inputs(8, dtype=torch.float32))
        assert classify(found.value) == "unsupported"
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError) as found:
            flash_attention(backend="flash_attn")
        assert classify(found.value) == "unsupported"


def test_a_causal_row_says_what_the_mask_leaves():
    """N 5, 2 heads of 3: 2 x 25 x 6 = 300 products, of which 5 x 6 / 2 = 15 pairs x 12 = 180 are below the diagonal."""
    row = flash_attention(length=5, heads=2, width=3, causal=True)
    assert (row.macs_dense, row.macs_nonzero) == (300, 180)
    plain = flash_attention(length=5, heads=2, width=3)
    assert plain.macs_dense is None and plain.macs_nonzero is None


def test_counts_are_those_of_the_brief():
    assert file.macs(2048, 16, 64) == 8_589_934_592
    assert file.paper_operations(2048, 16, 64) == 17_179_869_184
    assert file.paper_operations(2048, 16, 64, causal=True, backward=True) == 2.5 * 8_589_934_592
    assert file.score_bytes(2048, 16) == 134_217_728
    assert file.causal_unused_macs(3, 1, 1) == 6
    assert file.training_operations(10, 2, 4, 8) == 60 + 12 * 64


@pytest.mark.parametrize("backend", ["sdpa", "math", "flash", "tiled_reference"])
def test_a_decoder_learns_and_writes_the_same_by_every_backend(backend):
    plain, ids = small().double(), ids_of(2, 19)  # so that no order of additions matters
    own = attention_backend(copy.deepcopy(plain), backend=backend)
    assert torch.allclose(walk(own, ids, 12), walk(plain, ids, 12), atol=1e-5)
    gradients = []
    for model in (plain, own):
        model(ids).square().mean().backward()
        gradients.append(model.blocks[0].attention.k.weight.grad)
    assert gradients[0].abs().max() > 0 and torch.allclose(*gradients, atol=1e-9)
