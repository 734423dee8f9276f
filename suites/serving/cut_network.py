"""A network in two halves: what the device computes, what goes over the wire, what the server computes."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn

from suites.serving.backbones import Backbone, example_pictures
from suites.serving.payloads import Affine, Codec


class CutNetwork(nn.Module):
    """A subject of the workload `split`; a subclass gives `head` and `tail`.

    Attributes:
        codec: between the two.
        classes, resolution, channels: as tasks ask for them.
        cut_elements: numbers of one sample of the plain network's tensor at this cut; None where there is no such cut.
        pictures: the plain network's accuracy on JPEG files, as `[mean bytes, accuracy in percent]` of each quality.
    """

    def __init__(self, codec: Codec, like: Backbone):
        super().__init__()
        self.codec = codec
        self.resolution, self.channels, self.classes = like.resolution, like.channels, like.classes
        self.cut_elements: int | None = None
        self.pictures: list[list[float]] = []
        self.mean, self.deviation = like.mean, like.deviation

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """What the plain network is shown."""
        return (example_pictures(batch, self.resolution, self.mean, self.deviation, self.classes),)

    def head(self, images: Tensor) -> Any:
        """What the device computes."""
        raise NotImplementedError(f"{type(self).__name__} does not define head")

    def tail(self, hidden: Any) -> Tensor:
        """What the server computes."""
        raise NotImplementedError(f"{type(self).__name__} does not define tail")

    def device_modules(self) -> list[nn.Module]:
        """What of it stands on the device."""
        return []

    def device_params(self) -> int:
        """Parameters that the device holds."""
        own = {id(p): p.numel() for module in self.device_modules() for p in module.parameters()}
        return sum(own.values())

    def encode(self, hidden: Any) -> bytes:
        """What is sent."""
        return self.codec.encode(hidden)

    def decode(self, payload: bytes) -> Any:
        """What arrives, where the server computes."""
        like = next(self.parameters())
        return self.codec.decode(payload).to(like)

    def arriving(self, hidden: Any) -> Any:
        """What arrives of what the head gives: the same as through the bytes."""
        if hidden.is_meta:
            return hidden
        return self.codec.rounded(hidden) if isinstance(self.codec, Affine) else self.decode(self.encode(hidden))

    def forward(self, images: Tensor) -> Tensor:
        """The server's answer."""
        return self.tail(self.arriving(self.head(images)))

    def denominators(self, images: Tensor) -> dict[str, float | str]:
        """Bytes of as many inputs that a payload is compared with, by the name of the ratio."""
        batch = images.shape[0]
        found: dict[str, float | str] = {"vs_u8_input": images.numel()}
        if self.cut_elements is not None:
            found["vs_fp32_cut"] = 4 * self.cut_elements * batch
        jpeg = self._jpeg_of_equal_accuracy()
        if jpeg is not None:
            found["vs_jpeg_equal_accuracy"] = jpeg if isinstance(jpeg, str) else jpeg * batch
        return found

    def _jpeg_of_equal_accuracy(self) -> float | str | None:
        """Mean bytes of the coarsest JPEG on which the plain network is as accurate as this one is."""
        task = getattr(self, "task", None)
        if task is None or not self.pictures:
            return None
        from suites.serving.jpeg_curve import accuracy_of, coarsest

        if getattr(self, "untrained", None):
            return "it was not trained"
        return coarsest(self.pictures, accuracy_of(self, task))


class Student(CutNetwork):
    """A cut network whose server side ends in stages of its teacher; a subclass gives `encoder` and `decoder`.

    Attributes:
        target: the teacher's stage whose map the decoder gives.
        later: the teacher's stages after it.
    """

    encoder: nn.Module
    decoder: nn.Module
    decoder_path = "decoder"

    def __init__(self, codec: Any, teacher: Backbone, target: str):
        super().__init__(codec, teacher)
        self.target = target
        self.later = nn.ModuleDict({name: copy.deepcopy(teacher.stages[name]) for name in teacher.between(target)})
        self.cut_elements = math.prod(teacher.shape_after(target))

    @property
    def imitated(self) -> list[str]:
        """The stages whose maps are learned from: the target and those after it, without the answer."""
        return [self.target, *list(self.later)[:-1]]

    def head(self, images: Tensor) -> Tensor:
        """What the encoder gives."""
        return self.encoder(images)

    def tail(self, hidden: Tensor) -> Tensor:
        """Logits."""
        mapped = self.decoder(hidden)
        for part in self.later.values():
            mapped = part(mapped)
        return mapped

    def maps(self, hidden: Tensor) -> list[Tensor]:
        """What imitates the teacher's maps, in order, of what arrives."""
        found = [self.decoder(hidden)]
        for part in list(self.later.values())[:-1]:
            found.append(part(found[-1]))
        return found

    def device_modules(self) -> list[nn.Module]:
        """The encoder."""
        return [self.encoder]
