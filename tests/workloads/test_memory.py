"""Memory of parts: what a part finds alive counts once, what it makes is its own."""

import torch
from torch import nn

from bench.meters import memory
from bench.workloads.counting import part_call
from tests.saved_bytes import saved_bytes
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


def learner():
    """Two products of 64 x 128 and 128 x 32 on 16 samples, and the bytes of their weights."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 128, bias=False), nn.Tanh(), nn.Linear(128, 32, bias=False))
    return FakeBuilt(module, (torch.randn(16, 64),)), 4 * (64 * 128 + 128 * 32)


def test_gradients_and_optimizer_state_are_told_apart_in_a_backward_and_what_it_frees_is_gone():
    """At the last product both gradients are there and that of the tanh; what the forward saved is gone by then."""
    subject, weights = learner()
    found = peak("training_step", subject, "backward", batch=16)
    assert found.split["weights"] == weights == found.split["gradients"]
    assert found.split["optimizer"] == 2 * weights + 2 * 4  # two moments, and a step count of each tensor
    assert found.split["inputs"] == 4 * 16 * 64 + 8 * 16
    assert found.split["activations"] == 0 and 4 * 16 * 128 <= found.split["temporaries"] <= 4 * 16 * 128 + 8
    # what passes is most a moment before: the tanh's output, and the gradients of its output and of its input
    assert 0 <= found.peak_activation_bytes - (found.split["inputs"] + 3 * 4 * 16 * 128) <= 8


def test_what_a_forward_saved_is_there_when_its_backward_begins():
    """A backward of one small product: its largest moment is the first, with the hidden values of the wide layer."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 512, bias=False), nn.Tanh(), nn.Linear(512, 1, bias=False))
    module[0].requires_grad_(False)
    module.loss = lambda outputs, targets: outputs.sum()
    found = peak("training_step", FakeBuilt(module, (torch.randn(64, 2),)), "backward", batch=64)
    assert found.split["activations"] == 4 * 64 * 512  # of the tanh, which the product's gradient needs
    assert found.split["gradients"] == 4 * 512 == found.split["optimizer"] / 2 - 2


def test_a_whole_step_has_its_optimizer_s_temporaries_at_the_peak():
    subject, weights = learner()
    found = peak("training_step", subject, "step", batch=16)
    assert found.split["gradients"] == weights and found.split["optimizer"] == 2 * weights + 2 * 4
    assert found.split["temporaries"] >= 4 * 64 * 128  # the root of the second moment of the largest tensor


def test_the_activations_of_a_step_are_those_of_its_forward_though_the_optimizer_reaches_the_peak():
    subject, _ = learner()
    step, forward = (peak("training_step", subject, name, batch=16) for name in ("step", "forward"))
    assert step.split["temporaries"] > 0 and step.split["activations"] == 4  # the optimizer's peak, and the loss
    kept, _ = saved_bytes(lambda: subject.module(*subject.args).sum(), without=list(subject.module.parameters()))
    assert step.peak_activation_bytes >= forward.peak_activation_bytes > kept == 4 * 16 * (64 + 128)


def test_plain_descent_without_momentum_has_gradients_and_no_state():
    subject, weights = learner()
    module = subject.module
    module.make_optimizer = lambda: torch.optim.SGD(module.parameters(), lr=0.1)
    found = peak("training_step", subject, "optimizer", batch=16)
    assert found.split["gradients"] == weights and found.split["optimizer"] == 0


def test_no_other_workload_has_gradients():
    assert "gradients" not in peak("generate", subject_of(Writer), "decode", context=6, new_tokens=2).split


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
