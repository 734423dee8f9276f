"""The largest and the best batch: searched over what a machine would answer, and once for real."""

import pandas
import pytest
import torch
from torch import nn

import bench
from bench.api import batching
from bench.app.jobs import batches
from bench.errors import BenchError, DoesNotFit, UsageError
from tests.sweeping import HEALTHY, configuration

MODULE = nn.Linear(4, 8, bias=False)


def machine(monkeypatch, *, top=1000.0, half=4.0, fits=10**9, error=""):
    """A machine with throughput top x b / (b + half), on which batches above `fits` end by memory."""
    asked = []

    def measure(module, inputs, metrics, *, batch, **_):
        asked.append((batch, tuple(metrics)))
        assert inputs[0].shape[0] == batch
        if batch > fits:
            raise DoesNotFit(f"Linear oom in the phase measure: OutOfMemory: {error or 'memory ran out'}")
        value = top * batch / (batch + half)
        values = {"latency_ms": 1e3 * batch / value, "throughput_per_s": value, "peak_memory_bytes": 100.0 * batch}
        rows = [{"metric": m, "value": values[m], "low": 0.99 * values[m], "high": 1.01 * values[m]} for m in metrics]
        return pandas.DataFrame(rows)

    monkeypatch.setattr(batching, "measure", measure)
    return asked


def test_memory_is_a_line_and_the_largest_batch_is_run_before_it_is_named(monkeypatch):
    asked = machine(monkeypatch)
    weights, sample = 4 * 8 * 4, (4 + 8) * 4
    frame = bench.largest_batch(MODULE, torch.randn(3, 4), limit_bytes=weights + 100 * sample)
    assert frame.attrs["growth"] == (weights, sample) and frame.attrs["largest"] == 100
    assert frame["batch"].tolist() == [1, 2, 4, 8, 16, 32, 64, 100]
    assert asked[-1] == (100, ("peak_memory_bytes",))
    assert frame["state"].tolist() == ["timed"] * 7 + ["fits"]
    # 1000 b / (b + 4): 500 at 4, 667 at 8, 800 at 16, 889 at 32 (+11 %), 941 at 64 (+6 %)
    assert frame.attrs["bend"] == 32 and frame.attrs["best"] == 64
    told = repr(frame)
    assert "largest  100" in told and "best     64 is the smallest that cannot be told from the fastest" in told
    assert "bend     32, beyond which no doubling gains a tenth" in told
    assert "memory   128\N{NO-BREAK SPACE}B and 48.0" in told
    assert told.splitlines()[-5].startswith("100") and "largest  100" in frame._repr_html_()


def test_a_batch_that_does_not_fit_although_it_should_is_made_smaller(monkeypatch):
    machine(monkeypatch, fits=90)
    weights, sample = 4 * 8 * 4, (4 + 8) * 4
    frame = bench.largest_batch(MODULE, torch.randn(1, 4), limit_bytes=weights + 100 * sample)
    assert frame.attrs["largest"] == 85
    assert frame.set_index("batch")["state"].loc[[64, 85, 100]].tolist() == ["timed", "fits", "does not fit"]


def test_timing_ends_where_two_doublings_gain_nothing(monkeypatch):
    asked = machine(monkeypatch, half=0.0)
    frame = bench.largest_batch(MODULE, torch.randn(1, 4), limit_bytes=1e9, most=512)
    assert [batch for batch, metrics in asked if len(metrics) > 1] == [1, 2, 4]
    assert frame.attrs["largest"] == 512 and frame.attrs["best"] == 1 and frame.attrs["bend"] == 1


def test_not_one_sample_is_an_error_that_says_what_it_takes():
    with pytest.raises(UsageError, match="not one sample fits"):
        bench.largest_batch(MODULE, torch.randn(1, 4), limit_bytes=10)


def test_other_failures_are_no_lack_of_memory(monkeypatch):
    def broken(*_, **__):
        raise BenchError("Linear crashed in the phase measure: ValueError: no room for it")

    monkeypatch.setattr(batching, "measure", broken)
    with pytest.raises(BenchError, match="crashed"):
        bench.largest_batch(MODULE, torch.randn(1, 4), limit_bytes=1e6)


def test_samples_are_repeated_and_other_inputs_stay():
    search = batching._Search(MODULE, torch.arange(12.0).reshape(3, 4), {"scale": torch.tensor(2.0)}, "cpu", {})
    (x,), kwargs = search.inputs(5)
    assert torch.equal(x[3:], x[:2]) and x.shape == (5, 4) and kwargs["scale"] == 2


def test_the_job_prints_the_table_and_keeps_it(monkeypatch, tmp_path, capsys):
    machine(monkeypatch)
    monkeypatch.setattr(batching, "_free", lambda device: 1e6)
    assert batches.run(configuration(tmp_path, [HEALTHY])) == 0
    said = capsys.readouterr().out
    assert [w for w in ("samples/s", "largest  ", "smallest that cannot be told from") if w not in said] == []
    (kept,) = (tmp_path / "results").glob("batches_*.csv")
    assert pandas.read_csv(kept)["batch"].tolist()[:3] == [1, 2, 4]


def test_the_job_is_for_one_network(tmp_path):
    with pytest.raises(UsageError, match="2 are named"):
        batches.run(configuration(tmp_path, [HEALTHY, f"{HEALTHY}(width=9)"]))


@pytest.mark.slow
def test_a_real_search():
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    frame = bench.largest_batch(net, torch.randn(2, 64), limit_bytes=400_000, most=64)
    assert frame.attrs["largest"] == 64 or frame["state"].iloc[-1] in ("fits", "timed")
    timed = frame[frame["state"] == "timed"]
    assert (timed["throughput_per_s"] > 0).all() and (timed["peak_bytes"] <= 1.01 * timed["expected_bytes"]).all()
