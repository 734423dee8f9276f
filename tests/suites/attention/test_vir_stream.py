"""A stream of retention blocks: each step is the parallel pass at its place, from a state that does not grow."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from suites.attention import vir_stream as file
from suites.attention.vir_stream import vir_stream
from tests.suites.conftest import spread


def test_steps_give_the_parallel_pass_and_the_state_keeps_its_size():
    model = spread(vir_stream(width=24, heads=3, depth=2))
    clip, state, out = model.example_clip(2, 11), model.init(2), []
    with torch.no_grad():
        for place in range(11):
            y, state = model.step(clip[:, place], state)
            out.append(y)
            assert sum(s.numel() * 4 for s in state) == 2 * file.state_bytes(24, 3, 2) == 2 * 2 * 24 * 8 * 4
        whole = model.offline(clip)
    assert torch.allclose(torch.stack(out, dim=1), whole, atol=1e-5)
    assert (whole - clip).abs().max() > 0.1


def test_executed_products_of_a_step_are_the_closed_form():
    model = vir_stream(width=24, heads=3, depth=2)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.step(model.example_clip(1, 1)[:, 0], model.init(1))
    assert counter.get_total_flops() // 2 == file.macs_per_step(24, 3, 2) == 2 * (12 * 24**2 + 2 * 24 * 8)


def test_a_width_that_does_not_divide_says_so():
    with pytest.raises(ValueError, match="multiple of heads"):
        vir_stream(width=16, heads=5)
