"""A process that counts ends early where counts take long, with what it has found, and never with nothing."""

import pytest
import torch
from torch import nn

from bench.meters import macs
from bench.testing import Subject
from bench.worker import count
from bench.workloads import generate


class Silent:
    """A phase that tells nobody."""

    name = "start"

    def enter(self, name, case=None):
        self.name = name


@pytest.mark.parametrize(("enough", "counted"), [(0.0, 1), (600.0, 2)])
def test_a_process_begins_no_count_after_enough_seconds(monkeypatch, enough, counted):
    monkeypatch.setattr(count, "ENOUGH_S", enough)
    widths = [{"model": "digits_mlp", "method": f"tests.worker.test_told:told(width={width})"} for width in (4, 5)]
    recipes = [Subject("told", workload="forward", **words).recipe() for words in widths]
    found = count.run({"recipes": [item.as_dict() for item in recipes], "protocol": {}}, Silent())
    assert list(found["cases"]) == [item.case.key for item in recipes][:counted]
    assert all(case["status"] == "ok" for case in found["cases"].values())


@pytest.mark.parametrize(
    ("model", "method"),
    [("byte_moe", "none"), ("byte_3m", "sliding_window(sinks=2,window=8)"), ("byte_3m", "uniform_cache(bits=4)")],
)
def test_a_request_of_two_tokens_counts_as_its_trace_does(monkeypatch, model, method):
    shape = {"batch": 2, "context": 16, "new_tokens": 2}
    recipe = Subject("decode", model=model, method=method, workload="generate", shape=shape).recipe()
    joined = count.counted(recipe, Silent())
    monkeypatch.setattr(generate, "_is_both", lambda writer, new: False)
    traced = count.counted(recipe, Silent())
    assert _told(joined) == _told(traced)
    assert joined["layers"] == traced["layers"]


def _told(found):
    """Readings by metric and part, flags, and the rows of operators."""
    readings = {(item["metric"], item["part"]): (item["value"], item["method_note"]) for item in found["readings"]}
    flags = sorted((item["code"], item["text"]) for item in found["flags"])
    return readings, flags, found["details"]["macs"]["operators"], found["details"]["macs"]["coverage"]


def test_what_two_runs_read_is_their_union():
    class Pick(nn.Module):
        """Reads one of two layers."""

        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 5, bias=False)])

        def forward(self, value, which):
            return self.layers[which](value)

    module = Pick()
    value = torch.ones(1, 3)
    counts = [macs.count(module, (value, which), second_count=False) for which in (0, 0, 1)]
    assert [item.parameters_read.count for item in counts] == [9, 9, 15]
    both = macs.joined(counts[:2], module)
    assert (both.parameters_read.count, both.macs) == (9, 18)
    assert macs.joined(counts, module).parameters_read.count == 24
