"""Pairs of views show what their disparities say, and who knows these has no error."""

import pytest
import torch
from torch import nn

from bench.meters.quality import Run
from suites.common.task import TaskError
from suites.common.tasks import stereo


class Says(nn.Module):
    """Says given disparities, pair after pair, in shares of the largest one."""

    takes, size = "views", (16, 48)

    def __init__(self, task, more=0.0):
        super().__init__()
        most = stereo.MOST * self.size[1]
        self.said = iter([(apart[:, None] + more) / most for _, apart in task.batches(8)])

    def forward(self, views):
        return [next(self.said)]


def test_a_place_shows_what_lies_its_disparity_to_the_left_in_the_right_view():
    right = torch.arange(8.0).view(1, 1, 1, 8)
    apart = torch.tensor([[[0.0, 0.0, 1.0, 0.0, 2.0, 0.5, 0.0, 9.0]]])
    assert torch.allclose(stereo.rebuilt(right, apart), torch.tensor([[[[0, 1, 1, 3, 2, 4.5, 6, 0.0]]]]), atol=1e-5)


def test_true_disparities_have_the_least_loss_and_those_of_the_right_view_count_as_well():
    views, apart = stereo.pairs(2, (32, 96), 3)
    share = apart[:, None] / (stereo.MOST * 96)
    losses = [float(stereo.photometric(views, [(share + off / 8).clamp(0, 1)] * 4)) for off in (0, 1, -1)]
    assert losses[0] < 0.01 and min(losses[1:]) > 0.1
    flat = torch.full_like(share, 0.4)
    pattern = views[:, 1]  # one plane: then both views have the same disparities
    plane = torch.stack((stereo.rebuilt(pattern, torch.full((2, 32, 96), 0.4 * stereo.MOST * 96)), pattern), 1)
    assert (
        float(stereo.photometric(plane, [flat] * 8))
        < 0.1
        < float(stereo.photometric(plane, [flat] * 4 + [1 - flat] * 4))
    )


@pytest.mark.parametrize("more", [0.0, 2.5])
def test_the_score_is_the_distance_from_the_truth(tmp_path, more):
    task = stereo.Stereo(tmp_path, 0)
    module = Says(task, 0.0)
    task.fits(module, "m")
    found = task.score(Run(Says(task, more), batch=8))
    assert found.value == pytest.approx(more, abs=1e-4) and found.n == stereo.HELD_OUT
    assert found.details["constant"] > 0.3
    assert [each["code"] for each in found.flags] == (["no_better_than_plain"] if more else [])


def test_a_pair_does_not_depend_on_the_batch_that_it_comes_in():
    (whole, apart), (second, alone) = stereo.pairs(3, (16, 48), 7), stereo.pairs(1, (16, 48), 8)
    assert torch.equal(whole[1], second[0]) and torch.equal(apart[1], alone[0])


def test_a_network_of_pictures_is_refused(tmp_path):
    with pytest.raises(TaskError, match="pairs_ccnext"):
        stereo.Stereo(tmp_path, 0).fits(nn.Linear(2, 2), "m")
