"""Memory of parts: what a part finds alive counts once, what it makes is its own."""

import torch
from torch import nn

from bench.meters import memory
from bench.workloads.counting import part_call
from tests.workloads.subjects import Denoiser, FakeBuilt, Writer, parts_of, subject_of


def peak(workload, subject, name, **shape):
    parts, _ = parts_of(workload, subject, **shape)
    with part_call(subject.module, parts[name]) as call:
        return memory.measure(call, call.inputs())


def test_a_cache_that_is_written_in_place_counts_once():
    subject = subject_of(Writer)
    found = peak("generate", subject, "decode", batch=2, context=6, new_tokens=2)
    assert found.split["weights"] == 4 * 2 * 22
    assert found.split["inputs"] == 4 * 2 * 64 * 2 + 8 * 2  # the cache of two sequences, and an id of each


def test_a_backward_finds_what_its_forward_saved_and_makes_the_gradients():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 128, bias=False), nn.Tanh(), nn.Linear(128, 32, bias=False))
    subject = FakeBuilt(module, (torch.randn(16, 64),))
    found = peak("training_step", subject, "backward", batch=16)
    weights = 4 * (64 * 128 + 128 * 32)
    assert found.split["weights"] == weights
    batch, states = 4 * 16 * 64 + 8 * 16, 2 * weights + 2 * 4
    saved = 4 * (16 * 128 + 16 * 32) + 4  # after the tanh, log-probabilities, and the total weight of the classes
    assert found.split["inputs"] == batch + states + saved
    made = found.peak_bytes - sum(found.split[name] for name in ("weights", "buffers", "inputs"))
    assert weights <= made <= weights + 2 * 4 * (16 * 128 + 16 * 32)


def test_a_part_that_is_watched_again_has_the_same_peak():
    subject = subject_of(Writer)
    first = peak("generate", subject, "request", context=6, new_tokens=4)
    again = peak("generate", subject, "request", context=6, new_tokens=4)
    assert first.peak_bytes == again.peak_bytes and first.split == again.split


def test_what_is_counted_apart_is_held_in_memory_all_the_same():
    subject = subject_of(Denoiser)
    parts, _ = parts_of("sample", subject, steps=2, batch=512)
    peaks = {}
    for counted in (True, False):
        with part_call(subject.module, parts["image"], counted=counted) as call:
            peaks[counted] = memory.measure(call, call.inputs()).peak_bytes
    assert peaks[False] - 4 * 512 * (4 + 3) > peaks[True] - 4 * 512 * (4 + 3 + 4)  # the decoder's output is the largest
