"""CBNet: an autoencoder turns images into easy ones of their class for a network that is cut short (arXiv 2403.07036).

B-LeNet is trained first; a training image is easy if it leaves at the first exit. The autoencoder learns to map every
image to a random easy one of its class. What stays is the autoencoder and B-LeNet up to its first exit: every input
pays the same. Reconstruction: the paper's layer table could not be read; ours is an MLP 784-256-64-784.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, Positive
from suites.common.training import Pace, fit
from suites.dynamic.jei_dnn import _entropy
from suites.dynamic.learning import BATCH, digits_parts, remembered, with_cost_of
from suites.dynamic.lenet import BLeNet, as_lenet, learn_both

PIXELS = 784
#: Weight of the codes' absolute values in the loss.
CODE_PENALTY = 1e-8


def cbnet(
    model: nn.Module,
    *,
    hidden: Blocks | None = None,
    threshold: Positive = 0.05,
    retrain: bool = True,
    convert: bool = True,
    training_steps: Count = 0,
) -> CBNet:
    """LeNet cut at B-LeNet's first exit, behind the converting autoencoder.

    Args:
        model: lenet.
        hidden: widths between 784 and 784; None for 256 and 64.
        threshold: T of the B-LeNet that says which images are easy.
        retrain: whether the short network learns converted images afterwards, or stays as B-LeNet had it.
        convert: False leaves the autoencoder out: the first exit alone, which is the control.
        training_steps: of B-LeNet, of the autoencoder and of the short network each; 0 leaves all random.

    Raises:
        ValueError: another network, or nothing to train on.
    """
    main = as_lenet(model, "cbnet")
    both = BLeNet(main, threshold, "compact", None)
    network = CBNet(both, list(hidden or (256, 64)), convert)
    network.to(main.front.weight)
    if not training_steps:
        network.untrained = "cbnet's autoencoder starts at random: set training_steps, on a model with a task"  # type: ignore[assignment]
        return network.eval()
    learn_both(both, model, training_steps)
    settings = {
        "hidden": list(hidden or (256, 64)), "threshold": threshold, "retrain": retrain, "convert": convert,
        "steps": training_steps,
    }  # fmt: skip
    found = remembered(model, cbnet, settings, lambda task: _learn(network, both, task, retrain, training_steps))
    network.load_state_dict(found)
    network.learned = {"method": "cbnet", **settings}  # type: ignore[assignment]
    with_cost_of(network, model)
    return network.eval()


class CBNet(nn.Module):
    """Autoencoder, first convolution and first exit: logits [batch, 10] of images [batch, 1, 28, 28]."""

    def __init__(self, both: BLeNet, hidden: list[int], convert: bool):
        super().__init__()
        self.resolution, self.channels, self.classes = 28, 1, 10
        widths = [PIXELS, *hidden, PIXELS]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        self.encoder = nn.Sequential(*layers[:-1]) if convert else None
        self.front, self.branch = both.main.front, both.branch

    def convert(self, images: Tensor) -> Tensor:
        """Images as the short network is given them, of the same shape."""
        return images if self.encoder is None else self.encoder(images.flatten(1)).view_as(images)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.branch(self.front(self.convert(images)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 1, 28, 28).to(self.front.weight),)


def easy(both: BLeNet, images: Tensor) -> Tensor:
    """Which images leave at the first exit, [n] bool."""
    with torch.no_grad():
        return _entropy(both.branch(both.main.front(images)).softmax(dim=-1)) < both.threshold


def breakeven(hidden: tuple[int, ...] = (256, 64)) -> float:
    """Share of samples at B-LeNet's first exit above which B-LeNet makes fewer products than CBNet."""
    own = sum(a * b for a, b in pairwise((PIXELS, *hidden, PIXELS)))
    return 1 - own / 1_027_570


def _learn(network: CBNet, both: BLeNet, task: Any, retrain: bool, steps: int) -> dict[str, Tensor]:
    (images, labels), _ = digits_parts(task)
    are_easy = easy(both, images)
    groups = [((labels == c) & are_easy).nonzero()[:, 0] for c in range(10)]
    # a class without easy images is mapped to any of its own
    groups = [g if len(g) else (labels == c).nonzero()[:, 0] for c, g in enumerate(groups)]

    def batches() -> Any:
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            pick = torch.randint(len(labels), (BATCH,), generator=generator)
            drawn = [groups[c][int(torch.randint(len(groups[c]), (1,), generator=generator))] for c in labels[pick]]
            yield images[pick], images[torch.stack(drawn)]

    def apart(given: Tensor, wanted: Tensor) -> Tensor:
        assert network.encoder is not None
        code = network.encoder[:-1](given.flatten(1))
        made = network.encoder[-1](code).view_as(given)
        return F.mse_loss(made, wanted) + CODE_PENALTY * code.abs().sum(dim=1).mean()

    if network.encoder is not None:
        fit(network.encoder, batches(), apart, Pace(steps, 3e-3))
    if retrain:
        network.requires_grad_(True)
        if network.encoder is not None:
            network.encoder.requires_grad_(False)
        fit(
            network, task.training_batches(BATCH, steps, 2), lambda x, y: F.cross_entropy(network(x), y),
            Pace(steps, 1e-3),
        )  # fmt: skip
    return network.requires_grad_(True).state_dict()
