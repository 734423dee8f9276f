"""Live bytes by layer: hand-computed on small networks, forward and backward, and they add up to the peak."""

import pytest
import torch
from torch import nn

import bench
from bench.meters import layer_memory, memory
from bench.meters.layer_memory import LayerBytes
from bench.meters.live import Event, Trace

B = 4  # bytes of a float


def chain():
    return nn.Sequential(nn.Linear(4, 8, bias=False), nn.GELU(), nn.Linear(8, 3, bias=False))


def test_layers_of_a_chain_hold_what_they_made():
    peaks = memory.live_peaks(chain(), (torch.randn(2, 4),), {}, "measured", "")
    weights, inputs = (4 * 8 + 8 * 3) * B, 2 * 4 * B
    hidden, output = 2 * 8 * B, 2 * 3 * B
    assert [layer.as_row() for layer in peaks.layers] == [
        {"module_path": path, "live_peak_bytes": live, "held_at_peak_bytes": held, "saved_bytes": None}
        for path, live, held in (
            ("0", weights + inputs + hidden, hidden),
            ("1", weights + inputs + 2 * hidden, hidden),
            ("2", weights + inputs + hidden + output, 0),
        )
    ]
    assert peaks.peak_at[1] == "1"


@pytest.mark.parametrize("net", [chain(), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)])
def test_what_layers_hold_and_what_was_there_before_is_the_peak(net):
    x = torch.randn(2, 4) if isinstance(net, nn.Sequential) else torch.randn(2, 5, 8)
    peaks = memory.live_peaks(net.eval(), (x,), {}, "measured", "")
    before = sum(peaks.split[name] for name in ("weights", "buffers", "inputs"))
    assert before + sum(layer.held_at_peak_bytes for layer in peaks.layers) == peaks.peak_bytes
    assert max(layer.live_peak_bytes for layer in peaks.layers) == peaks.peak_bytes
    assert max(peaks.course.live_bytes) == peaks.peak_bytes


def test_a_backward_is_of_the_layers_whose_forward_it_undoes():
    frame = bench.layers(chain(), torch.randn(2, 4), workload="training_step", repeats=0)
    rows = frame.set_index("module_path")
    # GELU keeps its input, made by layer 0; the last layer keeps its own, made by the GELU
    assert rows.loc["0", "saved_bytes"] == 2 * 8 * B and rows.loc["1", "saved_bytes"] == 2 * 8 * B
    # the optimizer's step is the peak: gradients are alive, made by the layers that they belong to
    assert rows.loc["0", "held_at_peak_bytes"] == 4 * 8 * B and rows.loc["2", "held_at_peak_bytes"] == 8 * 3 * B
    assert frame.attrs["memory"]["split"]["gradients"] == (4 * 8 + 8 * 3) * B


def test_what_is_kept_for_the_backward_is_what_was_alive_when_it_began():
    trace = Trace(
        events=[Event(1, 10, 0), Event(2, 20, 1), Event(1, -10, 1), Event(3, 5, 2), Event(2, -20, 2)],
        operators=[("a", "first"), ("b", "second"), ("c", "first")],
        backward_at=2,
    )
    assert layer_memory.by_layer(trace, {"weights": 100}) == (
        LayerBytes("first", 125, 10, 0),
        LayerBytes("second", 130, 20, 20),
    )


def test_a_storage_that_grows_stays_with_its_maker():
    trace = Trace(events=[Event(1, 10, 0), Event(1, 30, 1)], operators=[("a", "maker"), ("b", "user")])
    held = {layer.module_path: layer.held_at_peak_bytes for layer in layer_memory.by_layer(trace, {})}
    assert held == {"maker": 40, "user": 0}


def test_the_course_is_short_and_keeps_the_peak():
    events = [Event(place, size, place) for place, size in enumerate([1] * 500 + [1000] + [1] * 499)]
    trace = Trace(events=events, operators=[("op", f"layer{place}") for place in range(1000)])
    course = layer_memory.course(trace, {"weights": 7}, points=100)
    assert len(course.operators) == 100 and course.operators[-1] == 999
    assert max(course.live_bytes) == 7 + 1999 and course.module_paths[-1] == "layer999"
    assert course.live_bytes[50] == 7 + 500 + 1000 + 9


def test_a_layer_table_says_none_where_memory_was_not_followed():
    taken = LayerBytes("a", live_peak_bytes=3, held_at_peak_bytes=2, saved_bytes=None).as_row()
    rows = layer_memory.joined([{"module_path": "a"}, {"module_path": "b"}], [taken])
    assert rows[0]["live_peak_bytes"] == 3 and rows[1]["live_peak_bytes"] is None
