"""Orders are permutations with their inverses, as written; scans along them are what a loop over positions gives."""

import pytest
import torch

from suites.ssm.orders import BOTH_WAYS, CROSS, Orders, paths, subgrids
from suites.ssm.ss2d import PathScan


def test_the_four_paths_of_a_small_map():
    assert paths(2, 3, CROSS).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]
    assert paths(2, 3, BOTH_WAYS).tolist() == [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]


def test_the_four_subgrids_of_a_small_map():
    # 0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15
    assert subgrids(4, 4, False).tolist() == [[0, 2, 8, 10], [4, 12, 6, 14], [1, 3, 9, 11], [5, 13, 7, 15]]
    assert subgrids(4, 4, True).tolist() == [[0, 2, 8, 10], [4, 6, 12, 14], [1, 3, 9, 11], [5, 7, 13, 15]]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 6), (7, 3)])
def test_paths_hold_every_position_once(height, width):
    for path in paths(height, width, CROSS):
        assert sorted(path.tolist()) == list(range(height * width))


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 6), (8, 2)])
@pytest.mark.parametrize("straight", [True, False])
def test_subgrids_together_hold_every_position_once(height, width, straight):
    assert sorted(subgrids(height, width, straight).flatten().tolist()) == list(range(height * width))


@pytest.mark.parametrize("raster4", [True, False])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3), (1, 1), (2, 7)])
def test_what_is_taken_apart_comes_back_summed_at_step_1_and_once_at_step_2(height, width, raster4):
    x = torch.randn(2, height, width, 3)
    for step, times in ((1, 4), (2, 1)):
        orders = Orders(CROSS, step, raster4)
        apart = orders.apart(x)
        assert apart.shape == (4, 2, orders.length(height, width), 3)
        assert torch.allclose(orders.together(apart, height, width), times * x, atol=1e-6)


def by_loop(module, x):
    """Sequence by sequence, position by position, written without any permutation."""
    height, width = x.shape[1:3]
    total = torch.zeros_like(x)
    walks = {
        "raster": [(i, j) for i in range(height) for j in range(width)],
        "columns": [(i, j) for j in range(width) for i in range(height)],
    }
    for k, name in enumerate(module.orders.names):
        walk = walks[name.removesuffix("_back")]
        walk = walk[::-1] if name.endswith("_back") else walk
        sequence = torch.stack([x[:, i, j] for i, j in walk], dim=1)
        everything = torch.stack([sequence] * len(module.orders.names))
        y = module.selective(everything)[k]
        for place, (i, j) in enumerate(walk):
            total[:, i, j] += y[:, place]
    return total


def by_parity(module, x):
    height, width = x.shape[1:3]
    total = torch.zeros_like(x)
    padded = torch.nn.functional.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    high, wide = padded.shape[1:3]
    for k, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        places = [(i, j) for i in range(row, high, 2) for j in range(column, wide, 2)]
        places = sorted(places, key=lambda p: (p[1], p[0])) if row else places
        y = module.selective(torch.stack([torch.stack([padded[:, i, j] for i, j in places], dim=1)] * 4))[k]
        for place, (i, j) in enumerate(places):
            if i < height and j < width:
                total[:, i, j] += y[:, place]
    return total


@pytest.mark.parametrize("side", [(4, 4), (5, 3)])
def test_a_scan_along_paths_is_what_a_loop_over_positions_gives(side):
    x = torch.randn(2, *side, 6, dtype=torch.float64)
    for names in (CROSS, BOTH_WAYS):
        module = PathScan(6, 3, 2, Orders(names, 1, False), "sequential").double()
        assert torch.allclose(module(x), by_loop(module, x), atol=1e-10)
    module = PathScan(6, 3, 2, Orders(CROSS, 2, False), "sequential").double()
    assert torch.allclose(module(x), by_parity(module, x), atol=1e-10)


def test_moved_bytes_are_16_k_d_l_and_a_quarter_of_it_at_step_2():
    moved = {step: PathScan(6, 3, 2, Orders(CROSS, step, False), "parallel").moves((5, 8, 8, 6)) for step in (1, 2)}
    assert moved == {1: 16 * 4 * 6 * 64, 2: 16 * 4 * 6 * 16}
    assert Orders(CROSS, 1, True).moved_bytes(8, 8, 6) == 0
