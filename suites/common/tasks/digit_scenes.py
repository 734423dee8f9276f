"""Questions about scenes of digits: a position, a number, a row, a mask; or screens with actions between them.

A mask is asked for by the digit's name, or of a reader of the kind `places` by where one stands.

A model reads the scene as visual tokens and answers in one word. Scenes that are judged show held-out digits only and
are the same for every model of one kind. The score is exact match over all questions of the kind; every type with its
own interval stands in its details. `judged` may name one type, or `masks`, which is the mean intersection over union
of masks. One model learns all types, so one checkpoint serves every choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest
from bench.scores import Score, mean, proportion
from suites.common import digit_scenes as scenes
from suites.common import digits_data as data
from suites.common.scene_learning import Batch, Training, teach
from suites.common.task import TaskError, TrainedTask

Judged = Literal["questions", "masks", "position", "count", "search", "now", "pointer", "past"]
#: Types of question by kind of model.
TYPES = {
    "scene": ("position", "count", "search"),
    "places": ("position", "count", "search"),
    "views": ("position", "count", "search"),
    "screens": ("now", "pointer", "past"),
}
#: Types that name a row and a column of a screen: their answers also stand by the row, where dropping has a bias.
PLACED = ("position", "now", "past")
HELD_OUT_SCENES, HELD_OUT_SEED = 200, 987_654_321


def drawn(module: Any, n: int, known: Tensor, generator: torch.Generator, repeats: int = 1) -> Batch:
    """A batch for a model of this kind; questions are asked `repeats` times of each scene, the pointer's once."""
    if module.kind == "screens":
        return _screens(module, n, known, generator, repeats)
    seen = scenes.scenes(n, known, generator)
    head = torch.cat([torch.full((n, 1), scenes.BEGIN), scenes.packed(seen.levels, module.patch, module.views)], dim=1)
    types = (scenes.position_questions, scenes.count_questions, scenes.search_questions)
    asked = tuple(ask(seen, generator) for ask in types for _ in range(repeats))
    masked = scenes.placed_mask_questions if module.kind == "places" else scenes.mask_questions
    return Batch(head, seen.cells.flatten(1)[:, None], asked, masked(seen, generator))


def _screens(module: Any, n: int, known: Tensor, generator: torch.Generator, repeats: int) -> Batch:
    shown = [scenes.scenes(n, known, generator) for _ in range(module.images)]
    start = torch.randint(scenes.CELLS, (n,), generator=generator)
    moves = torch.randint(scenes.MOVE, scenes.MOVE + 4, (n, module.history), generator=generator)
    parts = [torch.full((n, 1), scenes.BEGIN), scenes.ROW + start[:, None]]
    for index, screen in enumerate(shown):
        parts += [scenes.packed(screen.levels, module.patch), moves[:, index : index + 1]]
    head = torch.cat(parts, dim=1)
    row = torch.full((n,), scenes.PAD)
    asked = [_on_screen("now", shown[-1], scenes.SCREEN, generator) for _ in range(repeats)]
    asked.append(
        scenes.Questions("pointer", scenes.about(scenes.POINTER, row), scenes.ROW + scenes.pointer_after(start, moves))
    )
    if module.history:
        asked += [_on_screen("past", shown[-2], scenes.SCREEN + 1, generator) for _ in range(repeats)]
    cells = torch.stack([screen.cells.flatten(1) for screen in shown], dim=1)
    return Batch(head, cells, tuple(asked), None)


def _on_screen(kind: str, screen: scenes.Scenes, which: int, generator: torch.Generator) -> scenes.Questions:
    asked = scenes.position_questions(screen, generator, which)
    return scenes.Questions(kind, asked.words, asked.answers)


def example_prompts(module: Any, batch: int, seed: int) -> Tensor:
    """Ids [batch, tokens] of prompts of held-out digits that end with a question for a position."""
    made = drawn(module, batch, data.split()[1], torch.Generator().manual_seed(seed))
    return torch.cat([made.head, made.questions[0].words], dim=1)


