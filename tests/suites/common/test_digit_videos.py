"""digit_videos: real videos move and come back, who shows them scores like real ones, frames have to agree."""

import pytest
import torch

from bench.meters import quality
from suites.common import digits_data
from suites.common.dit import dit
from suites.common.rectified_flow import FlowModel, flow_loss
from suites.common.task import TaskError
from suites.common.tasks.digit_images import Training, pictures
from suites.common.tasks.digit_videos import DigitVideos, moving, stilled
from suites.common.video_dit import video_dit

QUICK = {"training": Training(steps=2, batch=4), "samples": 70, "seeds": 2, "judge_steps": 160}


class Projector(FlowModel):
    """Its velocity leads straight to a digit of the class that is asked for, which moves, or does not."""

    resolution, channels, classes, frames = 8, 1, 10, 4

    def __init__(self, moves):
        super().__init__()
        index = digits_data.split()[0]
        first = torch.stack([index[digits_data.labels(index) == digit][0] for digit in range(10)])
        still = pictures(first, 8)
        self.shown = torch.nn.Parameter(moving(still, 4) if moves else still[:, :, None].expand(-1, -1, 4, -1, -1))

    def velocity(self, x, t, classes):
        return (x - self.shown[classes]) / t[:, None, None, None, None]

    def example_noise(self, batch, seed):
        return torch.zeros(batch, 1, 4, 8, 8)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    made = DigitVideos(tmp_path_factory.mktemp("cache"), 0, **QUICK)
    made._spread = [1.0, 1.5]
    return made


def test_a_digit_moves_by_one_pixel_a_frame_and_round_the_edge():
    still = torch.arange(16.0).view(1, 1, 4, 4)
    video = moving(still, 6)
    assert video.shape == (1, 1, 6, 4, 4)
    assert video[0, 0, 1, 0].tolist() == [3.0, 0.0, 1.0, 2.0] and torch.equal(video[:, :, 4], still)
    assert torch.equal(stilled(video), still[:, :, None].expand(-1, -1, 6, -1, -1))


def test_videos_that_move_are_seen_right_and_those_that_stand_are_further_from_real_ones(task):
    moves, stands = (quality.measure(Projector(each), task, batch=35, shape={"steps": 2}) for each in (True, False))
    assert moves.also[0].value > 80
    assert moves.value < stands.value
    assert task.floor() < moves.value


def test_real_videos_are_to_the_judge_what_real_pictures_are(task):
    index = digits_data.split()[1][:20]
    assert torch.allclose(task.features(task.real(index)), task.judge().features(pictures(index)), atol=1e-5)


def test_a_small_network_of_videos_learns_and_pictures_are_refused(task):
    def build():
        torch.manual_seed(0)
        return video_dit(width=8, heads=2, depth=1, frames=3)

    notes = task.prepare("tiny", build)
    assert len(notes["test_frechet"]) == 2 and notes["train_loss"] > 0
    with pytest.raises(TaskError, match="take digit_video"):
        task.fits(dit(), "digit_dit")


def test_the_loss_of_a_flow_notes_each_video_s_own_time():
    seen = []

    class Sees(torch.nn.Module):
        classes = 10

        def forward(self, x, t, classes):
            seen.append((x, t))
            return torch.zeros_like(x)

    flow_loss(Sees(), torch.Generator().manual_seed(0))(torch.ones(3, 1, 2, 4, 4), torch.zeros(3, dtype=torch.long))
    generator = torch.Generator().manual_seed(0)
    t = torch.sigmoid(torch.randn(3, generator=generator))
    e = torch.randn(3, 1, 2, 4, 4, generator=generator)
    x, told = seen[0]
    assert torch.equal(told, t)
    for own, place, noise in zip(x, t, e, strict=True):
        assert torch.allclose(own, (1 - place) + place * noise)
