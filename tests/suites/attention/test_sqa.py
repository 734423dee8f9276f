"""Sparse query attention: MHA and GQA as its ends, and its counts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from suites.attention.sqa import VARIANTS, layer_macs, layer_parameters, sqa_encoder, sqa_layer
from suites.common.decoder import decoder
from suites.common.decoder_shape import cache_bytes_per_token
from tests.suites.conftest import spread

SMALL = {"width": 32, "head": 8, "length": 20}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1), (2, 1), (2, 2), (1, 1)])
def test_shared_heads_are_repeated_heads(heads, causal):
    module = spread(sqa_layer(query_heads=heads[0], kv_heads=heads[1], causal=causal, **SMALL))
    x = module.example_inputs(2)[0]
    with torch.no_grad():
        assert torch.allclose(module(x), module.reference(x), atol=module.tolerance)


def test_all_heads_are_the_plain_decoder_bit_for_bit():
    settings = {"width": 32, "layers": 2, "hidden": 24, "vocabulary": 31}
    torch.manual_seed(0)
    full = sqa_encoder(query_heads=4, kv_heads=4, head=8, causal=True, **settings)
    plain = decoder(heads=4, **settings)
    plain.load_state_dict(full.state_dict())
    ids = torch.randint(31, (2, 12))
    with torch.no_grad():
        assert torch.equal(full(ids), plain(ids))


def test_an_encoder_looks_both_ways():
    model = spread(sqa_encoder(query_heads=2, kv_heads=1, width=32, head=8, hidden=24, vocabulary=31))
    ids = torch.randint(31, (1, 9))
    other = ids.clone()
    other[0, 8] = (ids[0, 8] + 1) % 31
    with torch.no_grad():
        assert not torch.allclose(model(ids)[:, 0], model(other)[:, 0])


def test_layer_counts_are_those_of_the_brief():
    assert layer_parameters(256, 16, 16, 16) == 262_144
    assert layer_parameters(256, 16, 8, 8) == 131_072
    assert layer_macs(256, 16, 16, 16, 32_768) == 558_345_748_480
    assert layer_macs(256, 16, 8, 8, 32_768) == 279_172_874_240


@pytest.mark.parametrize("name", VARIANTS)
def test_executed_counts_are_the_closed_form(name):
    heads, kv_heads = VARIANTS[name]
    with torch.device("meta"):
        module = sqa_layer(query_heads=heads, kv_heads=kv_heads, length=64)
        x = module.example_inputs(1)[0]
    assert sum(p.numel() for p in module.parameters()) == layer_parameters(256, 16, heads, kv_heads)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(x)
    assert counter.get_total_flops() // 2 == layer_macs(256, 16, heads, kv_heads, 64)


def test_a_cache_depends_on_key_heads_alone():
    sqa, gqa = (sqa_encoder(query_heads=q, kv_heads=4, causal=True) for q in (8, 16))
    assert cache_bytes_per_token(sqa.shape) == cache_bytes_per_token(gqa.shape)
    with pytest.raises(ValueError, match="does not divide query_heads"):
        sqa_layer(query_heads=4, kv_heads=3)
