"""Learners of a sequence of tasks that end in a kernel classifier, with a coreset that is drawn or stored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES
from suites.tiny_memory.kernel_ridge import forgetting, primal, random_fourier, targets

__all__ = ["ContinualDigits", "Generative", "Learner", "Stored", "continual_digits", "contrast", "load_checkpoint"]

SIDE, RIDGE, CONTRAST, DIRECTIONS = 8, 0.1, 0.1, 256
ELEMENT = {"uint8": 1, "fp32": 4}


class ContinualDigits(nn.Module):
    """An encoder of two layers and a linear head: the control, which sees all classes at once."""

    def __init__(self, hidden: int):
        super().__init__()
        self.resolution, self.channels, self.classes, self.hidden = SIDE, 1, CLASSES, hidden
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(SIDE * SIDE, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        return self.head(self.encoder(pictures))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures."""
        return (torch.randn(batch, 1, SIDE, SIDE).to(self.head.weight),)


def continual_digits(*, hidden: PositiveInt = 128) -> ContinualDigits:
    """The control in evaluation mode with random weights.

    Args:
        hidden: features of the encoder.
    """
    return ContinualDigits(hidden).eval()


class Learner(nn.Module):
    """What both learners share: an encoder, a coreset of some kind, and the classifier that is solved from it.

    Attributes:
        kept_bytes: of everything that survives a task.
        accuracies: [T, T], of each task after each, in percent; a note, which nothing is computed from.
    """

    accuracies: Tensor

    def __init__(self, hidden: int, tasks: int, samples: int):
        super().__init__()
        self.resolution, self.channels, self.classes = SIDE, 1, CLASSES
        self.tasks, self.samples, self.seen = tasks, samples, tasks
        self.encoder = ContinualDigits(hidden).encoder
        self.register_buffer("accuracies", torch.zeros(tasks, tasks))

    def features(self, pictures: Tensor) -> Tensor:
        """What the kernel is of, [n, width]."""
        return self.encoder(pictures)

    def coreset(self) -> tuple[Tensor, Tensor]:
        """Pictures and labels of all tasks so far."""
        raise NotImplementedError(f"{type(self).__name__} does not define coreset")

    def solve(self) -> Tensor:
        """The classifier's weights from the coreset, [width, 10]."""
        pictures, wanted = self.coreset()
        return primal(self.features(pictures), targets(wanted, CLASSES).to(pictures), RIDGE)

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores of all classes, [batch, 10], from a classifier solved now; in training the pictures themselves."""
        if self.training:
            return pictures
        return self.features(pictures) @ self.solve()

    def replayed(self, count: int) -> tuple[Tensor, Tensor]:
        """As many pictures and labels of old tasks."""
        raise NotImplementedError(f"{type(self).__name__} does not define replayed")

    def cost(self, pictures: Tensor, wanted: Tensor) -> Tensor:
        """The number to make small."""
        raise NotImplementedError(f"{type(self).__name__} does not define cost")

    def loss(self, pictures: Tensor, wanted: Tensor) -> Tensor:
        """Of new pictures and as many of old tasks, which doubles the batch from the second task on."""
        if self.seen > 1:
            old, old_wanted = self.replayed(len(pictures))
            pictures, wanted = torch.cat([pictures, old]), torch.cat([wanted, old_wanted])
        return self.cost(pictures, wanted)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures."""
        return (torch.randn(batch, 1, SIDE, SIDE).to(next(self.parameters())),)

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Random classes of the last task."""
        per = CLASSES // self.tasks
        return CLASSES - per + torch.randint(per, (batch,), generator=torch.Generator().manual_seed(seed))

    @property
    def forgetting(self) -> float | None:
        """Points that tasks lost since they were best, a mean; None of a single task, or where nothing was learned."""
        known = self.tasks > 1 and not self.accuracies.is_meta and bool(self.accuracies.any())
        return forgetting(self.accuracies) if known else None

    @property
    def kept_bytes(self) -> float:
        """Bytes that survive a task."""
        return float(sum(part.numel() * part.element_size() for part in self.parameters()))

    def classes_of(self, task: int) -> range:
        """The classes of a task."""
        per = CLASSES // self.tasks
        return range(task * per, (task + 1) * per)


class Generative(Learner):
    """GKCL: a conditional VAE whose encoder gives the features."""

    def __init__(self, hidden: int, tasks: int, samples: int, latent: int):
        super().__init__(hidden, tasks, samples)
        self.latent = latent
        self.code = nn.Linear(hidden, 2 * latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent + CLASSES + tasks, hidden), nn.ReLU(), nn.Linear(hidden, SIDE * SIDE)
        )
        self.teacher: list[Generative] = []  # the generator of before this task, gone after it

    def draw(self, wanted: Tensor, code: Tensor) -> Tensor:
        """Pictures [n, 1, 8, 8] of classes from codes [n, latent]."""
        told = [F.one_hot(wanted, CLASSES), F.one_hot(wanted // (CLASSES // self.tasks), self.tasks)]
        given = torch.cat([code, *(part.to(code) for part in told)], dim=1)
        return self.decoder(given).unflatten(1, (1, SIDE, SIDE))

    def sampled(self, wanted: Tensor) -> Tensor:
        """Pictures of classes from codes of a fixed seed, so that a classifier is the same whenever it is solved."""
        generator = torch.Generator().manual_seed(len(wanted))
        with torch.device("cpu"):
            code = torch.randn(len(wanted), self.latent, generator=generator)
        return self.draw(wanted, code.to(self.code.weight))

    def coreset(self) -> tuple[Tensor, Tensor]:
        """M drawn pictures of every class so far."""
        known = self.seen * (CLASSES // self.tasks)
        wanted = torch.arange(known, device=self.code.weight.device).repeat_interleave(self.samples)
        return self.sampled(wanted), wanted

    def replayed(self, count: int) -> tuple[Tensor, Tensor]:
        """Pictures of old classes in turn, drawn by the generator of before this task."""
        old = (self.seen - 1) * (CLASSES // self.tasks)
        wanted = torch.arange(count, device=self.code.weight.device) % old
        source = self.teacher[0] if self.teacher else self
        with torch.no_grad():
            code = torch.randn(count, self.latent, device=wanted.device).to(self.code.weight)
            return source.draw(wanted, code), wanted

    def cost(self, pictures: Tensor, wanted: Tensor) -> Tensor:
        """Squared error and divergence of the VAE a pixel, and the contrastive term of its latent."""
        mean, spread = self.code(self.encoder(pictures)).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (0.5 * spread).exp()
        made = self.draw(wanted, code)
        error = (made - pictures).square().flatten(1).sum(1).mean()
        divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
        return (error + divergence) / (SIDE * SIDE) + CONTRAST * contrast(mean, wanted)


def contrast(latent: Tensor, wanted: Tensor, temperature: float = 0.5) -> Tensor:
    """The supervised contrastive loss (Khosla et al. 2020, arXiv:2004.11362, its outer form): 0 without a pair."""
    points = F.normalize(latent, dim=1)
    logits = points @ points.T / temperature
    apart = ~torch.eye(len(points), dtype=torch.bool, device=points.device)
    same = (wanted[:, None] == wanted[None]) & apart
    logs = logits - torch.logsumexp(logits.masked_fill(~apart, float("-inf")), dim=1, keepdim=True)
    counts = same.sum(1)
    return -((logs * same).sum(1) / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


class Stored(Learner):
    """KCL: M stored pictures a task, and random Fourier features of the encoder's."""

    pictures: Tensor
    wanted: Tensor
    directions: Tensor
    phases: Tensor

    def __init__(self, hidden: int, tasks: int, samples: int, element: str):
        super().__init__(hidden, tasks, samples)
        self.head = nn.Linear(hidden, CLASSES)  # what the encoder learns through
        self.element = element
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("pictures", torch.zeros(tasks * samples, 1, SIDE, SIDE))
        self.register_buffer("wanted", torch.arange(tasks * samples) // samples * (CLASSES // tasks))
        self.register_buffer("directions", torch.randn(hidden, DIRECTIONS, generator=generator) * hidden**-0.5)
        self.register_buffer("phases", 2 * torch.pi * torch.rand(DIRECTIONS, generator=generator))

    def features(self, pictures: Tensor) -> Tensor:
        """Random Fourier features, [n, 256]."""
        return random_fourier(self.encoder(pictures), self.directions, self.phases)

    def coreset(self) -> tuple[Tensor, Tensor]:
        """The stored pictures of all tasks so far."""
        return self.pictures[: self.seen * self.samples], self.wanted[: self.seen * self.samples]

    def store(self, task: int, pictures: Tensor, wanted: Tensor) -> None:
        """Keep the first M different pictures of a task; batches are drawn with repeats.

        Raises:
            ValueError: there are fewer.
        """
        each, kinds = pictures.flatten(1).unique(dim=0, return_inverse=True)
        places = torch.arange(len(pictures), device=kinds.device)
        first = places.new_full((len(each),), len(pictures)).scatter_reduce(0, kinds, places, "amin")
        new = first.sort().values  # where each picture came for the first time
        if len(new) < self.samples:
            raise ValueError(
                f"samples={self.samples}: task {task + 1} met {len(new)} different pictures; take {len(new)} samples "
                "or fewer, or more training_steps"
            )
        part, kept = slice(task * self.samples, (task + 1) * self.samples), new[: self.samples]
        self.pictures[part], self.wanted[part] = pictures[kept], wanted[kept]

    def replayed(self, count: int) -> tuple[Tensor, Tensor]:
        """Stored pictures of old tasks, at random."""
        old = (self.seen - 1) * self.samples
        chosen = torch.randint(old, (count,), device=self.wanted.device)
        return self.pictures[chosen], self.wanted[chosen]

    def cost(self, pictures: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy through a linear head."""
        return F.cross_entropy(self.head(self.encoder(pictures)), wanted)

    @property
    def kept_bytes(self) -> float:
        """Encoder, head, basis, and pictures in their stored format; labels are a byte each."""
        basis = sum(part.numel() * part.element_size() for part in (self.directions, self.phases))
        return super().kept_bytes + basis + len(self.pictures) * (SIDE * SIDE * ELEMENT[self.element] + 1)
