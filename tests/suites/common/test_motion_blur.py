"""Motion blur: lines that sum to one, and tiles that are smeared along them."""

import math

import pytest
import torch

from suites.common.tasks.motion_blur import LENGTH, MotionBlur, line_kernel


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
def test_a_line_sums_to_one_and_lies_in_its_middle(angle):
    kernel = line_kernel(angle)
    assert kernel.shape == (LENGTH, LENGTH) and kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1)
    places = torch.arange(LENGTH, dtype=torch.float)
    assert (kernel.sum(1) @ places).item() == pytest.approx(LENGTH // 2, abs=1e-4)
    torch.testing.assert_close(kernel, kernel.flip(0, 1), atol=1e-5, rtol=0)


def test_a_level_line_is_a_row():
    kernel = line_kernel(0.0)
    assert kernel[LENGTH // 2].sum().item() == pytest.approx(1)
    assert kernel[LENGTH // 2, 1:-1].std() < 0.02


def test_held_out_tiles_are_blurred_alike_every_time_and_flat_ones_stay(tmp_path):
    task = MotionBlur(tmp_path, seed=0)
    first, second = (next(iter(task.batches(4))) for _ in range(2))
    assert torch.equal(first[0], second[0]) and first[0].shape == first[1].shape
    assert (first[0] - first[1]).abs().mean() > 1e-3
    assert first[0].var() < first[1].var()
    flat = torch.full((2, 3, 16, 16), 0.4)
    torch.testing.assert_close(task._spoiled(flat, torch.Generator().manual_seed(0)), flat)
    assert task.recipe()["line"] == LENGTH
