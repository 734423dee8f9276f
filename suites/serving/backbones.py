"""Classifiers as named stages in order, so that they can be cut after any of them.

`split_digits` is ours: six blocks for 32 x 32 digits. The others are torchvision's and timm's: ResNet and DenseNet
(BottleFit's and the Entropic Student's teachers), RegNetY and a hybrid of ResNetV2 and ViT, with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.config.settings import PositiveInt
from bench.errors import did_you_mean
from suites.common import digits_data
from suites.common.checkpoint import load_checkpoint
from suites.common.pretrained import DEVIATION, MEAN, photograph_squares
from suites.common.timm_bridge import import_timm, timm_model
from suites.common.torchvision_models import torchvision_model

__all__ = ["Backbone", "as_backbone", "load_checkpoint", "split_backbone", "split_digits"]

#: ImageNet's, by which torchvision's networks were trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAYERS = ("layer1", "layer2", "layer3", "layer4")
#: The last stage of every backbone: pooling and classifier.
ANSWER = "answer"


@dataclass(frozen=True)
class Imitated:
    """After which stage a method's decoder ends, and what its decoder is like."""

    bottlefit: str = "layer2"
    entropic: str = "layer1"
    #: Channels of BottleFit's decoder as multiples of its target's, and of the Entropic Student's.
    decoder: Sequence[float] = (1, 1, 1, 1)
    synthesis: Sequence[float] = (2, 1, 1)
    #: Widths of the Entropic encoder as multiples of its last.
    analysis: Sequence[int] = (4, 2, 1)
    channels: int = 24
    pool: int = 1
    #: Channels of BottleFit's first convolution, at any resolution.
    stem: int = 64


class Backbone(nn.Module):
    """A classifier of named stages that runs whole, on one machine: the baseline `local`.

    Attributes:
        stages: in order; the last is `answer`.
        imitated: where methods cut it.
        mean, deviation: how pixels in 0..1 are brought to its range.
    """

    answers_on_device = True

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        *,
        resolution: int,
        channels: int = 3,
        classes: int = 1000,
        imitated: Imitated | None = None,
        mean: Sequence[float] = IMAGENET[0],
        deviation: Sequence[float] = IMAGENET[1],
    ):
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.resolution, self.channels, self.classes = resolution, channels, classes
        self.imitated = imitated or Imitated()
        self.mean, self.deviation = tuple(mean), tuple(deviation)

    @property
    def names(self) -> list[str]:
        """The stages in order."""
        return list(self.stages)

    def between(self, after: str | None, until: str | None = None) -> list[str]:
        """The stages after one of them (None: from the start) up to and with another (None: to the end).

        Raises:
            ValueError: there is no such stage; the message names those that there are.
        """
        for name in (after, until):
            if name is not None and name not in self.stages:
                raise ValueError(f'there is no stage "{name}"; {did_you_mean(name, self.names)}')
        first = 0 if after is None else self.names.index(after) + 1
        last = len(self.names) if until is None else self.names.index(until) + 1
        return self.names[first:last]

    def forward(self, images: Tensor, after: str | None = None, until: str | None = None) -> Tensor:
        """Logits [batch, classes] of images; or the map between two stages."""
        for name in self.between(after, until):
            images = self.stages[name](images)
        return images

    def maps(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """The maps after so many stages, in order."""
        found = []
        for name in self.between(None, names[-1]):
            images = self.stages[name](images)
            if name in names:
                found.append(images)
        return found

    def shape_after(self, stage: str) -> tuple[int, ...]:
        """Shape of one sample after a stage: nothing is computed."""
        self.between(None, stage)
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        bare = {name: tensor.to("meta") for name, tensor in tensors.items()}
        picture = torch.empty(1, self.channels, self.resolution, self.resolution, device="meta")
        with torch.no_grad():
            return tuple(functional_call(self, bare, (picture,), {"until": stage}).shape[1:])

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Pictures, [batch, channels, resolution, resolution]: digits where it reads digits, else photographs."""
        return (example_pictures(batch, self.resolution, self.mean, self.deviation, self.classes),)


def example_pictures(
    batch: int, resolution: int, mean: Sequence[float], deviation: Sequence[float], classes: int
) -> Tensor:
    """Held-out digits where there are ten classes, else squares of photographs, in the network's range.

    Never noise: a picture file of noise is far larger, and dearer to decode, than one of what cameras see.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(batch, len(mean), resolution, resolution)
    if classes == digits_data.CLASSES:
        _, held_out = digits_data.split()
        return digits_data.images(held_out[torch.randint(len(held_out), (batch,))], resolution, len(mean))
    pixels = photograph_squares(batch, resolution) * DEVIATION + MEAN
    middle, spread = (torch.tensor(values)[:, None, None] for values in (mean, deviation))
    return (pixels - middle) / spread


# ------------------------------------------------------------------------------------------------ of the house


def _block(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())


class _Answer(nn.Sequential):
    """Mean over places and a linear layer."""

    def __init__(self, width: int, classes: int):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(width, classes))


