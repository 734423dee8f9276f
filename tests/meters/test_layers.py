"""The layer table: totals equal the whole-model count, times do not disturb, what is unexplained is shown."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from bench.meters import layers, macs
from tests.meters.networks import Block, TinyViT

KEYS = {
    "index", "name", "module_path", "op", "input_shapes", "output_shapes", "dtype", "macs", "vector_ops", "read_bytes",
    "write_bytes", "weight_bytes", "activation_bytes", "intensity", "time_ms", "time_low_ms", "time_high_ms", "share",
    "calls", "provenance_bytes", "tokens",
}  # fmt: skip


@pytest.fixture(scope="module")
def vit() -> tuple[nn.Module, torch.Tensor]:
    return TinyViT(32, 2, 2, patch=8, resolution=32).eval(), torch.randn(2, 3, 32, 32)


def test_totals_equal_the_whole_model_meters(vit: tuple[nn.Module, torch.Tensor]) -> None:
    network, image = vit
    count = macs.count(network, (image,), second_count=False)
    table = layers.table(network, (image,), repeats=2)
    for name in ("macs", "vector_ops", "bit_operations", "weight_bytes", "activation_bytes"):
        assert sum(row[name] for row in table.rows) == getattr(count, name)
    assert sum(row["read_bytes"] + row["write_bytes"] for row in table.rows) == count.traffic_bytes


def test_rows_have_every_key_and_are_in_execution_order(vit: tuple[nn.Module, torch.Tensor]) -> None:
    network, image = vit
    table = layers.table(network, (image,), repeats=3)
    assert all(set(row) >= KEYS for row in table.rows)
    paths = [row["module_path"] for row in table.rows]
    assert paths[0] == "embed"
    assert paths.index("blocks.0.qkv") < paths.index("blocks.0.fc1") < paths.index("blocks.1.norm1")
    assert paths[-1] == "head"
    assert [row["index"] for row in table.rows] == list(range(len(paths)))
    json.dumps([table.rows, table.info])


def test_row_of_a_linear_layer_by_hand(vit: tuple[nn.Module, torch.Tensor]) -> None:
    network, image = vit
    row = {r["module_path"]: r for r in layers.table(network, (image,), repeats=0).rows}["blocks.0.fc1"]
    # 2 images x 17 tokens, 32 -> 128
    assert row["macs"] == 34 * 32 * 128
    assert row["weight_bytes"] == 4 * (32 * 128 + 128)
    assert row["read_bytes"] == row["weight_bytes"] + 4 * 34 * 32
    assert row["write_bytes"] == 4 * 34 * 128
    assert row["intensity"] == pytest.approx(2 * row["macs"] / (row["read_bytes"] + row["write_bytes"]))
    assert (row["tokens"], row["calls"], row["op"], row["dtype"]) == (17, 1, "Linear", "float32")
    assert row["input_shapes"] == [[2, 17, 32]]
    assert row["output_shapes"] == [[2, 17, 128]]


def test_attention_belongs_to_the_module_that_calls_it(vit: tuple[nn.Module, torch.Tensor]) -> None:
    network, image = vit
    row = {r["module_path"]: r for r in layers.table(network, (image,), repeats=0).rows}["blocks.1"]
    assert row["macs"] == 2 * 2 * 17 * 17 * 32


def test_unexplained_time_is_end_to_end_less_all_rows(vit: tuple[nn.Module, torch.Tensor]) -> None:
    network, image = vit
    info_and_rows = layers.table(network, (image,), repeats=5)
    info, rows = info_and_rows.info, info_and_rows.rows
    assert info["unexplained_ms"] == pytest.approx(info["end_to_end_ms"] - sum(r["time_ms"] for r in rows))
    assert sum(r["share"] for r in rows) * info["end_to_end_ms"] == pytest.approx(info["explained_ms"])
    assert all(r["time_low_ms"] <= r["time_ms"] <= r["time_high_ms"] for r in rows)
    assert info["method_note"]


def test_module_called_twice_is_one_row_with_two_calls() -> None:
    layer = nn.Linear(8, 8)
    table = layers.table(nn.Sequential(layer, nn.ReLU(), layer).eval(), (torch.randn(3, 8),), repeats=2)
    row = table.rows[0]
    assert (row["calls"], row["macs"]) == (2, 2 * 3 * 64)
    assert len(table.rows) == 2


def test_tokens_that_change_between_calls_are_kept() -> None:
    class Halving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(self.block(x)[:, ::2])

    rows = {r["module_path"]: r for r in layers.table(Halving().eval(), (torch.randn(1, 8, 16),), repeats=0).rows}
    assert rows["block.qkv"]["tokens"] == 8
    assert rows["block.qkv"]["tokens_per_call"] == [8, 4]


def test_no_hook_stays_and_no_module_is_changed(vit: tuple[nn.Module, torch.Tensor]) -> None:
    from torch.nn.modules import module as module_hooks

    network, image = vit
    before = len(module_hooks._global_forward_hooks), len(module_hooks._global_forward_pre_hooks)
    layers.table(network, (image,), repeats=2)
    assert before == (len(module_hooks._global_forward_hooks), len(module_hooks._global_forward_pre_hooks))
    assert all(not child._forward_hooks for child in network.modules())


def test_meta_tensors_have_counts_and_a_reason_instead_of_times() -> None:
    with torch.device("meta"):
        network = nn.Linear(6, 5)
    table = layers.table(network, (torch.empty(2, 6, device="meta"),))
    assert table.rows[0]["macs"] == 60
    assert table.rows[0]["time_ms"] is None
    assert "meta" in table.info["reason"]


def test_interval_of_a_median_by_hand() -> None:
    # n = 10: ranks 2 and 9 cover the median with 97.9 %; ranks 3 and 8 with 89.1 % only
    assert layers.median_interval([float(i) for i in range(1, 11)]) == (2.0, 9.0)
    # n = 5: even the whole range covers 93.75 % only
    assert layers.median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (1.0, 5.0)
    # n = 20: ranks 6 and 15 cover with 95.9 %
    assert layers.median_interval([float(i) for i in range(1, 21)]) == (6.0, 15.0)


def test_interval_covers_the_median_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(2000, 15, generator=generator).log().tolist()
    truth = -0.6931
    covered = sum(low <= truth <= high for low, high in map(layers.median_interval, draws)) / 2000
    assert 0.95 <= covered <= 0.98
