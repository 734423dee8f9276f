"""FlashSVD: streamed equals unfused for any tile and mask, full ranks equal the dense layer, counts and live bytes."""

import copy

import pytest
import torch
from torch import nn

from suites.common.bert import BertLayer, bert, encoder_macs
from suites.lowrank import flashsvd as fs
from suites.lowrank.factors import factors


class Layer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, seen=None):
        return self.inner(x, seen)


@pytest.fixture
def plain():
    layer = BertLayer(48, 4, 12, 96)
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return Layer(layer.eval())


SEEN = torch.rand(3, 30, generator=torch.Generator().manual_seed(0)) > 0.3


@pytest.mark.parametrize("seen", [None, SEEN], ids=["whole", "padded"])
@pytest.mark.parametrize("tiles", [(8, 32), (30, 96), (7, 50), (100, 1)])
def test_streamed_equals_unfused_for_any_tile_and_mask(plain, tiles, seen):
    x = torch.randn(3, 30, 48)
    with torch.no_grad():
        unfused = fs.svd(copy.deepcopy(plain), ranks=[5, 20, 16])(x, seen)
        streamed = fs.flashsvd(copy.deepcopy(plain), ranks=[5, 20, 16], query_tile=tiles[0], tile=tiles[1])(x, seen)
    torch.testing.assert_close(streamed, unfused, rtol=1e-5, atol=1e-5)


def test_padding_at_the_front_hides_whole_tiles_of_keys(plain):
    x, seen = torch.randn(2, 30, 48), torch.ones(2, 30, dtype=torch.bool)
    seen[0, :17] = False
    with torch.no_grad():
        unfused = fs.svd(copy.deepcopy(plain), ranks=[5, 20, 16])(x, seen)
        streamed = fs.flashsvd(copy.deepcopy(plain), ranks=[5, 20, 16], query_tile=8)(x, seen)
    torch.testing.assert_close(streamed, unfused, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [fs.svd, fs.flashsvd])
def test_full_ranks_are_the_dense_layer(plain, method):
    x = torch.randn(2, 11, 48)
    with torch.no_grad():
        dense = plain(x)
        torch.testing.assert_close(method(copy.deepcopy(plain), ranks=[12, 48, 48])(x), dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 14), (14, 9)])
def test_factors_are_the_closest_product_and_weighted_ones_the_closest_of_weighted_rows(shape):
    weight, rows = torch.randn(shape), torch.rand(shape[0]) + 0.1
    for scale in (None, rows):
        u, v = factors(weight, 4, scale)
        d = torch.ones(shape[0]) if scale is None else scale
        left = torch.linalg.svdvals(d[:, None] * weight)[4:].norm()
        assert float((d[:, None] * (weight - u @ v)).norm()) == pytest.approx(float(left), rel=1e-4)


def test_counts_are_those_of_the_check_cases():
    ranks = (40, 240, 240)
    assert fs.layer_values(768, 3072, 12, ranks) == 3_409_920
    assert fs.layer_values(768, 3072, 12, (64, 768, 768)) == 8_994_816
    assert 12 * fs.layer_macs(768, 3072, 12, ranks, 128) == 5_539_627_008
    assert encoder_macs(768, [12] * 12, 64, [3072] * 12, 128) == 11_173_625_856
    assert 12 * fs.layer_macs(768, 3072, 12, ranks, 256) == 11_683_233_792
    assert 12 * fs.layer_macs(768, 3072, 12, ranks, 256, query_tile=64) == 12_249_464_832
    assert fs.break_even_ranks(768, 3072, 12) == (pytest.approx(59.0769, abs=1e-4), 614.4, 384.0)
    assert 4 * fs.network_elements(32, 256, 3072, 240) == 2 * 100_663_296
    assert 4 * fs.network_elements(32, 256, 3072, 240, tile=128) == 2 * 7_864_320 + 2 * 32 * 256 * 128 * 4


@pytest.mark.parametrize("tile", [None, 8, 5])
def test_the_trace_counts_what_the_closed_form_says(tile):
    from bench.meters.macs import count

    model = bert(width=24, size=8, ffn=[40, 40], layers=2, vocabulary=17, length=13, pooler=False)
    ranks = [3, 7, 6]
    method = fs.svd(model, ranks=ranks) if tile is None else fs.flashsvd(model, ranks=ranks, query_tile=tile, tile=16)
    assert count(method, method.example_inputs(1)).macs == 2 * fs.layer_macs(24, 40, 3, tuple(ranks), 13, tile)


def test_the_live_bytes_of_the_network_are_those_of_the_formula():
    from bench.meters import memory

    batch, tokens, width, hidden, rank, tile = 2, 16, 24, 512, 6, 32
    for streamed in (False, True):
        layer = Layer(BertLayer(width, 3, 8, hidden))
        method = fs.flashsvd if streamed else fs.svd
        options = {"tile": tile, "query_tile": 4} if streamed else {}
        network = method(layer, ranks=[4, rank, 8], **options).inner.mlp.eval()
        x = torch.randn(batch, tokens, width)
        with torch.no_grad():
            peak = memory.measure(network, (x,)).peak_activation_bytes
        expected = 4 * (fs.network_elements(batch, tokens, hidden, rank, tile if streamed else None) + x.numel())
        # the unfused one holds its low-rank input of the first map no longer by then
        assert abs(peak - expected) <= 4 * batch * tokens * max(rank, width), (streamed, peak, expected)


def test_weighted_factors_ask_for_data(plain):
    with pytest.raises(ValueError, match="learns from data"):
        fs.svd(plain, ranks=[5, 20, 16], factors="fwsvd")


def test_the_encoder_is_that_of_transformers_under_a_padding_mask():
    from suites.common.hf_bridge import import_transformers

    transformers = import_transformers()
    ours = bert(width=24, size=8, ffn=[40, 40], layers=2, vocabulary=17, length=9, pooler=False)
    config = transformers.BertConfig(
        vocab_size=17, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40
    )
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    parts = {"attn.proj": "attention.output.dense", "norm1": "attention.output.LayerNorm",
             "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense", "norm2": "output.LayerNorm"}  # fmt: skip
    state, mine = theirs.state_dict(), {}
    tables = {"words": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings"}
    for name, other in tables.items():
        mine[f"{name}.weight"] = state[f"embeddings.{other}.weight"]
    for kind in ("weight", "bias"):
        mine[f"norm.{kind}"] = state[f"embeddings.LayerNorm.{kind}"]
        for i in range(2):
            layer = f"encoder.layer.{i}"
            qkv = [state[f"{layer}.attention.self.{each}.{kind}"] for each in ("query", "key", "value")]
            mine[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(qkv)
            for name, other in parts.items():
                mine[f"blocks.{i}.{name}.{kind}"] = state[f"{layer}.{other}.{kind}"]
    ours.load_state_dict(mine)
    ids, seen = torch.randint(17, (2, 9)), torch.ones(2, 9, dtype=torch.bool)
    seen[1, 6:] = False
    with torch.no_grad():
        found, expected = ours(ids, seen), theirs(ids, attention_mask=seen.long()).last_hidden_state
    torch.testing.assert_close(found[seen], expected[seen], rtol=1e-4, atol=1e-5)