class DigitScenes(TrainedTask):
    """Scenes of the module's kind."""

    name = "digit_scenes"
    metric = "accuracy"

    def __init__(
        self, cache: Path, seed: int, *, judged: Judged = "questions", training: Training | None = None
    ):  # fmt: skip
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the scenes that are learned from.
            judged: all questions, one type, or masks.
            training: the recipe; None for the default.
        """
        super().__init__(cache, seed)
        self.training, self.judged = training or Training(), judged
        self.metric = "mean_iou" if judged == "masks" else "accuracy"  # type: ignore[misc]
        self.module: Any = None

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module reads scenes, and has what is judged."""
        kind = getattr(module, "kind", None)
        if kind not in TYPES or not hasattr(module, "patch"):
            raise TaskError(f'model "{model_name}" reads no scenes of digits: take scene_64 or its kin')
        if self.judged == "masks" and kind == "screens":
            raise TaskError(f'model "{model_name}" answers no question for a mask: take scene_64')
        if self.judged not in ("questions", "masks", *TYPES[kind]):
            raise TaskError(f'model "{model_name}" is asked {", ".join(TYPES[kind])}, not {self.judged}')
        self.module = module

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the reader; its last loss and its score."""
        how = self.training
        generator = torch.Generator().manual_seed(self.seed)
        known = data.split()[0]
        batches = (
            drawn(module, how.batch, known, generator, how.repeats) for _ in range(how.reading_steps + how.steps)
        )
        losses = teach(module, how, batches)
        with torch.inference_mode():
            held_out = DigitScenes(self.cache.folder.parent, self.seed)
            held_out.fits(module, "the model")
            score = held_out.score(Run(module))
        return {"train_loss": sum(losses[-10:]) / len(losses[-10:]), "test_accuracy": score.value, **score.details}

    def data_digest(self) -> str:
        """Hash of pixels and labels."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """The training."""
        return asdict(self.training)

    def held_out(self) -> Batch:
        """The scenes that are judged."""
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        return drawn(self.module, HELD_OUT_SCENES, data.split()[1], generator)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of prompts with one question, its type at random, and their answers."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            made = drawn(self.module, batch_size, data.split()[0], generator)
            asked = made.questions[int(torch.randint(len(made.questions), (1,), generator=generator))]
            yield torch.cat([made.head, asked.words], dim=1), asked.answers

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Prompts and answers of what is judged; masks: 0 or 1 per cell, [n, 16]."""
        for _, ids, wanted in self._asked():
            yield from zip(ids.split(batch_size), wanted.split(batch_size), strict=True)

    def _asked(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        made = self.held_out()
        if self.judged == "masks":
            assert made.mask is not None
            yield "masks", torch.cat([made.head, made.mask[0]], dim=1), made.mask[1].long()
            return
        for asked in made.questions:
            if self.judged in ("questions", asked.kind):
                yield asked.kind, torch.cat([made.head, asked.words], dim=1), asked.answers

    def score(self, run: Run) -> Score:
        """Percent of questions that are answered right, or the mean intersection over union of masks."""
        size = 1 if getattr(run.module, "input_dependent", False) else run.batch
        return self._masks(run, size) if self.judged == "masks" else self._answers(run, size)

    def _answers(self, run: Run, size: int) -> Score:
        seen, marks, left, by_row = SamplesDigest(), dict[str, str](), list[Tensor](), dict[str, str]()
        for kind, ids, wanted in self._asked():
            seen.feed(ids, wanted)
            said = list[Tensor]()
            for part in ids.split(size):
                said.append(run.module.prefill(run.send(part))[0].argmax(dim=-1).cpu())  # type: ignore[operator]
                left += kept_places(run.module)
            right = (torch.cat(said) == wanted).long().tolist()
            marks[kind] = "".join(map(str, right))
            if kind in PLACED:
                for row, mark in zip((ids[:, -3] - scenes.ROW).tolist(), right, strict=True):
                    by_row[str(row)] = by_row.get(str(row), "") + str(mark)
        whole = proportion("accuracy", "".join(marks.values()), seen.hex())
        details: dict[str, Any] = {"by_question": proportions_of(marks)}
        if by_row:
            details["by_row"] = proportions_of(dict(sorted(by_row.items())))
        return replace(whole, details={**details, **({"kept": kept_summary(left)} if left else {})})

    def _masks(self, run: Run, size: int) -> Score:
        seen, found = SamplesDigest(), list[float]()
        cell = scenes.cell_of(self.module.patch, self.module.views)
        for _, ids, wanted in self._asked():
            seen.feed(ids, wanted)
            for part, true in zip(ids.split(size), wanted.split(size), strict=True):
                mask = run.module.masks(run.send(part)).cpu() > 0  # type: ignore[operator]
                found += intersection_over_union(mask, true[:, cell].bool()).tolist()
        return mean("mean_iou", found, seen.hex())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of scenes, hash of the data, preprocessing."""
        return {
            "name": self.name,
            "split": "scenes of the held-out pictures of the task digits",
            "n": HELD_OUT_SCENES,
            "digest": self.data_digest(),
            "preprocessing": {"judged": self.judged, "kind": getattr(self.module, "kind", None)},
        }


def proportions_of(marks: Mapping[str, str]) -> dict[str, dict[str, float | None]]:
    """Per cent of right answers with its interval, by what the marks ("1" for right) are of."""
    parts = {name: proportion("accuracy", given, "") for name, given in marks.items()}
    return {name: {"value": p.value, "low": p.low, "high": p.high, "n": p.n} for name, p in parts.items()}


def kept_places(module: Any) -> list[Tensor]:
    """Which of the first visual tokens left the last layer of each row of the last prompt; none of a plain model."""
    found = getattr(module, "kept_origin", None)
    return [] if found is None else list(found.cpu())


def kept_summary(left: list[Tensor]) -> dict[str, float | None]:
    """Visual tokens that left the last layer, mean, least and most over prompts, and the mean of their first places.

    Where none are left there is no place. A score that likes early tokens, as a causal mask makes it, has a low one.

    Args:
        left: places of one prompt's tokens each, 0 to v - 1.
    """
    counts, places = [float(len(row)) for row in left], torch.cat(left).double()
    place = float(places.mean()) if len(places) else None
    return {
        "place_mean": place, "tokens_mean": sum(counts) / len(counts), "tokens_min": min(counts),
        "tokens_max": max(counts),
    }  # fmt: skip


def intersection_over_union(found: Tensor, true: Tensor) -> Tensor:
    """Of masks [n, places], [n]; two empty masks agree."""
    both, either = (found & true).sum(dim=1), (found | true).sum(dim=1)
    return torch.where(either == 0, 1.0, both / either.clamp(min=1))
