"""Checkpointing of any network of blocks: the same numbers and gradients, fewer bytes, and segments as asked."""

import copy

import pytest
import torch
from torch import nn

from suites.common.checkpointing import Segment, checkpoint
from suites.common.digits_cnn import digits_cnn
from suites.common.vit import vit
from tests.saved_bytes import saved_bytes


def net():
    torch.manual_seed(0)
    return vit(width=16, heads=2, depth=5, patch=4, resolution=16, classes=3).train()


@pytest.mark.parametrize("settings, segments", [({}, 5), ({"every": 2}, 3), ({"every": 9}, 1), ({"sqrt": True}, 3)])
def test_segments_hold_all_blocks_in_order_and_change_nothing(settings, segments):
    plain = net()
    (x,) = plain.example_inputs(2)
    made = checkpoint(copy.deepcopy(plain), **settings)
    assert len(made.blocks) == segments and all(isinstance(part, Segment) for part in made.blocks)
    kept = []
    for each in (plain, made):
        size, out = saved_bytes(lambda each=each: each(x), [*each.parameters(), x])
        kept.append(size)
        out.square().sum().backward()
    for a, b in zip(plain.parameters(), made.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert kept[1] < kept[0] / 2


def test_what_would_count_statistics_twice_or_has_no_blocks_is_refused():
    with pytest.raises(ValueError, match="none"):
        checkpoint(digits_cnn(width=4))
    owner = nn.Module()
    owner.blocks = nn.ModuleList([nn.BatchNorm2d(2)])
    with pytest.raises(ValueError, match="twice"):
        checkpoint(owner)
