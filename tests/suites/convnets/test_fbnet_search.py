"""FBNet's small search: gates of one candidate are that candidate, tables are the layers', the latency pulls."""

import pytest
import torch

from bench.meters import macs
from suites.convnets.fbnet_search import (
    CANDIDATES,
    digits_fbnet,
    expected,
    fbnet_search,
    kilomacs,
    microseconds,
    search,
    table_of,
)
from tests.suites.convnets.building import stirred


class Noise:
    """A task on which nothing can be learned, so that latency alone decides."""

    def training_batches(self, size, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            yield torch.randn(size, 3, 16, 16, generator=generator), torch.randint(10, (size,), generator=generator)


def run(module, *inputs):
    with torch.no_grad():
        return module(*inputs)


def test_a_gate_of_one_candidate_is_the_network_that_is_cut_out_for_it():
    network, chosen = stirred(digits_fbnet()), [0, 8, 3, 7, 5, 1]
    sizes = [len(place.candidates) for place in network.places]
    gates = [torch.eye(size)[one] for one, size in zip(chosen, sizes, strict=True)]
    x = torch.randn(2, 3, 16, 16)
    mixed, before = run(network, x, gates), sum(p.numel() for p in network.parameters())
    network.cut(chosen)
    assert torch.allclose(run(network, x), mixed, atol=1e-5)
    assert sum(p.numel() for p in network.parameters()) < before / 3


def test_the_supernet_is_the_mean_of_its_candidates():
    network = stirred(digits_fbnet())
    gates = [torch.full((len(place.candidates),), 1 / len(place.candidates)) for place in network.places]
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(run(network, x), run(network, x, gates), atol=1e-6)


def test_a_table_of_products_adds_up_to_what_the_trace_counts():
    network, chosen = digits_fbnet(), [2, 8, 0, 7, 5, 3]
    table = table_of(network, kilomacs)
    said = sum(float(row[one]) for row, one in zip(table, chosen, strict=True))
    gates = [torch.eye(len(row))[one] for row, one in zip(table, chosen, strict=True)]
    assert float(expected(gates, table)) == pytest.approx(said)
    counted = macs.count(network.cut(chosen), (torch.randn(1, 3, 16, 16),), {}, second_count=False).macs
    around = 16 * 16 * 27 * 8 + 24 * 10  # stem and head
    assert 1e3 * (said - 0.01) == pytest.approx(counted - around, rel=1e-5)  # a skipped block is a hundredth


def test_a_measured_table_has_an_entry_for_every_candidate():
    network = digits_fbnet()
    table = table_of(network, microseconds)
    assert [len(row) for row in table] == [8, 9, 9, 8, 9, 9] and all((row > 0).all() for row in table)
    assert float(table[1][-1]) < float(table[1][:-1].min())  # a skip is the quickest


@pytest.mark.slow
def test_where_nothing_can_be_learned_the_gates_go_to_what_is_cheap():
    torch.manual_seed(0)
    network = digits_fbnet()
    found = search(network, Noise(), table_of(network, kilomacs), 60, 0)
    table = table_of(network, kilomacs)
    start = [torch.full_like(row, 1 / len(row)) for row in found]
    assert float(expected([row.softmax(0) for row in found], table)) < 0.8 * float(expected(start, table))


def test_chance_and_the_largest_need_no_task_and_a_search_does():
    largest = fbnet_search(digits_fbnet(), how="largest", training_steps=0)
    kernels = {place.candidates[0].layers[3].kernel_size[0] for place in largest.places}
    assert kernels == {CANDIDATES[-1][0]}
    one, same = (fbnet_search(digits_fbnet(), how="random", training_steps=0, seed=4) for _ in range(2))
    assert [str(place) for place in one.places] == [str(place) for place in same.places]
    for model, match in ((digits_fbnet(), "task"), (torch.nn.Linear(2, 2), "supernet")):
        with pytest.raises(ValueError, match=match):
            fbnet_search(model)
