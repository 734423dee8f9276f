"""The baselines of a cut: all on the device, all on the server behind a picture, and a cut without training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count
from suites.common.finetuning import teacher_for
from suites.common.from_scratch import learned
from suites.serving.backbones import Backbone, as_backbone
from suites.serving.cut_network import CutNetwork
from suites.serving.jpeg_curve import jpeg_curve
from suites.serving.payloads import Codec, Pictures, Pixels, codec_of
from suites.serving.two_stage import epochs_for, second_stage, settled, sgd, stage, steps_of


class Offloaded(CutNetwork):
    """The device sends the picture; the server computes everything."""

    def __init__(self, network: Backbone, codec: Codec):
        super().__init__(codec, network)
        self.network = network

    def head(self, images: Tensor) -> Tensor:
        """The picture."""
        return images

    def tail(self, hidden: Tensor) -> Tensor:
        """The network's logits."""
        return self.network(hidden)


class PlainCut(CutNetwork):
    """The network cut after a stage, as it is."""

    def __init__(self, network: Backbone, cut: str, codec: Codec):
        super().__init__(codec, network)
        first, last = network.between(None, cut), network.between(cut)
        self.first = nn.Sequential(*(network.stages[name] for name in first))
        self.last = nn.Sequential(*(network.stages[name] for name in last))
        self.cut_elements = 1
        for side in network.shape_after(cut):
            self.cut_elements *= side

    def head(self, images: Tensor) -> Tensor:
        """The map at the cut."""
        return self.first(images)

    def tail(self, hidden: Tensor) -> Tensor:
        """Logits of it."""
        return self.last(hidden)

    def device_modules(self) -> list[nn.Module]:
        """The stages before the cut."""
        return [self.first]


def local(model: nn.Module) -> Backbone:
    """The network as it is: everything on the device, nothing sent.

    Raises:
        ValueError: the network has no stages that are known.
    """
    return as_backbone(model)


def offload(
    model: nn.Module, *, q: Annotated[int, Field(ge=1, le=95)] = 50, codec: Literal["jpeg", "webp"] = "jpeg"
) -> Offloaded:
    """A picture file goes to the server, which computes everything.

    Args:
        model: the network.
        q: quality of the file, 1 to 95.
        codec: format of the file.

    Raises:
        ValueError: the network has no stages that are known.
    """
    network = as_backbone(model)
    found = Offloaded(network, Pictures(network.mean, network.deviation, q, codec))
    found.pictures = jpeg_curve(network) if codec != "jpeg" else []
    return found.eval()


def offload_raw(model: nn.Module) -> Offloaded:
    """The pixels go to the server as they are, one byte each.

    Raises:
        ValueError: the network has no stages that are known.
    """
    network = as_backbone(model)
    found = Offloaded(network, Pixels(network.mean, network.deviation))
    found.pictures = jpeg_curve(network)
    return found.eval()


def plain(model: nn.Module, *, cut: str = "layer1", bits: Annotated[int, Field(ge=1, le=32)] = 32) -> PlainCut:
    """The network cut after a stage without training, its map sent as floats or as codes.

    Args:
        model: the network.
        cut: a stage, such as stem, layer1 or block3; an unknown one is answered with the nearest.
        bits: of a number that is sent: 32 for floats, else codes of 1 to 16.

    Raises:
        ValueError: the network has no stages that are known, or none of this name, nothing is left behind it, or there
            are no codes of so many bits.
    """
    network = as_backbone(model)
    if not network.between(cut):
        raise ValueError(f'cut="{cut}" is the last stage: nothing is left for the server')
    found = PlainCut(network, cut, codec_of(bits))
    found.pictures = jpeg_curve(network)
    return found.eval()


def longer(model: nn.Module, *, epochs: Count | None = None) -> Backbone:
    """The control: the plain network trained on for as long as a student, by the students' second stage.

    Args:
        model: the network, loaded by a task.
        epochs: of each of a student's two stages; None for ten where the model has a task.

    Raises:
        ValueError: the network has no stages that are known.
    """
    teacher = as_backbone(model)
    student = teacher_for(teacher, 1)
    assert student is not None
    student.requires_grad_(True)
    steps = 2 * steps_of(epochs_for(teacher, epochs))

    def loop(module: nn.Module, batches: object, count: int) -> list[float]:
        module.train()
        losses = stage(sgd(module.parameters()), batches, second_stage(module, teacher, "kd"), count, [0.5])  # type: ignore[arg-type]
        settled(module)
        return losses

    learned(student, teacher, longer, {}, steps, loop, from_start=False)
    return student.eval()