def split_digits(*, width: PositiveInt = 16, resolution: PositiveInt = 32, channels: PositiveInt = 1) -> Backbone:
    """Six 3 x 3 convolutions for ten digits, `block1` to `block6`, in evaluation mode with random weights.

    Args:
        width: channels of the first; the six have w, w, 2w, 4w, 4w, 4w, and the second to fourth halve the picture.
        resolution: side of the input in pixels, a multiple of 8.
        channels: of the input: digits are grey.

    Raises:
        ValueError: the picture cannot be halved three times.
    """
    if resolution % 8:
        raise ValueError(f"resolution={resolution} is not a multiple of 8: three blocks halve the picture")
    widths = [channels, width, width, 2 * width, 4 * width, 4 * width, 4 * width]
    blocks = [_block(inner, outer, 1 + (1 <= place <= 3)) for place, (inner, outer) in enumerate(pairwise(widths))]
    stages: dict[str, nn.Module] = {f"block{place}": block for place, block in enumerate(blocks, 1)}
    imitated = Imitated(bottlefit="block4", entropic="block3", channels=4, stem=16)
    return Backbone(
        {**stages, ANSWER: _Answer(widths[-1], digits_data.CLASSES)},
        resolution=resolution,
        channels=channels,
        classes=digits_data.CLASSES,
        imitated=imitated,
        mean=(digits_data.MEAN,) * channels,
        deviation=(digits_data.STD,) * channels,
    ).eval()


# ------------------------------------------------------------------------------------------------ of libraries


#: Beginnings of names that both libraries have, and whose stages are known in torchvision's form.
_OF_TORCHVISION = ("resnet", "resnext", "wide_resnet", "densenet")


def split_backbone(*, name: str, resolution: PositiveInt = 224) -> Backbone:
    """A network of torchvision or timm by its name, as named stages, with random weights.

    Args:
        name: such as resnet152, densenet169, regnety_064, vit_small_r26_s32_224.
        resolution: side of the square input.

    Raises:
        UsageError: neither library has such a network.
        ValueError: it is none whose stages are known.
    """
    timm = import_timm()
    ours = timm.is_model(name) and not name.startswith(_OF_TORCHVISION)
    module = timm_model(name=name, resolution=resolution) if ours else torchvision_model(name=name)[0]
    module.resolution = resolution  # type: ignore[assignment]
    return as_backbone(module)


def as_backbone(model: nn.Module) -> Backbone:
    """The same network, with the same weights, as named stages: stem, layer1 to layer4, answer.

    Raises:
        ValueError: it is no ResNet or DenseNet of torchvision, no RegNet and no hybrid of ResNetV2 and ViT of timm.
    """
    if isinstance(model, Backbone):
        return model
    found = next(filter(None, (make(model) for make in (_of_resnet, _of_densenet, _of_regnet, _of_hybrid))), None)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} has no stages that are known: take a ResNet or DenseNet of torchvision, a RegNet "
            "or hybrid ViT of timm, split_digits, or hand over a Backbone"
        )
    stages, imitated = found
    resolution: Any = getattr(model, "resolution", 224)
    network = Backbone(stages, resolution=resolution, classes=_classes(stages[ANSWER]), imitated=imitated)
    task = getattr(model, "task", None)
    if task is not None:
        network.task = task
    return network.train(model.training)


Stages = tuple[dict[str, nn.Module], Imitated]


def _of_resnet(model: Any) -> Stages | None:
    if not all(hasattr(model, name) for name in ("conv1", "bn1", "maxpool", "avgpool", "fc", *LAYERS)):
        return None
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    answer = nn.Sequential(model.avgpool, nn.Flatten(1), model.fc)
    return {"stem": stem, **{name: getattr(model, name) for name in LAYERS}, ANSWER: answer}, Imitated()


def _of_densenet(model: Any) -> Stages | None:
    parts = dict(getattr(model, "features", nn.Module()).named_children())
    if "denseblock4" not in parts:
        return None
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(*(parts[name] for name in ("conv0", "norm0", "relu0", "pool0")))
    }
    for place in (1, 2, 3):
        stages[f"layer{place}"] = nn.Sequential(parts[f"denseblock{place}"], parts[f"transition{place}"])
    stages["layer4"] = nn.Sequential(parts["denseblock4"], parts["norm5"])
    stages[ANSWER] = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), model.classifier)
    return stages, Imitated(decoder=(2, 2, 1, 1, 1), pool=2)


def _of_regnet(model: Any) -> Stages | None:
    if not all(hasattr(model, name) for name in ("stem", "s1", "s2", "s3", "s4", "final_conv", "head")):
        return None
    layers: dict[str, nn.Module] = {f"layer{place}": getattr(model, f"s{place}") for place in (1, 2, 3, 4)}
    stages = {"stem": model.stem, **layers, ANSWER: nn.Sequential(model.final_conv, model.head)}
    return stages, Imitated(analysis=(1, 1, 1), channels=64)


def _of_hybrid(model: Any) -> Stages | None:
    trunk = getattr(getattr(model, "patch_embed", None), "backbone", None)
    if trunk is None or not hasattr(trunk, "stages"):
        return None
    layers = {f"layer{place}": stage for place, stage in enumerate(trunk.stages, 1)}
    model.patch_embed.backbone = nn.Identity()  # what is left of it starts with the maps
    stages = {"stem": trunk.stem, **layers, ANSWER: nn.Sequential(trunk.norm, trunk.head, model)}
    return stages, Imitated(analysis=(1, 1, 1), channels=64)


def _classes(answer: nn.Module) -> int:
    """Outputs of the last linear layer."""
    linear = [part for part in answer.modules() if isinstance(part, nn.Linear)]
    return linear[-1].out_features
