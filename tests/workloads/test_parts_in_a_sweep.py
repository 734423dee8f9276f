"""Parts of a workload through a whole sweep: timed, counted and compared part by part, reset in between."""

import pytest

from bench.analysis import table
from bench.store.record_parts import reading_of
from bench.store.records import Store, check, read_json
from tests.sweeping import QUICK, configuration, sweep

NAPS = "tests.workloads.naps"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("naps")
    block = {
        "models": [f"{NAPS}:naps", f"{NAPS}:longer", f"{NAPS}:wide"],
        "workload": NAPS,
        "shapes": {"batch": [2], "times": [3]},
        "against": f"{NAPS}:naps",
    }
    config = configuration(folder, [], suite={"name": "naps", "grids": {"default": [block]}}, protocol=QUICK)
    done = sweep(config)
    assert not done.failed, [record["error"] for record in done.failed]
    return Store(config.paths.results), {record["case"]["model"].partition(":")[2]: record for record in done.records}


def value(record, metric, part=None):
    found = reading_of(record, metric, part)
    return None if found is None else found["value"]


def test_every_part_takes_the_time_that_it_sleeps_and_the_whole_their_sum(swept):
    _, rows = swept
    times = {part: value(rows["naps"], "latency_ms", part) for part in ("both", "short", "long")}
    assert times["short"] >= 2.0 and times["long"] >= 6.0 and times["both"] >= 8.0
    assert value(rows["naps"], "latency_ms") == times["both"]  # without a part the whole is meant
    assert value(rows["longer"], "latency_ms", "long") >= 12.0


def test_parts_are_compared_with_the_same_part_of_the_named_side(swept):
    _, rows = swept
    assert value(rows["longer"], "speedup", "long") < value(rows["longer"], "speedup", "short")
    assert value(rows["naps"], "speedup") is None and value(rows["naps"], "aa_ratio", "long") is not None
    line = rows["longer"]["timing"]["invocations"][0]["parts"]["long"]
    assert line["baseline_median_ms"] < line["median_ms"]


def test_every_part_has_its_own_products_bytes_and_layers(swept):
    _, rows = swept
    for name, width in (("naps", 8), ("wide", 16)):
        counted = {part: value(rows[name], "macs", part) for part in ("both", "short", "long")}
        assert counted == {"both": 3 * width**2, "short": width**2, "long": 2 * width**2}
        paths = [row["module_path"] for row in rows[name]["part_layers"]["long"]["layers"] if row["macs"]]
        assert paths == ["second"]
        assert value(rows[name], "peak_memory_bytes", "long") > value(rows[name], "peak_memory_bytes", "short")
        assert rows[name]["part_layers"]["long"]["layers"][0]["time_ms"] is not None
        assert value(rows[name], "params") == 3 * width**2


def test_rates_curves_and_what_the_workload_makes_of_it(swept):
    _, rows = swept
    record = rows["naps"]
    assert value(record, "throughput_per_s") == pytest.approx(2e3 / value(record, "latency_ms"), rel=0.05)
    (curve,) = record["curves"]
    assert (curve["index"], curve["values"], curve["unit"], curve["part"]) == ("step", [2.0, 6.0], "ms", "both")
    assert record["workload"]["times"] == 3
    assert value(record, "first_inference_ms") > 1.0  # what was measured is not replaced by what is derived
    whole, long = value(record, "latency_ms"), value(record, "latency_ms", "long")
    assert value(record, "compile_ms") == pytest.approx(whole - long)


def test_the_table_names_workload_shape_and_part_and_ranks_each_part_by_itself(swept):
    from bench.analysis.ranking import rank_intervals

    store, _ = swept
    frame = table.load(store.root)
    assert set(frame["workload"]) == {NAPS} and set(frame["shape"]) == {"times=3"}
    assert set(frame.loc[frame["metric"] == "latency_ms", "part"]) == {"both", "short", "long"}
    assert len(table.metric(frame, "latency_ms")) == 3  # one a case
    ranked = rank_intervals(frame, "latency_ms", part="long").set_index("model")
    assert ranked.loc[f"{NAPS}:longer", "rank_high"] == 3  # two processes cannot tell it from the others for sure
    assert ranked["group"].nunique() == 1


def test_the_record_is_whole_and_of_the_present_schema(swept):
    store, rows = swept
    for record in rows.values():
        kept = check(read_json(store.record_path(record["case_key"], record["machine_key"])), "kept")
        keys = [(row["metric"], row["part"]) for row in kept["readings"]]
        assert len(set(keys)) == len(keys) and kept["schema"] == 2
