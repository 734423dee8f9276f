"""What a unit costs: the table between its points by hand, products by the trace, savings and cuts that follow them."""

import pytest
import torch

from bench.meters import macs
from suites.common.digits_vit import digits_vit
from suites.pruning import nvit
from suites.pruning.latency_table import LatencyTable, Table, points_of
from suites.pruning.transformers import blocks_of


def test_a_table_is_linear_between_its_points_and_beyond():
    table = Table(((2, 4), (10, 20, 40)), torch.tensor([[1.0, 2.0, 4.0], [3.0, 4.0, 6.0]]))
    assert table.at((2, 10)) == 1.0
    assert table.at((3, 30)) == pytest.approx(0.5 * 3 + 0.5 * 5)
    assert table.at((4, 50)) == pytest.approx(7.0)
    assert table.at((1, 10)) == pytest.approx(0.0)
    assert Table(((1,), (10, 20)), torch.tensor([[1.0, 2.0]])).at((1, 15)) == 1.5
    assert points_of(4) == (1, 2, 4)
    assert points_of(2) == (1, 2)


def small():
    torch.manual_seed(0)
    model = digits_vit(width=16, heads=2, depth=2, resolution=8, mlp_ratio=2.0)
    return model, blocks_of(model, "test")


def test_products_are_those_of_the_trace():
    model, blocks = small()
    price = nvit.products_price(model, blocks)
    traced = macs.count(model, model.example_inputs(1), second_count=False).macs
    assert price(nvit.counts_of(model, blocks)) == traced
    saved = nvit.savings(price, nvit.counts_of(model, blocks))
    tokens = model.tokens
    patch = model.patch_embed.proj.weight[0].numel()
    head = tokens * (2 * 16 * 16 + tokens * 16)  # the most that one unit saves here
    assert saved["head.1"] == 1.0
    assert saved["mlp.0"] == pytest.approx(tokens * 2 * 16 / head)
    # per token: a hidden feature is in both layers, before them in the patches and behind them in the classifier
    assert saved["hidden"] == pytest.approx((tokens * 2 * (2 * 2 * 16 + 2 * 32) + (tokens - 1) * patch + 10) / head)


def test_a_price_of_time_decides_where_it_is_cut(monkeypatch):
    """Where MLPs alone take time, a cut to a share of the time takes MLP features, whatever else is small."""
    model, blocks = small()
    flat = Table(((8, 16), (1, 2), (4, 8), (4, 8)), torch.zeros(2, 2, 2, 2))
    table = LatencyTable(flat, Table(((8, 16), (8, 32)), torch.tensor([[8.0, 32.0], [8.0, 32.0]])))
    monkeypatch.setattr(nvit, "measured", lambda sizes, tokens: table)
    price = nvit.table_price(model, blocks)
    counts = nvit.counts_of(model, blocks)
    assert price(counts) == pytest.approx(64.0)
    assert nvit.savings(price, counts) == pytest.approx(
        {name: float(name.startswith("mlp")) for name in counts}, abs=1e-9
    )
    scores = {name: torch.arange(size) / 1000 for name, size in counts.items()}
    kept = nvit._cut_to(model, blocks, scores, 40.0, 1.0, {}, price)
    assert len(kept["mlp.0"]) + len(kept["mlp.1"]) == 40
    assert len(kept["hidden"]) == 16
    assert len(kept["head.0"]) == 2
