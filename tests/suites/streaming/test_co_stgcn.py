"""co_stgcn: a skeleton network step by step, with its strides and without; products of the published sizes."""

import itertools

import pytest
import torch

from suites.streaming import closed_forms
from suites.streaming.stgcn import co_stgcn, stgcn
from tests.suites.streaming.walk import difference, macs, step_macs, walked

SMALL = {"frames": 6, "kernel": 3, "persons": 1, "joints": 3, "classes": 4}


@pytest.mark.parametrize("strided, strides, period", [(True, "keep", 4), (True, "drop", 1), (False, "keep", 1)])
def test_steps_are_the_valid_network(strided, strides, period):
    torch.manual_seed(0)
    stream = co_stgcn(stgcn(**SMALL, strided=strided), strides=strides, pool=2)
    sequence = stream.net.example_clip(1, 62)
    assert stream.period == period and difference(stream, sequence) < 1e-5
    outputs, _ = walked(stream, sequence)
    places = [place for place, output in enumerate(outputs) if output is not None]
    assert places[0] == stream.first_output and {b - a for a, b in itertools.pairwise(places)} == {period}
    at = stream.first_output + 1
    found = sum(step_macs(stream, sequence, place) for place in range(at, at + period))
    settings = {**SMALL, "strided": strided}
    assert found == closed_forms.co_stgcn(settings, {"strides": strides})
    assert macs(lambda: stream.net.offline(sequence[:, :6])) == closed_forms.clip(settings, {})


def test_the_star_form_looks_81_frames_back_and_counts_as_published():
    with torch.device("meta"):
        stream = co_stgcn(stgcn(), strides="drop", pool=1)
    assert stream.receptive_field == 81
    # 300 x 5,956,800 of the first layers, 150 x 17,139,200 and 75 x 55,846,400 behind the strides, for two persons
    assert closed_forms.clip({"strided": True}, {}) == 17_092_800_000 + 15_360
    # 157 884 800 of layers, and 256 x 60 of the classifier
    assert closed_forms.co_stgcn({"strided": True}, {"strides": "drop"}) == 157_884_800 + 15_360
