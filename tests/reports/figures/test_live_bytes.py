"""The course of live bytes: its peak, its owner, and a reason where nothing was followed."""

from reports.figures import live_bytes
from tests.reports.figures.specs import check
from tests.synthetic import record


def memory(saved=None):
    layers = [("fc1", 3_000_000, 1_500_000), ("act", 3_000_000, 500_000)]
    return {
        "peak_bytes": 3_000_000,
        "split": {"weights": 1_000_000, "buffers": 0, "inputs": 0, "activations": 2_000_000, "temporaries": 0},
        "peak_at": ["aten.gelu.default", "act"],
        "method_note": "",
        "layers": [
            {"module_path": path, "live_peak_bytes": live, "held_at_peak_bytes": held, "saved_bytes": saved}
            for path, live, held in reversed(layers)
        ],
        "course": {
            "operators": [0, 1], "live_bytes": [2_500_000, 3_000_000], "module_paths": ["fc1", "act"],
        },
    }  # fmt: skip


def test_the_title_names_the_peak_and_the_layer_that_holds_most_of_what_comes_and_goes():
    figure = check(live_bytes.figure({**record(), "memory": memory()}))
    assert "needs 3.00\u00a0MB at once, reached in act (aten.gelu.default)" in figure.title
    assert figure.title.endswith("fc1 holds 75 % of what comes and goes")
    assert figure.table["layer"].tolist() == ["fc1", "act"]
    floor, line = figure.spec["data"]
    assert floor["y"] == [1.0, 1.0] and line["y"] == [2.5, 3.0] and line["x"] == [1, 2]


def test_bytes_for_the_backward_are_shown_where_there_is_one():
    assert "kept for the backward (B)" not in live_bytes.figure({**record(), "memory": memory()}).table
    shown = live_bytes.figure({**record(), "memory": memory(saved=9)}).table
    assert shown["kept for the backward (B)"].tolist() == [9, 9]


def test_without_a_course_there_is_a_reason():
    assert "not followed" in live_bytes.figure({**record(), "memory": {"runtime": "onnxruntime"}}).reason
