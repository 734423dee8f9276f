"""Structured maps against their dense matrices, their ends, and the counts that are printed."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from bench.config.catalogue import parse_spec
from suites.common.gpt import forward_macs, gpt, parameters
from suites.lowrank.ffn import ffn_layer, gpt_parameters, structured_ffn
from suites.lowrank.structures import BlockDense, BlockShuffle, Guided, LowRank, ffn_values, guide_share, structured

SUITE = Path(__file__).parents[3] / "suites" / "lowrank" / "suite.yaml"
GPTS = {
    "gpt_s": ({"width": 768, "layers": 12, "heads": 12, "hidden": 3072}, 109_632_000),
    "gpt_m": ({"width": 1024, "layers": 24, "heads": 16, "hidden": 4096}, 335_079_424),
    "gpt_l": ({"width": 1536, "layers": 24, "heads": 24, "hidden": 6144}, 729_111_552),
    "gpt_xl": ({"width": 2048, "layers": 24, "heads": 32, "hidden": 8192}, 1_274_138_624),
}


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("ends", [(12, 24), (24, 12), (16, 16)])
@pytest.mark.parametrize("structure", ["LowRank", "BlockDense", "BlockShuffle"])
def test_a_product_is_its_merged_matrix(structure, ends):
    part = structured(structure, *ends, rank=8, blocks=4).double()
    part.start_from(torch.randn(ends[1], ends[0], dtype=torch.double))
    x = torch.randn(3, 5, ends[0], dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(part(x), F.linear(x, part.merged(), part.bias))


def test_a_shuffle_written_out_entry_by_entry():
    part = BlockShuffle(8, 12, 2).double()
    for weight in (part.first, part.second):
        nn.init.normal_(weight)
    first = torch.block_diag(*part.first.detach())
    second = torch.block_diag(*part.second.detach())
    into = torch.zeros(8, 8, dtype=torch.double)
    for block in range(2):
        for place in range(4):
            into[block * 4 + place, place * 2 + block] = 1  # place of row-major [4, 2], read by columns
    back = torch.zeros(12, 12, dtype=torch.double)
    for block in range(2):
        for place in range(6):
            back[place * 2 + block, block * 6 + place] = 1
    torch.testing.assert_close(part.merged(), back @ second @ into @ first)


def test_one_block_is_no_block_at_all():
    dense, low = BlockDense(12, 20, 6, 1), LowRank(12, 20, 6)
    with torch.no_grad():
        dense.u.normal_(), dense.v.normal_()
        low.u.copy_(dense.u)
        low.v.copy_(dense.v[0])
    x = torch.randn(4, 12)
    torch.testing.assert_close(dense(x), low(x))
    shuffle = BlockShuffle(12, 20, 1)
    nn.init.normal_(shuffle.first)
    nn.init.normal_(shuffle.second)
    torch.testing.assert_close(shuffle(x), x @ shuffle.first[0].mT @ shuffle.second[0].mT)


def test_full_rank_is_the_weight_and_less_is_the_closest():
    weight = torch.randn(10, 14)
    full, part = LowRank(14, 10, 10), LowRank(14, 10, 4)
    full.start_from(weight)
    part.start_from(weight)
    torch.testing.assert_close(full.merged(), weight, rtol=1e-5, atol=1e-5)
    tail = torch.linalg.svdvals(weight)[4:]
    assert float((part.merged() - weight).norm()) == pytest.approx(float(tail.norm()), rel=1e-4)


def test_the_merged_matrix_is_used_for_few_tokens_and_stored_beside_the_factors():
    part = ffn_layer(structure="LowRank", rank=4, width=16, pre_merge=3, length=3)
    stored = sum(t.numel() for t in [*part.parameters(), *part.buffers()])
    assert stored == 2 * 4 * (16 + 64) + 16 + 64 + 2 * 16 * 64 == sum(p.numel() for p in part.parameters())
    assert not part.fc1.whole.requires_grad
    calls = []
    part.fc1.product = lambda x: calls.append(x.shape) or torch.zeros(*x.shape[:-1], 64)
    part.fc1(torch.randn(1, 3, 16))
    assert calls == []
    part.fc1(torch.randn(1, 4, 16))
    part.fc1.train()(torch.randn(1, 3, 16))  # a step learns the factors
    assert calls == [(1, 4, 16), (1, 3, 16)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("structure", ["dense", "LowRank", "BlockDense", "BlockShuffle"])
def test_an_operator_is_its_definition_within_what_its_dtype_allows(structure, dtype):
    """Rounding to 8 bits moves two products by about a hundredth: 1e-5 would call every row in bf16 wrong."""
    rank = None if structure in ("dense", "BlockShuffle") else 32
    operator = ffn_layer(structure=structure, width=64, rank=rank, blocks=2, length=9).to(dtype)
    assert operator.tolerance == pytest.approx(2e-2 if dtype is torch.bfloat16 else 1e-5)
    (x,) = operator.example_inputs(2)
    with torch.no_grad():
        found, wanted = operator(x).double(), operator.reference(x)
    assert float((found - wanted).norm() / wanted.norm()) < operator.tolerance


def test_structures_of_one_grid_have_as_many_values():
    """LowRank 192 = BlockShuffle 4 = BlockDense 256 in two blocks: 1,474,560 of 4,718,592 at width 768, 31.25 %."""
    assert ffn_values("LowRank", 768, 3072, 192) == ffn_values("BlockShuffle", 768, 3072, blocks=4) == 1_474_560
    assert ffn_values("BlockDense", 768, 3072, 256, 2) == 1_474_560
    for width, rank in ((768, 256), (1536, 512), (3072, 1024)):
        assert ffn_values("BlockDense", width, 4 * width, rank, 2) == 0.3125 * 8 * width**2
    grids = yaml.safe_load(SUITE.read_text())["grids"]
    blocks = [block for name in ("finding", "curves", "full") for block in grids[name]]
    rows = [parse_spec(spec) for block in blocks for spec in block["models"] if "BlockDense" in spec]
    assert rows and all(3 * row["rank"] == row.get("width", 768) and row["blocks"] == 2 for _, row in rows)


def test_a_guide_of_share_one_is_the_dense_layer_and_of_share_zero_the_structured_one():
    inner = LowRank(12, 8, 3)
    inner.start_from(torch.randn(8, 12))
    guided = Guided(inner, steps=4).train()
    x = torch.randn(5, 12)
    with torch.no_grad():
        guided.weight.normal_()
        torch.testing.assert_close(guided(x), F.linear(x, guided.weight, inner.bias))
        guided.a_step.fill_(4)
        assert torch.equal(guided(x), inner(x))
        guided.eval()
        guided.a_step.fill_(0)
        assert torch.equal(guided(x), inner(x))


def test_the_guides_products_are_a_quarter_of_a_run():
    shares = [guide_share(step, 1000) for step in range(2000)]
    assert sum(shares) / 2000 == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("name", GPTS)
def test_gpts_have_the_printed_sizes(name):
    sizes, printed = GPTS[name]
    with torch.device("meta"):
        model = gpt(vocabulary=32_000, **sizes)
    assert count(model) == parameters(vocabulary=32_000, **sizes) == printed


@pytest.mark.parametrize(
    "name, settings, total",
    [
        ("gpt_s", {"structure": "LowRank", "rank": 384}, 88_398_336),
        ("gpt_xl", {"structure": "BlockDense", "rank": 768, "blocks": 4}, 704_761_856),
        ("gpt_m", {"structure": "BlockShuffle", "blocks": 4}, 196_667_392),
    ],
)
def test_structured_gpts_have_the_derived_sizes(name, settings, total):
    sizes, dense = GPTS[name]
    with torch.device("meta"):
        model = structured_ffn(gpt(vocabulary=32_000, **sizes), **settings)
    shape = {key: sizes[key] for key in ("width", "layers", "hidden")}
    assert count(model) == gpt_parameters(dense, **shape, **settings) == total


def test_labels_of_63_and_32_percent_are_exact_shares_of_the_network():
    dense = 2 * 768 * 3072
    assert ffn_values("LowRank", 768, 3072, 384) / dense == ffn_values("BlockShuffle", 768, 3072, blocks=2) / dense
    assert ffn_values("LowRank", 768, 3072, 384) / dense == 0.625
    assert ffn_values("LowRank", 768, 3072, 192) / dense == 0.3125
    assert ffn_values("BlockDense", 2048, 8192, 768, 4) == 9_830_400


def test_the_wide_networks_have_as_many_key_channels_as_those_that_share_heads():
    shared = {"width": 1024, "layers": 24, "heads": 16, "kv_heads": 4, "head": 64, "hidden": 4864}
    assert round(parameters(vocabulary=32_000, **shared) / 1e6, 1) == 335.1


def test_a_gpt_steps_through_its_cache_as_it_runs_at_once():
    for fused, positions in ((False, "rotary"), (True, "learned")):
        model = gpt(width=16, layers=2, heads=4, kv_heads=2, hidden=24, vocabulary=29, fused=fused, positions=positions)
        ids = torch.randint(29, (2, 9))
        with torch.no_grad():
            whole = model(ids)
            said, cache = model.prefill(ids[:, :6])
            torch.testing.assert_close(said, whole[:, 5], rtol=1e-4, atol=1e-5)
            for place in range(6, 9):
                said, cache = model.decode(ids[:, place : place + 1], cache)
                torch.testing.assert_close(said, whole[:, place], rtol=1e-4, atol=1e-5)


def test_products_of_a_gpt_are_those_of_its_closed_form():
    from bench.meters.macs import count as counted

    sizes = {"width": 16, "layers": 2, "heads": 4, "hidden": 24, "vocabulary": 29}
    found = counted(gpt(context=9, **sizes), gpt(context=9, **sizes).example_inputs(1))
    assert found.macs == forward_macs(tokens=9, **sizes)
