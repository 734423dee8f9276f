"""What a worker is told about a case: dotted paths with all settings and where to find files; torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bench.canonical import parse_settings, settings_text
from bench.config import cards
from bench.config.catalogue import Entry
from bench.config.schema import Config
from bench.config.signatures import signature
from bench.plan.case import Case
from bench.plan.plan import Plan


@dataclass(frozen=True)
class Recipe:
    """What it takes to build the subject of a case: dotted paths with all settings, and where to find files.

    `pickle` names a file with a module and inputs that were handed over as objects; then nothing else is needed.
    `stated` is what the cards of model and method say of their rows, for a module that does not say it itself.
    """

    case: Case
    model_path: str = ""
    model_settings: dict[str, Any] = field(default_factory=dict)
    method_path: str | None = None
    method_settings: dict[str, Any] = field(default_factory=dict)
    task_path: str | None = None
    task_settings: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    cache: str = "cache"
    pickle: str | None = None
    stated: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; settings travel as text so that tuples stay tuples."""
        plain = {k: v for k, v in self.__dict__.items() if not k.endswith("_settings") and k != "case"}
        texts = {k: settings_text(v) for k, v in self.__dict__.items() if k.endswith("_settings")}
        return {**plain, **texts, "case": self.case.as_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """What `as_dict` wrote."""
        settings = {k: parse_settings(v) for k, v in data.items() if k.endswith("_settings")}
        return cls(**{**data, **settings, "case": Case.from_dict(data["case"])})


def recipe_for(case: Case, plan: Plan, config: Config) -> Recipe:
    """The recipe of a planned case: catalogue presets and the case's own settings merged."""
    model = plan.models[case.model]
    method = plan.methods.get(case.method)
    task = plan.tasks.get(case.task)
    options = {"root": config.data.root} if config.data.root else {}
    if task and config.checkpoint and task.accepts("checkpoint"):
        options["checkpoint"] = config.checkpoint
    if task and task.accepts("results"):  # what it scores is made from other rows
        options["results"] = config.paths.results
    return recipe_of(case, model, method, task, options, checkpoint=config.checkpoint, cache=config.paths.cache)


def recipe_of(
    case: Case,
    model: Entry,
    method: Entry | None,
    task: Entry | None,
    task_options: dict[str, Any] | None = None,
    *,
    checkpoint: str | None,
    cache: str,
) -> Recipe:
    """The recipe of a case from its entries of the catalogue: presets, and over them the case's own settings."""
    of_model = {**model.settings, **parse_settings(case.model_settings)}
    of_method = {**method.settings, **parse_settings(case.setting)} if method else {}
    return Recipe(
        case=case,
        model_path=model.path,
        model_settings=of_model,
        method_path=method.path if method else None,
        method_settings=of_method,
        task_path=task.path if task else None,
        task_settings={**task.settings, **(task_options or {})} if task else {},
        checkpoint=checkpoint,
        cache=cache,
        stated={**_stated(model, of_model, "model"), **(_stated(method, of_method, "method") if method else {})},
    )


def _stated(entry: Entry, settings: dict[str, Any], kind: Literal["model", "method"]) -> dict[str, Any]:
    """What the card of an entry says of its rows; nothing of one that has no card, a dotted path for example.

    Raises:
        UsageError: the file of cards is malformed.
    """
    if entry.folder is None:
        return {}
    card = cards.of_rows(entry.folder, entry.name, kind)
    if card is None:
        return {}
    defaults = {name: default for name, (_, default) in signature(entry.path).settings.items()}
    return card.stated({**defaults, **settings})
