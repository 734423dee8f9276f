import json

import pandas as pd
import pytest

from bench.analysis import table
from bench.reading import COLUMNS
from bench.store.records import seal, without_superseded, write_json
from tests import synthetic


def cell(frame, method, metric, column="value", model="deit_small"):
    rows = frame[(frame["model"] == model) & (frame["method"] == method) & (frame["metric"] == metric)]
    assert len(rows) == 1
    return rows[column].iloc[0]


def test_table_has_one_row_per_reading_in_the_promised_columns():
    records = synthetic.suite_records()
    frame = table.from_records(records)
    assert tuple(frame.columns) == COLUMNS + table.CONDITIONS
    assert len(frame) == sum(len(record["readings"]) for record in records)
    assert cell(frame, "evit", "macs") == pytest.approx(4.6e9 * 0.66)
    assert cell(frame, "evit", "latency_ms", "setting") == "keep_rate=0.7"
    assert (frame["unit"] != "").all()
    assert set(frame["threads"]) == {1}


def test_every_row_of_a_session_has_the_ends_of_its_noise_floor():
    timed, failed = synthetic.record(), synthetic.record(method="tome", status="oom")
    timed["timing"]["noise_floor"] = {"value": 1.01, "low": 0.97, "high": 1.05, "n": 5}
    failed["timing"]["noise_floor"] = None
    frame = table.from_records([timed, failed])
    of_timed = frame[frame["method"] == "none"]
    assert set(of_timed["noise_floor_low"]) == {0.97} and set(of_timed["noise_floor_high"]) == {1.05}
    assert frame[frame["method"] == "tome"][["noise_floor_low", "noise_floor_high"]].isna().all(axis=None)


def test_missing_values_are_missing_and_say_why():
    frame = table.from_records(synthetic.suite_records())
    gone = frame[frame["provenance"] == "unavailable"]
    assert gone["value"].isna().all() and (gone["method_note"].str.len() > 0).all()
    assert frame[frame["provenance"] != "unavailable"]["value"].notna().all()


def test_failed_case_is_a_row_with_its_reason_even_without_readings():
    failed = synthetic.record(
        method="tome", status="oom", error={"phase": "warm-up", "type": "MemoryError", "message": "8 GB"}
    )
    failed["readings"] = []
    frame = table.from_records([failed])
    assert frame["status"].tolist() == ["oom"]
    assert frame["error"].tolist() == ["warm-up: MemoryError: 8 GB"]
    assert "ended as oom" in frame["method_note"][0] and pd.isna(frame["value"][0])


def test_several_folders_are_a_union_and_the_same_record_counts_once(tmp_path):
    records = synthetic.suite_records()
    synthetic.store(tmp_path / "a", records[:5], with_samples=False)
    synthetic.store(tmp_path / "b", records[3:], with_samples=False)
    frame = table.load([tmp_path / "a", tmp_path / "b"])
    assert frame["case_key"].nunique() == len(records)
    pd.testing.assert_frame_equal(
        frame.sort_values(["case_key", "metric"], ignore_index=True),
        table.from_records(records).sort_values(["case_key", "metric"], ignore_index=True),
    )
    assert table.load(tmp_path / "a" / "records").shape == table.load(str(tmp_path / "a")).shape


def test_a_record_and_its_copy_without_personal_parts_are_one_measurement(tmp_path):
    own = seal(synthetic.record())
    cut = seal({**synthetic.record(), "environment": {}, "redacted_from": own["content_hash"]})
    for folder, item in (("own", own), ("published", cut)):
        write_json(tmp_path / folder / "records" / f"{item['record_key']}.json", item)
    assert len(table.read_records([tmp_path / "own", tmp_path / "published"]).records) == 1


def test_corrupt_record_is_reported_and_the_rest_is_read(tmp_path):
    store = synthetic.store(tmp_path, with_samples=False)
    first, second, *_ = sorted(store.records.glob("*.json"))
    first.write_text(first.read_text()[:200])
    edited = json.loads(second.read_text())
    edited["status"] = "crashed"
    write_json(second, edited)
    frame = table.load(tmp_path)
    assert len(frame.attrs["problems"]) == 2
    assert str(first) in frame.attrs["problems"][0] and "hash" in frame.attrs["problems"][1]
    assert frame["case_key"].nunique() == len(synthetic.suite_records()) - 2


def test_malformed_but_sealed_record_never_stops_the_table():
    good, bad, odd = synthetic.suite_records()[:3]
    bad["readings"] = None
    odd["readings"][0]["metric"] = "goodness"
    frame = table.from_records([good, bad, odd])
    assert frame["case_key"].nunique() == 2
    assert any("left out" in text and bad["record_key"] in text for text in frame.attrs["problems"])
    assert any("goodness" in text for text in frame.attrs["problems"])


def test_folder_without_records_is_a_problem_with_a_remedy(tmp_path):
    frame = table.load(tmp_path)
    assert frame.empty and tuple(frame.columns) == COLUMNS + table.CONDITIONS
    assert "give a results folder" in frame.attrs["problems"][0]


def test_superseded_record_is_left_out():
    old = seal(synthetic.record(seed=1))
    new = seal({**synthetic.record(seed=2), "supersedes": old["content_hash"]})
    assert without_superseded([old, new]) == [new]


def test_newest_keeps_one_record_per_case_and_machine():
    old, new = synthetic.record(seed=1), synthetic.record(seed=2)
    new["started_at"] = "2026-11-02T12:00:00+00:00"
    other = synthetic.record(seed=3, machine_key="other")
    frame = table.newest(table.from_records([old, new, other]))
    assert sorted(set(frame["started_at"])) == [old["started_at"], new["started_at"]]
    assert len(table.metric(frame, "macs")) == 2


def test_ten_thousand_records_become_a_table():
    base = synthetic.suite_records()
    records = [{**record, "machine_key": f"m{i}"} for i in range(1112) for record in base]
    frame = table.from_records(records)
    assert len(frame) == 1112 * sum(len(record["readings"]) for record in base)
    assert len(table.metric(frame, "speedup")) == 1112 * 6
