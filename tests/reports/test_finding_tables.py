"""Every number of a finding is made from records by one command; here against numbers computed by hand."""

import pytest

from bench.canonical import settings_text
from bench.reading import reading
from reports.finding_tables import END, START, main, markdown
from reports.site import load
from tests.synthetic import record, store


def layer(path, ms, op="Linear"):
    return {
        "module_path": path,
        "name": path,
        "op": op,
        "macs": 0.0,
        "time_ms": ms,
        "time_low_ms": ms,
        "time_high_ms": ms,
        "read_bytes": 1.0,
        "write_bytes": 1.0,
        "tokens": None,
    }


def put(item, **values):
    """Replace readings: value or (value, low, high)."""
    for name, given in values.items():
        value, low, high = given if isinstance(given, tuple) else (given, None, None)
        kept = [r for r in item["readings"] if r["metric"] != name]
        item["readings"] = [*kept, reading(name, value, "measured", ci_low=low, ci_high=high, n=3).as_dict()]


def batch(size, plain_ms, case_ms, speedup, **more):
    """A plain network and tome(r=13) with 1.5 times fewer MACs at one batch."""
    common = {"batch": size, "baseline_ms": plain_ms, "noise": 0.0, **more}
    plain = record(macs=1.2e9, latency_ms=plain_ms, **common)
    case = record(method="tome", setting="r=13", macs=0.8e9, latency_ms=case_ms, **common)
    put(plain, latency_ms=plain_ms, ideal_ms=6.0 * size, attainable_ms=7.5 * size)
    put(case, latency_ms=case_ms, ideal_ms=4.0 * size, attainable_ms=5.0 * size, speedup=speedup)
    plain["layers"] = [layer("blocks.0.mlp", plain_ms - 1)]
    case["layers"] = [layer("blocks.0.mlp", case_ms - 3), layer("blocks.0.reduce", 2.0, "Merge")]
    plain["layers_info"], case["layers_info"] = {"end_to_end_ms": plain_ms}, {"end_to_end_ms": case_ms}
    return [plain, case]


@pytest.fixture
def results(tmp_path):
    rows = [*batch(1, 12.0, 10.0, (1.2, 1.14, 1.26)), *batch(32, 384.0, 268.0, (1.44, 1.41, 1.47))]
    store(tmp_path / "results", rows, with_samples=False)
    return tmp_path / "results"


def line(text, heading, column):
    """The cells of the one line below the head that starts with `case` and has `column`, by column, under a heading."""
    part = text.split(f"### {heading}")[1].split("###")[0].splitlines()
    at = next(i for i, each in enumerate(part) if each.startswith("| case") and column in each)
    cells = [[cell.strip() for cell in part[i].strip("|").split("|")] for i in (at, at + 2)]
    return dict(zip(*cells, strict=True))


def test_tables_hold_the_hand_computed_numbers(results):
    text = markdown(load([results]))
    one = line(text, "cpu, fp32, batch 1,", "promised")
    assert one["case"] == "deit_tiny, tome(r=13)"
    assert one["promised"] == "1.50x"
    assert one["measured"] == "1.20x [1.14, 1.26]"
    assert one["realised"] == "0.80 [0.76, 0.84]"
    assert (one["latency (ms)"], one["plain (ms)"]) == ("10.0", "12.0")
    large = line(text, "cpu, fp32, batch 32,", "promised")
    assert large["realised"] == "0.96 [0.94, 0.98]"


def test_why_splits_the_realised_part_into_shape_and_kernels(results):
    one = line(markdown(load([results])), "cpu, fp32, batch 1,", "own operators")
    assert one["time in own operators"] == "20.0 % [20.0, 20.0]"  # 2 of 10 ms
    assert one["time saved elsewhere"] == "33 %"  # 11 - 7 of 12 ms
    assert (one["efficiency, plain"], one["efficiency"]) == ("50 %", "40 %")  # 6 / 12 and 4 / 10
    assert one["by shape"] == "1.00x"  # (4 / 5) / (6 / 7.5)
    assert one["by kernels"] == "0.80x"  # (5 / 10) / (7.5 / 12); the product is the realised 0.80


