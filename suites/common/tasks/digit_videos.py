"""Short videos that a sampler makes: a digit that moves round by one pixel a frame, judged as pictures of digits are.

Frames are 8 x 8 pixels. The judge of `digit_images` looks at every frame, moved back to where the first one is and
enlarged to its size, and its features and answers are averaged over the frames: a video whose frames do not agree is
far from real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common import digits_data as data
from suites.common.task import TaskError
from suites.common.tasks.digit_images import JUDGE_STEPS, SIDE, DigitImages, Training, pictures

#: Side of a frame.
FRAME_SIDE = 8


class DigitVideos(DigitImages):
    """Class-conditional videos by a sampler as the workload asks."""

    name = "digit_videos"

    def __init__(
        self,
        cache: Path,
        seed: int,
        *,
        training: Training | None = None,
        samples: int = 300,
        seeds: int = 3,
        judge_steps: int = JUDGE_STEPS,
    ):
        """Nothing is trained yet; the arguments are those of `DigitImages`."""
        how = training or Training(steps=800, batch=16)
        super().__init__(cache, seed, training=how, samples=samples, seeds=seeds, judge_steps=judge_steps)
        self._frames = 0

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module samples grey videos of 8 x 8 pixels of ten classes."""
        shape = tuple(getattr(module, name, None) for name in ("channels", "resolution", "classes"))
        if not hasattr(module, "frames") or shape != (1, FRAME_SIDE, data.CLASSES):
            raise TaskError(f'model "{model_name}" makes no videos of ten classes at 8 x 8 pixels: take digit_video')
        frames: Any = module.frames
        self._frames = int(frames)

    def training_batches(
        self, batch_size: int, steps: int, seed: int, *, at_half: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of random training videos and labels; all are at one size."""
        train_index, _ = data.split()
        still, labels = pictures(train_index, FRAME_SIDE), data.labels(train_index)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            pick = torch.randint(len(labels), (batch_size,), generator=generator)
            yield moving(still[pick], self._frames), labels[pick]

    def shape_of(self, module: Any) -> tuple[int, ...]:
        """The shape of one video."""
        return (1, int(module.frames), FRAME_SIDE, FRAME_SIDE)

    def real(self, index: Tensor) -> Tensor:
        """Videos of these digits; two frames say all, because the others repeat them."""
        return moving(pictures(index, FRAME_SIDE), 2)

    def features(self, samples: Tensor) -> Tensor:
        """The judge's features, averaged over frames."""
        return self._over_frames(self.judge().features, samples)

    def answers(self, samples: Tensor) -> Tensor:
        """The judge's logits, averaged over frames."""
        return self._over_frames(self.judge(), samples)

    @staticmethod
    def _over_frames(judge: Any, videos: Tensor) -> Tensor:
        frames = stilled(videos).transpose(1, 2).flatten(0, 1)
        seen = judge(F.interpolate(frames, size=(SIDE, SIDE), mode="bilinear", align_corners=False))
        return seen.unflatten(0, (len(videos), -1)).mean(dim=1)

    def describe(self) -> dict[str, Any]:
        """Name, what is compared, number of samples, hash of the data, the judge."""
        known = super().describe()
        return {**known, "preprocessing": {**known["preprocessing"], "frame": FRAME_SIDE, "pixels_a_frame": 1}}


def moving(still: Tensor, frames: int) -> Tensor:
    """Videos [n, 1, frames, side, side] whose frame f is the picture moved f pixels to the right, round the edge."""
    return torch.stack([still.roll(frame, dims=-1) for frame in range(frames)], dim=2)


def stilled(videos: Tensor) -> Tensor:
    """Videos whose frames are moved back to where the first one is."""
    return torch.stack([videos[:, :, frame].roll(-frame, dims=-1) for frame in range(videos.shape[2])], dim=2)
