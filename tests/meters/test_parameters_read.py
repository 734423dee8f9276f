"""Parameters read in a run beside those stored: experts, exits, slices, rows of tables, shared and packed weights."""

import torch
from torch import nn

import bench
from bench.meters import macs, parameters_read


def read(module, *args):
    found = macs.count(module.eval(), args, second_count=False).parameters_read
    return (found.count, found.at_most) if found.count is not None else found.reason


class Experts(nn.Module):
    """The first `active` of its experts, each a linear layer of 4 x 4 and a bias."""

    def __init__(self, experts=5, active=2):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(experts))
        self.active = active

    def forward(self, x):
        return sum(expert(x) for expert in self.experts[: self.active])


def test_experts_that_do_not_run_are_stored_and_not_read():
    net, x = Experts(), torch.randn(3, 4)
    assert read(net, x) == (2 * 20, False)
    frame = bench.measure(net, x, ["params", "params_read"]).set_index("metric")["value"]
    assert frame["params"] == 100 and frame["params_read"] == 40


def test_a_stacked_table_of_experts_is_read_where_it_is_indexed():
    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4, 3))

        def forward(self, x, chosen):
            return x @ self.weight[chosen]

    assert read(Stacked(), torch.randn(1, 4), 2) == (12, False)  # a view of one expert
    picked = torch.tensor([1, 4])  # a copy, whose rows are not followed
    assert read(Stacked(), torch.randn(2, 1, 4), picked) == (24, True)


def test_slices_of_an_elastic_layer():
    class Elastic(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8, bias=False)

        def forward(self, x):
            narrow = nn.functional.linear(x[..., :4], self.layer.weight[:6, :4])
            return narrow[..., :2] @ self.layer.weight[:2, :8]

    # 6 x 4 and 2 x 8 share the 2 x 4 in their corner
    assert read(Elastic(), torch.randn(1, 8)) == (24 + 16 - 8, False)


def test_rows_of_an_embedding_are_distinct():
    table = nn.Embedding(10, 4)
    assert read(table, torch.tensor([[1, 1, 7]])) == (8, False)
    with torch.device("meta"):
        shapes = nn.Embedding(10, 4)
    assert read(shapes, torch.zeros(1, 3, dtype=torch.long, device="meta")) == (12, True)


def test_shared_weights_count_once_and_a_tied_head_reads_all_rows():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, ids):
            return self.table(ids) @ self.table.weight.t()

    assert read(Tied(), torch.tensor([[1]])) == (40, False)
    assert read(nn.Sequential(*[nn.Linear(4, 4)] * 3), torch.randn(1, 4)) == (20, False)


def test_a_network_that_reads_all_of_it_reads_its_parameters():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
    assert read(net, torch.randn(2, 3, 8, 8)) == (sum(p.numel() for p in net.parameters()), False)


def test_parameters_are_laid_out_on_the_processor_whatever_device_is_in_force():
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        half = net[0].weight[:2]

        class Half(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = net

            def forward(self, x):
                return x @ half.T

        found = macs.count(Half(), (torch.randn(3, 4),), second_count=False, inspect_values=False).parameters_read
    assert (found.count, found.at_most) == (8, False)


def test_packed_weights_are_no_parameters():
    net = nn.Sequential(nn.Linear(16, 16))
    packed = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
    assert "packed weights" in read(packed, torch.randn(1, 16))


def test_macs_per_token_is_of_networks_that_take_ids():
    net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 6))
    frame = bench.measure(net, torch.zeros(2, 5, dtype=torch.long), ["macs", "macs_per_token"]).set_index("metric")
    assert frame.loc["macs", "value"] == 5 * 24 and frame.loc["macs_per_token", "value"] == 24
    other = bench.measure(nn.Linear(4, 6), torch.zeros(2, 4), ["macs_per_token"])
    assert other.empty


def test_transposed_and_reshaped_views_of_all_of_a_weight_need_no_map_of_its_elements(monkeypatch):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 4, bias=False), nn.Parameter(torch.randn(4, 2, 3))

        def forward(self, x):
            return self.first(x) @ self.second.permute(2, 1, 0).reshape(6, 4).t() + self.first.weight.sum()

    monkeypatch.setattr(parameters_read, "LARGEST_MAP", 0)  # where a map would be needed the count is "at most"
    assert read(Views(), torch.randn(5, 6)) == (24 + 24, False)


def test_regions_are_the_same_however_they_are_looked_at():
    from bench.meters.parameters_read import _plain, _region

    weight = torch.randn(4, 6)
    whole = _plain(_region(weight))
    assert whole == (0, (24,), (1,)) == _plain(_region(weight.t())) == _plain(_region(weight.view(2, 2, 6, 1)))
    assert _plain(_region(weight[:2, :3])) == (0, (2, 3), (6, 1)) == _plain(_region(weight[:2, :3].t()))
    assert _plain(_region(weight[1:3])) == (6, (12,), (1,))
    assert _plain(_region(torch.randn(3).expand(5, 3))) == (0, (3,), (1,))


def test_runs_of_elements_are_counted_as_single_ones_would_be(monkeypatch):
    """Of a 12 x 8 matrix: rows 0, 3, 6 and 9, and the left halves of rows 1 and 2; 4 x 8 + 2 x 4."""
    regions = {(0, (4, 8), (24, 1)), (8, (2, 4), (8, 1))}
    storage = parameters_read._Storage(4, {(0, (96,), (1,))}, regions)
    assert parameters_read._run_length([*storage.held, *regions]) == 4
    found = parameters_read._covered(storage)
    monkeypatch.setattr(parameters_read, "_run_length", lambda regions: 1)
    assert found == parameters_read._covered(storage) == (40, False)
