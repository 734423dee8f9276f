"""ED-ViT: narrow specialists of a few classes each, one a device, whose features a small MLP fuses.

Source: Liu et al. 2024, "ED-ViT: Splitting Vision Transformer for Distributed Inference on Edge Devices", arXiv
2410.11650. The structure is a reconstruction (no code could be read): classes divided evenly, each specialist learned
on its classes against all others, pruned to h of H heads by divergence under masks, learned again, placed on devices,
then the fusion. With fewer devices than specialists some run several, one after another, and send all features at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.finetuning import teacher_for
from suites.common.from_scratch import learned
from suites.common.training import Pace, classification, fit
from suites.common.vit import ViT
from suites.serving.payloads import codec_of
from suites.serving.placement import Device as Place
from suites.serving.placement import Load, groups, placed, widest
from suites.serving.split_vit import heads_of, macs_of, size_mib, with_heads
from suites.serving.vit_pruning import cut_out, kept

#: Steps of each of the three phases where the model has a task; pictures that masks are judged on; rates.
STEPS, JUDGED, KNOWN, FRESH = 100, 16, 1e-3, 2e-3


class Specialist(nn.Module):
    """A narrow ViT without a head, whose class token is sent."""

    def __init__(self, vit: ViT):
        super().__init__()
        self.vit = vit
        self.vit.head = nn.Identity()  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        """Features of the class token, [batch, width]."""
        return self.vit(images)


class Device(nn.Module):
    """What one device runs, one specialist after another, and what it sends of all of them."""

    def __init__(self, specialists: Sequence[nn.Module], bits: int):
        super().__init__()
        self.specialists = nn.ModuleList(specialists)
        self.codec = codec_of(bits)

    def head(self, images: Tensor) -> Tensor:
        """Features of the class tokens, [batch, specialists x width]."""
        return torch.cat([specialist(images) for specialist in self.specialists], dim=1)

    def encode(self, hidden: Tensor) -> bytes:
        """The features as they are sent."""
        return self.codec.encode(hidden)

    def decode(self, payload: bytes) -> Tensor:
        """The features as they arrive."""
        return self.codec.decode(payload).to(next(self.parameters()))


class EdVit(nn.Module):
    """Specialists on their devices, and the fusion on the server.

    Attributes:
        classes_of: the classes of each specialist.
        place_of: the device of each specialist.
    """

    def __init__(self, whole: ViT, heads: int, bits: int, place_of: Sequence[int]):
        super().__init__()
        self.resolution, self.channels, self.classes = whole.resolution, whole.channels, whole.classes
        self.classes_of, self.place_of = groups(whole.classes, len(place_of)), list(place_of)
        self.specialists = nn.ModuleList(Specialist(with_heads(whole, heads)) for _ in place_of)
        self._devices = [Device(own, bits) for own in self._by_device(list(self.specialists))]
        width = len(place_of) * heads * (whole.width // heads_of(whole))
        self.fusion = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, whole.classes))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """What the whole network is shown: random pictures."""
        like = next(self.parameters())
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(like),)

    def _by_device(self, items: Sequence[Any]) -> list[list[Any]]:
        """What belongs to each specialist, device by device; one that none is placed on is left out."""
        used = sorted(set(self.place_of))
        return [[item for item, place in zip(items, self.place_of, strict=True) if place == own] for own in used]

    def branches(self) -> list[Any]:
        """The devices."""
        return list(self._devices)

    def tail(self, arrived: Sequence[Tensor]) -> Tensor:
        """Logits of all features, in the specialists' order."""
        found = dict[int, Tensor]()
        for own, features in zip(self._by_device(range(len(self.place_of))), arrived, strict=True):
            found |= dict(zip(own, features.chunk(len(own), dim=1), strict=True))
        return self.fusion(torch.cat([found[number] for number in sorted(found)], dim=1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes], through the payloads."""
        found = []
        for device in self.branches():
            features = device.head(images)
            found.append(features if features.is_meta else device.decode(device.encode(features)))
        return self.tail(found)

    def device_params(self) -> int:
        """Parameters of all devices."""
        return sum(p.numel() for p in self.specialists.parameters())

    def denominators(self, images: Tensor) -> dict[str, float | str]:
        """The picture, which every device sees where it is taken: nothing of it is sent."""
        return {"vs_u8_input": images.numel()}


def ed_vit(
    model: nn.Module,
    *,
    n: PositiveInt = 2,
    heads: PositiveInt | None = None,
    memory_mib: Positive = 180.0,
    devices: PositiveInt | None = None,
    device_mib: Positive | None = None,
    bits: Annotated[int, Field(ge=1, le=32)] = 32,
    steps: Count | None = None,
) -> EdVit:
    """The network as `n` specialists, and their fusion.

    Args:
        model: the whole ViT.
        n: specialists.
        heads: that each keeps; None for the most that fit.
        memory_mib: that all of them may take together where `heads` is None.
        devices: that they run on, equal ones; None for as many as there are specialists.
        device_mib: weights that a device holds; None for as many as there are.
        bits: of a feature that is sent: 32 for floats, else codes of 1 to 16.
        steps: of each phase (specialist, pruned specialist, fusion); None for 100 where the model has a task.

    Raises:
        ValueError: not a plain ViT, more specialists than classes, more heads than there are, none fits, a specialist
            fits on no device, or there are no codes of so many bits.
    """
    whole = _as_vit(model, "ed_vit")
    own = heads_of(whole)
    if heads is None:
        heads = widest(own, n, lambda kept: size_mib(whole, kept), memory_mib)
    _check_heads(heads, own)
    groups(whole.classes, n)  # refuses more specialists than classes before any is built
    found = EdVit(whole, heads, bits, _placed(whole, n, heads, devices or n, device_mib))
    settings = {"n": n, "heads": heads}
    count = (2 * n + 1) * _steps_for(model, steps)
    learned(found, whole, ed_vit, settings, count, _Learning(whole))  # type: ignore[arg-type]
    return found.eval()


def pruned_vit(model: nn.Module, *, heads: PositiveInt = 2, n: PositiveInt = 1, steps: Count | None = None) -> ViT:
    """One narrow ViT for all classes, about as large as `n` specialists with so many heads: pruning without a split.

    Args:
        model: the whole ViT.
        heads: of a specialist.
        n: specialists that it is as large as.
        steps: as of each phase of a specialist: it learns twice as many; None for 100 where the model has a task.

    Raises:
        ValueError: not a plain ViT, or more heads than there are.
    """
    whole = _as_vit(model, "pruned_vit")
    own = heads_of(whole)
    _check_heads(heads, own)
    total = n * size_mib(whole, heads)
    count = min(range(1, own + 1), key=lambda kept: abs(size_mib(whole, kept) - total))
    narrow = with_heads(whole, count)

    def loop(module: Any, batches: Any, steps: int) -> list[float]:
        given = iter(batches)
        _prune(whole, module, next(given)[0])
        return fit(module, given, classification(module), Pace(steps - 1, KNOWN))

    learned(narrow, whole, pruned_vit, {"heads": count}, 2 * _steps_for(model, steps), loop)
    return narrow.eval()


def _placed(whole: ViT, count: int, heads: int, devices: int, device_mib: float | None) -> list[int]:
    """The device of each specialist, by the paper's greedy rule; energy goes by products, of which all have enough."""
    size, products = size_mib(whole, heads), macs_of(whole, heads)
    room = count * size if device_mib is None else device_mib
    return placed([Load(size, products)] * count, [Place(room, count * products)] * devices)


def _as_vit(model: nn.Module, method: str) -> ViT:
    """The model, if it is a plain ViT that reads its class token and nothing else."""
    if not isinstance(model, ViT) or model.cls_token is None or model.pool != "token":
        raise ValueError(f"{method} divides a plain ViT with a class token, not a {type(model).__name__}")
    if model.dist_token is not None:
        raise ValueError(f"{method} divides a plain ViT with a class token; this one has a distillation token as well")
    return model


def _check_heads(heads: int, own: int) -> None:
    """Raise ValueError unless the whole network has so many heads."""
    if heads > own:
        raise ValueError(f"heads={heads}: the whole network has {own}")


def _steps_for(model: nn.Module, steps: int | None) -> int:
    if steps is not None:
        return steps
    return STEPS if hasattr(getattr(model, "task", None), "training_batches") else 0


def _prune(vit: ViT, narrow: ViT, images: Tensor) -> None:
    """What is most needed of one ViT goes into a narrower one."""
    vit.eval()
    with torch.no_grad():
        cut_out(vit, narrow, kept(vit, narrow, images[:JUDGED]))


class _Learning:
    """Every specialist in turn, then the fusion of what they give."""

    def __init__(self, whole: ViT):
        self.whole = whole

    def __call__(self, found: EdVit, batches: Any, steps: int) -> list[float]:
        """The loss of each step."""
        given, losses = iter(batches), list[float]()
        each = steps // (2 * len(found.specialists) + 1)
        for specialist, classes in zip(found.specialists, found.classes_of, strict=True):
            losses += self._specialist(specialist, classes, given, each)
        fused = lambda images, labels: F.cross_entropy(_fused(found, images), labels)  # noqa: E731
        found.requires_grad_(False)
        found.fusion.requires_grad_(True)
        losses += fit(found, islice(given, each), fused, Pace(each, FRESH))
        found.requires_grad_(True)
        return losses

    def _specialist(self, found: Any, classes: list[int], given: Iterator[Any], steps: int) -> list[float]:
        """Learned wide on its classes against all others, pruned, learned again."""
        wide = teacher_for(self.whole, 1)
        assert wide is not None
        wide.requires_grad_(True)
        _specialise(wide, classes)
        losses = fit(wide, islice(given, steps - 1), _one_of(wide, classes), Pace(steps - 1, KNOWN))
        vit = found.vit
        vit.head = copy.deepcopy(nn.Linear(vit.width, len(classes) + 1))
        _prune(wide, vit, next(given)[0])
        losses += fit(vit, islice(given, steps), _one_of(vit, classes), Pace(steps, KNOWN))
        vit.head = nn.Identity()
        return losses


def _specialise(vit: ViT, classes: list[int]) -> None:
    """A head of its classes and one for all others, begun from the rows that there are."""
    others = [place for place in range(vit.classes) if place not in classes] or classes
    old, vit.head = vit.head, nn.Linear(vit.width, len(classes) + 1)
    with torch.no_grad():
        vit.head.weight.copy_(torch.cat([old.weight[classes], old.weight[others].mean(0, keepdim=True)]))
        vit.head.bias.copy_(torch.cat([old.bias[classes], old.bias[others].mean(0, keepdim=True)]))


def _one_of(vit: ViT, classes: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy of which of its classes it is, or none."""
    places = {label: place for place, label in enumerate(classes)}

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        own = torch.tensor([places.get(int(label), len(classes)) for label in labels])
        return F.cross_entropy(vit(images), own)

    return loss


def _fused(found: EdVit, images: Tensor) -> Tensor:
    """Logits without codes."""
    with torch.no_grad():
        features = [device.head(images) for device in found.branches()]
    return found.tail(features)
