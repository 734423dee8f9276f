"""digit_mosaics: a mosaic is one digit in every cell, and cells that do not agree are further from real ones."""

import pytest
import torch

from bench.meters import quality
from suites.common import digits_data
from suites.common.dit import dit
from suites.common.rectified_flow import FlowModel
from suites.common.task import TaskError
from suites.common.tasks.digit_images import Training, pictures
from suites.common.tasks.digit_mosaics import DigitMosaics, cells_of, mosaics
from suites.diffusion.mosaic_dit import mosaic_dit

QUICK = {"training": Training(steps=2, batch=4), "samples": 70, "seeds": 2, "judge_steps": 160}


class Copyist(FlowModel):
    """Its velocity leads straight to digits of the class asked for: one of them in all cells, or another in each."""

    resolution, channels, classes = 32, 1, 10

    def __init__(self, agree):
        super().__init__()
        index, labels = digits_data.split()[0], digits_data.labels(digits_data.split()[0])
        known = [pictures(index[labels == digit][:96], 8) for digit in range(10)]  # six pictures, or six sixteens
        drawn = [mosaics(each[:6]) if agree else self.mixed(each) for each in known]
        self.shown = torch.nn.Parameter(torch.stack(drawn))

    @staticmethod
    def mixed(digits):
        rows = digits.unflatten(0, (-1, 4, 4)).permute(0, 3, 1, 4, 2, 5)
        return rows.reshape(-1, 1, 32, 32)

    def velocity(self, x, t, classes):
        which = (x.mean(dim=(1, 2, 3)) * 1000).round().long() % 6  # the noise says which of them
        return (x - self.shown[classes, which]) / t[:, None, None, None]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    made = DigitMosaics(tmp_path_factory.mktemp("cache"), 0, **QUICK)
    made._spread = [1.0, 1.5]
    return made


def test_cells_of_a_mosaic_are_the_digit_row_by_row():
    still = torch.randn(3, 1, 8, 8)
    cells = cells_of(mosaics(still)).unflatten(0, (3, 16))
    assert torch.equal(cells, still[:, None].expand(-1, 16, -1, -1, -1))
    ramp = torch.arange(32.0 * 32).view(1, 1, 32, 32)
    assert torch.equal(cells_of(ramp)[5, 0], ramp[0, 0, 8:16, 8:16])


def test_cells_that_disagree_are_further_from_real_mosaics(task):
    one, many = (quality.measure(Copyist(agree), task, batch=35, shape={"steps": 1}) for agree in (True, False))
    assert one.also[0].value > 80 and one.value < many.value


def test_a_small_network_learns_mosaics_and_other_sizes_are_refused(task):
    def build():
        torch.manual_seed(0)
        return mosaic_dit(width=8, heads=2, depth=1, patch=4)

    notes = task.prepare("tiny", build)
    assert len(notes["test_frechet"]) == 2 and notes["train_loss"] > 0
    with pytest.raises(TaskError, match="take mosaic_dit"):
        task.fits(dit(), "digit_dit")
