"""The digits learned in a fifth of the steps: for networks whose training step takes a second or more on a CPU."""

from __future__ import annotations

from pathlib import Path

from suites.common.tasks.digits import Digits, Training

STEPS, GROWN_STEPS, BATCH = 120, 30, 16


class BriefDigits(Digits):
    """Accuracy on the same held-out digits after 150 steps of 16; networks that are compared learn equally long."""

    name = "digits_brief"

    def __init__(self, cache: Path, seed: int):
        """Nothing is trained or read yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the order of the training images; the weights start from the model's own seed.
        """
        super().__init__(cache, seed, training=Training(steps=STEPS, grown_steps=GROWN_STEPS, batch=BATCH))
