"""The task of a predictor: measured networks, of which some are learned from and others held out.

What is scored is the error on networks that were not learned from. Rows and networks are those of the results folder
that the sweep writes to (`measured_costs`), or of the user: a table, or the results of another machine or session
(`given_costs`, `data.root=...`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench import prediction_errors
from bench.config.signatures import source_digest
from bench.meters.quality import QualityError, Run
from bench.scores import Score
from bench.store.records import Store
from bench.workloads.prediction import Evaluation
from suites.common.task import TaskError, WeightsCache, content_key, plain_attributes
from suites.predict import lessons, measured, simulated, table
from suites.predict.lessons import Lesson, taught
from suites.predict.measured import Measurements
from suites.predict.networks import Network
from suites.predict.predictor import Knowledge, Predictor, Question


class MeasuredCosts:
    """Rows and networks that this folder's other rows measured."""

    name: ClassVar[str] = "measured_costs"
    metric: ClassVar[str] = "mape"

    def __init__(self, cache: Path, seed: int, *, results: str = "results"):
        """Nothing is read yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of nothing that is learned; of the resampling behind intervals.
            results: folder whose records hold rows and networks.
        """
        self.cache = WeightsCache(Path(cache) / "measured_costs")
        self.seed, self.results = seed, results
        self.lesson: Lesson | None = None

    # ------------------------------------------------------------------------------------------ where costs are from

    def here(self, question: Question) -> Measurements:
        """What was measured, or is simulated, of the machine that networks are judged on."""
        if question.machine != "measured":
            return simulated.measurements(question.machine)  # type: ignore[arg-type]
        return of_folder(self.results, question.target)

    def elsewhere(self, question: Question) -> Measurements | None:
        """The same of the machine or session whose table and networks are learned from in split d."""
        if question.split == "d":
            raise TaskError("split d takes its table from another machine: name its results with task=given_costs "
                            "data.root=<folder>")  # fmt: skip
        return None

    # ------------------------------------------------------------------------------------------ of the task

    def prepare(self, model_name: str, build: Callable[[], nn.Module]) -> dict[str, Any]:
        """Learn once, so that weights which are trained are in the cache; says from what."""
        return self.load(build(), model_name)

    def load(self, module: nn.Module, model_name: str) -> dict[str, Any]:
        """Have the predictor learn, or read what it has learned; says from what.

        Raises:
            TaskError: it is no predictor, or there is too little to learn from.
        """
        if not isinstance(module, Predictor):
            raise TaskError(f'model "{model_name}" is no predictor of costs: take one of the suite predict')
        question = module.question
        here, elsewhere = self.here(question), self.elsewhere(question)
        lesson = taught(here, elsewhere, module)
        start = time.monotonic()
        notes = self._learn(module, lesson.known)
        seconds = notes.get("seconds", time.monotonic() - start)
        self.lesson = replace(lesson, seconds=float(seconds))
        module.examples = tuple(item.network for item in lesson.halves.held_out if not module.lacks(item.network))
        return {**notes, "recipe": {**asdict(question), "learned_from": len(lesson.halves.training)}}

    def _learn(self, module: Predictor, known: Knowledge) -> dict[str, Any]:
        if not module.trains:
            module.fit(known)
            return {}
        content = {
            "module": repr(module), "attributes": plain_attributes(module), "question": asdict(module.question),
            "costs": [[item.network.key, *item.cost.values] for item in known.training],
            "source": source_digest(f"{type(module).__module__}:{type(module).__name__}"),
        }  # fmt: skip

        def made() -> tuple[dict[str, Tensor], dict[str, Any]]:
            start = time.monotonic()
            module.fit(known)
            return module.state_dict(), {"seconds": round(time.monotonic() - start, 2)}

        weights, notes = self.cache.get(content_key(content), made)
        module.load_state_dict(weights)
        return notes

    def score(self, run: Run) -> Score:
        """The mean relative error over held-out networks, per cent, with a bootstrap interval.

        Raises:
            QualityError: no held-out network can be predicted, or it only ranks.
        """
        found = self.evaluation(run.module)
        if found.ranks_only:
            raise QualityError("it ranks networks and predicts no cost: look at spearman, kendall and top1_regret")
        if not found.names:
            why = next(iter(found.unpredicted.values()), "none is held out")
            raise QualityError(f"no held-out network can be predicted: {why}")
        estimate = prediction_errors.estimates(found.measured, found.predicted, self.seed, ("mape",))["mape"]
        if estimate.value is None:
            raise QualityError("a measured cost is zero, to which no error is relative")
        errors = [100 * abs(p - y) / y for y, p in zip(found.measured, found.predicted, strict=True)]
        text = "mean, bootstrap 95 % interval over networks" if estimate.low is not None else "too few networks"
        samples = content_key({"networks": list(found.names), "measured": list(found.measured)})
        return Score(
            "mape", estimate.value, len(errors), estimate.low, estimate.high, text, tuple(errors), samples,
            provenance="modelled" if found.simulated else "measured",
        )  # fmt: skip

    def evaluation(self, module: Any) -> Evaluation:
        """Held-out networks with what was measured and what the module says."""
        lesson = self._lesson()
        usable = [item for item in lesson.halves.held_out if not module.lacks(item.network)]
        lacking = {m.network.name: why for m in lesson.halves.held_out if (why := module.lacks(m.network))}
        return Evaluation(
            names=[item.network.name for item in usable],
            families=[item.network.family for item in usable],
            measured=[item.cost.value for item in usable],
            predicted=module.predict([item.network for item in usable]),
            repeats=[item.cost.values for item in usable] if not lesson.here.simulated else (),
            unpredicted=lacking,
            facts=lessons.facts(lesson, module),
            in_ms=lesson.here.unit_ms,
            ranks_only=module.ranks_only,
            budget=lessons.budget(lesson),
            simulated=lesson.here.simulated,
            source=lesson.here.source,
            suite=measured.SUITE,
            details=lessons.details(lesson, module),
            flags=lessons.flags(lesson, module, usable),
        )

    def batches(self, batch_size: int) -> Iterator[tuple[tuple[Network, ...], Tensor]]:
        """Held-out networks, and what they cost."""
        held = self._lesson().halves.held_out
        for start in range(0, len(held), batch_size):
            items = held[start : start + batch_size]
            yield tuple(item.network for item in items), torch.tensor([item.cost.value for item in items])

    def describe(self) -> dict[str, Any]:
        """Name, split, number of networks, hash of what they cost."""
        held = self.lesson.halves.held_out if self.lesson else ()
        digest = content_key({"held_out": [[m.network.key, *m.cost.values] for m in held]})
        return {
            "name": self.name, "n": len(held), "digest": digest, "split": "networks that were not learned from",
            "preprocessing": {"cost": "geometric mean over processes of the median"},
        }  # fmt: skip

    def _lesson(self) -> Lesson:
        if self.lesson is None:
            raise TaskError("nothing was learned yet: load a predictor first")
        return self.lesson