def test_what_would_vanish_in_the_usual_decimals_gets_more(tmp_path):
    rows = batch(1, 0.0684, 19.5, (0.00351, 0.00346, 0.00356))
    put(rows[1], latency_ms=(0.0884, 0.0872, 0.0896))
    store(tmp_path, rows, with_samples=False)
    found = line(markdown(load([tmp_path])), "cpu, fp32, batch 1,", "promised")
    assert found["measured"] == "0.00351x [0.00346, 0.00356]"
    assert (found["latency (ms)"], found["plain (ms)"]) == ("0.0884 [0.0872, 0.0896]", "0.0684")


def test_modules_of_another_network_are_not_compared_and_groups_that_were_only_counted_stand_aside(tmp_path):
    plain = record(model="plain_net", baseline_ms=20.0, latency_ms=20.0)
    other = record(model="fast_net", baseline_ms=20.0, latency_ms=10.0, against=settings_text({"model": "plain_net"}))
    plain["layers"], other["layers"] = [layer("blocks.0", 19.0)], [layer("features.0", 9.0)]
    plain["layers_info"], other["layers_info"] = {"end_to_end_ms": 20.0}, {"end_to_end_ms": 10.0}
    counted = record(model="large_net", resolution=512)
    counted["timing"]["invocations"] = []
    store(tmp_path, [plain, other, counted], with_samples=False)
    text = markdown(load([tmp_path]))
    assert "fast_net (against plain_net)" in text and "by kernels" in text
    assert "own operators" not in text and "saved elsewhere" not in text
    assert "512" not in text and ", ," not in text


def test_the_crossing_is_in_the_last_table(results):
    text = markdown(load([results])).split("### From which batch a method pays")[1]
    assert (
        "| tome(r=13) | 1.50x | 1.20x [1.14, 1.26] | 1.44x [1.41, 1.47] | from the smallest measured batch (1) |"
        in text
    )


def test_accuracies_stand_with_the_paired_change(tmp_path):
    rows = batch(1, 12.0, 10.0, (1.2, 1.1, 1.3))
    for item, answers in zip(rows, ("1" * 96 + "0" * 4, "1" * 90 + "0" * 6 + "1100"), strict=True):
        put(item, accuracy=float(answers.count("1")))
        item["quality"] = {"per_sample": answers, "samples_digest": "d"}
    store(tmp_path, rows, with_samples=False)
    found = line(markdown(load([tmp_path])), "cpu, fp32, batch 1,", "accuracy")
    assert (found["accuracy"], found["plain"]) == ("92.0 %", "96.0 %")
    assert found["change (points)"] == "-4.0 [-10.0, +2.1]"  # -3.92 -+ 6.03


def test_what_is_missing_says_why_and_what_failed_is_named(tmp_path):
    rows = [
        record(),
        record(method="tome", setting="r=8", macs=1e9, latency_ms=35.0),
        record(
            method="evit",
            setting="keep_rate=0.5",
            status="oom",
            error={"phase": "measure", "type": "MemoryError", "message": "out of memory"},
        ),
    ]
    store(tmp_path, rows, with_samples=False)
    text = markdown(load([tmp_path]))
    found = line(text, "cpu", "own operators")
    assert found["by kernels"] == (
        "unavailable (the machine's peaks or the time are not known, or the run goes beyond those peaks)"
    )
    assert "—" not in text
    assert "Not ranked: deit_tiny, evit(keep_rate=0.5) (measure: MemoryError: out of memory)" in text
    assert "From which batch" not in text


def test_a_busy_machine_takes_a_rank_and_no_score(tmp_path):
    busy = record(method="tome", setting="r=8", latency_ms=35.0, accuracy=97.0)
    store(tmp_path, [record(accuracy=98.0), {**busy, "status": "contaminated"}], with_samples=False)
    text = markdown(load([tmp_path]))
    assert "Not ranked: deit_tiny, tome(r=8)" in text and "| measured |" not in text
    assert line(text, "cpu", "accuracy")["accuracy"].startswith("97.0 %")


def test_the_command_replaces_what_is_between_the_marks_and_nothing_else(results, tmp_path, capsys):
    page = tmp_path / "findings.md"
    page.write_text(f"# Finding\n\nBefore.\n\n{START}\nold\n{END}\n\nAfter.\n")
    assert main([str(results), "--into", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text and text.startswith("# Finding\n\nBefore.\n\n") and text.endswith("After.\n")
    assert main([str(results), "--into", str(page)]) == 0 and page.read_text() == text
    page.write_text("# No marks\n")
    assert main([str(results), "--into", str(page)]) == 2 and "needs a line" in capsys.readouterr().err
    assert main([str(results)]) == 0 and capsys.readouterr().out == markdown(load([results]))
