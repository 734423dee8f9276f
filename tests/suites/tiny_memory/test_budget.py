"""Searches under a budget: by hand, and with the peaks of real steps."""

import torch
from torch import nn

from suites.common.checkpointing import checkpoint
from suites.tiny_memory.budget import largest, step_peak
from suites.tiny_memory.reversible import reversible
from suites.tiny_memory.reversible_unet import Level, saved_bytes, transient_bytes


def test_the_largest_size_is_the_last_that_fits():
    assert largest([1, 2, 3, 4], lambda size: size * size, 9) == 3
    assert largest([1, 2, 3], lambda size: 10, 9) is None
    assert largest([1, 3, 2], lambda size: {1: 1, 3: 20, 2: 2}[size], 9) == 1


def test_the_peak_of_a_step_by_hand():
    net = nn.Linear(4, 4, bias=False)
    # 64 B each: y, the gradient of y^2, 2 y and their product; at most one more on the way; two numbers of the mean
    assert 4 * 64 <= step_peak(net, torch.randn(4, 4)) <= 5 * 64 + 8
    assert net.weight.grad is None


def level(how, couplings, width=8):
    torch.manual_seed(0)
    net = Level(width, couplings, 2)
    return {"ordinary": lambda net: net, "checkpoint": checkpoint, "reversible": reversible}[how](net)


def test_live_peaks_grow_with_depth_unless_inputs_are_rebuilt():
    x = torch.randn(1, 8, 8, 8, 8)
    peaks = {(how, n): step_peak(level(how, n), x) for how in ("ordinary", "checkpoint", "reversible") for n in (2, 6)}
    grown = {how: peaks[how, 6] - peaks[how, 2] for how in ("ordinary", "checkpoint", "reversible")}
    slack = 4 * 4 * 2 * sum(part.numel() for part in level("ordinary", 1).parameters())  # gradients and statistics
    for how, growth in grown.items():
        formula = saved_bytes(8, 2, 512, 6, how) - saved_bytes(8, 2, 512, 2, how)
        assert abs(growth - formula) <= slack, how
    assert peaks["reversible", 6] <= saved_bytes(8, 2, 512, 6, "reversible") * 4 + transient_bytes(8, 2, 512) + slack


def test_more_couplings_fit_into_the_budget_of_ordinary_ones():
    x = torch.randn(1, 8, 8, 8, 8)
    budget = step_peak(level("ordinary", 3), x)
    depth = {how: largest(range(1, 13), lambda n, how=how: step_peak(level(how, n), x), budget)
             for how in ("ordinary", "reversible")}  # fmt: skip
    assert depth == {"ordinary": 3, "reversible": 12}
