"""What is tested: a model and a method at a tiny setting, with its claims; from a card or by hand; torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import workloads
from bench.canonical import BASELINE_METHOD, settings_text
from bench.config import cards, catalogue
from bench.config.cards import Card, HoldsOrWhyNot
from bench.config.catalogue import Entry, check_method, check_model, parse_spec
from bench.config.paths import extend_import_path, suite_folders
from bench.plan.case import Case
from bench.plan.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, and a method, as the battery takes them.

    Attributes:
        name: what its tests are called.
        model, method: a name of the catalogue or a dotted path, with settings, so small that a forward takes
            milliseconds.
        shape: numbers of the workload's shape.
        workload: what one run is.
        identity: the method at the setting that leaves the plain network as it is; None where there is none.
        identity_tolerance: largest difference from the plain outputs; 0 is bit for bit.
        closed_form: dotted path of `function(model_settings, method_settings) -> MACs of one sample`, matmul
            convention.
        step_form: dotted path of `function(model_settings, method_settings, batch) -> {reading: value}` of a training
            step, as readings have them: `macs_backward` of one sample, `saved_activation_bytes` of the batch.
        dtypes: those that it must run in.
        device: where it runs.
        counts_on_meta, batch_independent: True, or why not (see `bench.config.cards.Card`).
        refuses: specs that must be refused.
        modules: what must be installed; without them nothing is tested.
        known_failures: name of a check -> why it fails; passing is then an error.
    """

    name: str
    model: str
    method: str = BASELINE_METHOD
    shape: Mapping[str, Any] = field(default_factory=lambda: {"batch": 2})
    workload: str = "forward"
    identity: str | None = None
    identity_tolerance: float = 0.0
    closed_form: str | None = None
    step_form: str | None = None
    dtypes: tuple[str, ...] = ("fp32",)
    device: str = "cpu"
    counts_on_meta: HoldsOrWhyNot = True
    batch_independent: HoldsOrWhyNot = True
    refuses: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    known_failures: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def missing_module(self) -> str | None:
        """A module that is needed and not installed."""
        return next((name for name in self.modules if find_spec(name) is None), None)

    def entries(self) -> tuple[Entry, dict[str, Any], Entry | None, dict[str, Any]]:
        """Entry and settings of the model and of the method, checked.

        Raises:
            UsageError: a name that does not exist, or a setting that is refused.
        """
        model, of_model = entry_of(self.model)
        if self.method == BASELINE_METHOD:
            return model, of_model, None, {}
        method, of_method = entry_of(self.method, is_method=True)
        return model, of_model, method, of_method

    def recipe(
        self, *, method: str | None = None, dtype: str = "fp32", seed: int = 0, batch: int | None = None
    ) -> Recipe:
        """What it takes to build it.

        Args:
            method: another method than its own, `none` for the plain model.
            dtype: as suites call it.
            seed: of weights and inputs.
            batch: another batch than its own.
        """
        model, of_model, own, of_own = self.entries()
        if method is not None:
            own, of_own = (None, {}) if method == BASELINE_METHOD else entry_of(method, is_method=True)
        axes = {axis.name: axis.default for axis in workloads.find(self.workload).axes}
        shape = {**axes, **self.shape, **({"batch": batch} if batch is not None else {})}
        case = Case(
            suite="testing",
            model=model.name,
            method=own.name if own else BASELINE_METHOD,
            model_settings=settings_text(of_model),
            setting=settings_text(of_own),
            device=self.device,
            dtype=dtype,
            seed=seed,
            batch=shape.pop("batch", 1),
            resolution=shape.pop("resolution", None),
            workload=self.workload,
            shape=settings_text(shape),
        )
        return Recipe(
            case,
            model.path,
            {**model.settings, **of_model},
            own.path if own else None,
            {**own.settings, **of_own} if own else {},
        )


def entry_of(spec: str, *, is_method: bool = False) -> tuple[Entry, dict[str, Any]]:
    """The catalogue's entry behind a spec, and its settings, checked.

    Raises:
        UsageError: a name that does not exist, or a setting that is refused.
    """
    extend_import_path()
    known, (name, settings) = _catalogue(tuple(suite_folders())), parse_spec(spec)
    entry = known.method(name) if is_method else known.model(name)
    (check_method if is_method else check_model)(entry, settings)
    return entry, settings


@cache
def _catalogue(folders: tuple[Path, ...]) -> catalogue.Catalogue:
    return catalogue.load(list(folders))


def subjects_of(card: Card) -> list[Subject]:
    """A subject for each tiny setting of a card; none for a system without a row."""
    several = len(card.tiny) > 1
    return [
        Subject(
            f"{card.name}-{number}" if several else card.name,
            tiny.model,
            tiny.method,
            dict(tiny.shape),
            card.workload,
            card.identity,
            card.identity_tolerance,
            card.closed_form,
            card.step_form,
            card.dtypes,
            card.needs.device,
            card.counts_on_meta,
            card.batch_independent,
            card.refuses,
            card.needs.modules,
            card.known_failures,
        )
        for number, tiny in enumerate(card.tiny, start=1)
    ]


def subjects_of_suites(folders: Iterable[Path] | None = None) -> list[Subject]:
    """The subjects of every card of every suite."""
    return [subject for card in cards.load(folders).values() for subject in subjects_of(card)]