class GivenCosts(MeasuredCosts):
    """A table of the user's own, or results of another machine or session beside those of this folder."""

    name: ClassVar[str] = "given_costs"

    def __init__(self, cache: Path, seed: int, *, root: str, results: str = "results"):
        """Nothing is read yet.

        Args:
            cache: see `MeasuredCosts`.
            seed: see `MeasuredCosts`.
            root: a CSV of networks, or a results folder whose rows split d learns from.
            results: folder whose networks are judged on where `root` is one as well.
        """
        super().__init__(cache, seed, results=results)
        self.root = Path(root)

    def here(self, question: Question) -> Measurements:
        """The table's networks, or those of this folder."""
        if self.root.is_file():
            return table.read(self.root, question.target)
        return super().here(question)

    def elsewhere(self, question: Question) -> Measurements | None:
        """What the other folder holds.

        Raises:
            TaskError: a split that has no other machine.
        """
        if self.root.is_file():
            if question.split == "d":
                raise TaskError(f"split d takes its table from another results folder, and {self.root} is a file")
            return None
        if question.split != "d":
            raise TaskError(f"{self.root} holds another machine's or session's rows: ask for split='d'")
        return of_folder(str(self.root), question.target)


def of_folder(results: str, target: str) -> Measurements:
    """What a results folder holds; read once in a process for each state of the folder.

    Raises:
        TaskError: there is no such folder yet.
    """
    folder = Store(results)
    if not folder.records.is_dir():
        raise TaskError(f"{results}: nothing was measured here yet; run `python -m bench suite=predict` first")
    files = sorted(folder.records.glob("*.json"))
    return _read(results, target, tuple((file.name, file.stat().st_size) for file in files))


@lru_cache(maxsize=4)
def _read(results: str, target: str, files: tuple[tuple[str, int], ...]) -> Measurements:
    return measured.of_store(Store(results), target)
