"""Mean costs of inputs beside paths by lot, and what batches keep of them, against numbers computed by hand."""

import pytest

from bench.reading import Curve
from reports import mean_costs
from reports.site import load
from tests.reports.figures.rows import case, with_readings
from tests.synthetic import store


def at(setting, cost, accuracy, *, batch=1, varies=(), learned=("steps",), latency=5.0):
    """A row of a cascade; `varies` are the costs of its inputs, empty where every input has the same path."""
    made = case("dual_cnn", latency, accuracy, setting=setting, batch=batch)
    weights = {"kind": "trained", "method": dict.fromkeys(learned, 1)}
    if not varies:
        return {**with_readings(made, macs=cost), "weights": weights}
    of = {"macs_mean": cost, "macs_min": min(varies), "macs_max": max(varies), "input_ms": 0.25, "input_p90_ms": 0.5}
    curve = Curve("macs_mean", "input", list(range(len(varies))), varies, "counted").as_dict()
    return {**with_readings(made, macs=cost, **of), "weights": weights, "curves": [curve]}


@pytest.fixture
def site(tmp_path):
    ends = [at("exit=1", 100.0, 60.0), at("exit=2", 1100.0, 90.0)]
    inner = at("lam=0.5", 350.0, 75.0, varies=(100.0, 100.0, 100.0, 1100.0))
    plain = with_readings(case("none", 8.0, 90.0), macs=1000.0)
    large = with_readings(case("none", 80.0, 90.0, batch=8), macs=1000.0)
    packed = at("lam=0.5", 400.0, 75.0, batch=8, varies=(100.0, 1100.0), latency=56.0)
    packed = with_readings(packed, speedup=(1.25, 80 / 56, 1.5))
    store(tmp_path / "results", [plain, *ends, inner, large, packed], with_samples=False)
    return load([tmp_path / "results"])


def test_a_threshold_stands_beside_paths_by_lot_with_the_histogram_of_its_paths(site):
    head, lines = mean_costs.table(mean_costs.operating_points(site))
    one = dict(zip(head, next(line for line in lines if line[1] == "1"), strict=True))
    assert (one["products (mean)"], one["least to most"]) == ("350", "100 to 1,100")
    assert one["inputs by cost"] == "75 / 25 % of 4"
    assert (one["time of an input"], one["p90"]) == ("0.250 ms", "0.500 ms")
    assert (one["score"], one["by lot at that cost"]) == ("75.0 %", "67.5 %")  # 60 + 250 / 1000 x 30


def test_a_batch_keeps_a_part_of_the_products_that_it_saves(site):
    _, lines = mean_costs.batches_table(site)
    # 1 - 400 / 1000 of the products, 1 - 56 / 80 of the time: half of it arrives
    assert [line[1:] for line in lines] == [["8", "60 %", "30 %", "0.50 [0.33, 0.56]"]]


def test_a_price_that_was_trained_with_is_no_threshold(tmp_path):
    rows = [with_readings(case("none", 8.0, 90.0), macs=1000.0)]
    rows += [at(s, cost, 60.0, learned=("lam",)) for s, cost in (("exit=1, lam=1", 100.0), ("exit=2, lam=1", 1100.0))]
    rows.append(at("lam=2, threshold=0.5", 350.0, 75.0, varies=(100.0, 1100.0), learned=("lam",)))
    store(tmp_path / "results", rows, with_samples=False)
    (point,) = mean_costs.operating_points(load([tmp_path / "results"]))
    assert point.by_lot is None


def test_many_costs_are_no_paths():
    assert mean_costs.shares_by_cost([1.0, 1.0, 2.0, 5.0]) == [0.5, 0.25, 0.25]
    assert mean_costs.shares_by_cost(list(range(13))) == []
