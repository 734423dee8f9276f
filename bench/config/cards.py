"""Cards of systems: what each is, where it comes from and what it claims, from the `systems.yaml` beside its suite.

Read without torch and without importing a suite. READMEs, the index of systems and `job=list` are made from cards, and
the battery of `bench.testing` takes from them which checks a system is held to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from bench.canonical import BASELINE_METHOD
from bench.config.catalogue import Catalogue, Entry, check_method, check_model, parse_spec
from bench.config.paths import suite_folders
from bench.config.protocol import Section
from bench.config.schema import DTYPES, Against
from bench.config.signatures import signature, split_path
from bench.config.yaml_file import read_yaml
from bench.errors import UsageError, did_you_mean, no_such
from bench.labels import LABELS

FILE = "systems.yaml"
#: Either it holds, or the reason why it does not.
HoldsOrWhyNot = Literal[True] | str


class Needs(Section):
    """What a system does not run without.

    Attributes:
        extra: extra of this package that brings its library (`pip install waterline-bench[extra]`).
        modules: what that library is imported as.
        device: the kind of device.
    """

    extra: str | None = None
    modules: tuple[str, ...] = ()
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _complete(self) -> Needs:
        if self.extra is not None and not self.modules:
            raise ValueError("an extra needs the modules that it brings, so that tests know whether it is installed")
        return self


class Tiny(Section):
    """A subject so small that a check of it takes milliseconds.

    Attributes:
        model: a model of the catalogue or a dotted path, with settings: `deit_tiny(width=16, depth=4)`.
        method: a method likewise, or `none`.
        shape: the numbers of the workload's shape.
    """

    model: str = Field(min_length=1)
    method: str = BASELINE_METHOD
    shape: dict[str, int | float] = Field({"batch": 2})


class Card(Section):
    """One system.

    Attributes:
        name: its key.
        suite: the folder that it stands in.
        kind: a `system` is what a suite measures; a `network` is a plain network that systems work on or are compared
            with.
        title: as the paper prints it.
        summary: what it does, in a clause for tables.
        arxiv, venue, year: where and when it was published.
        workload: what one run of it is.
        against: the other side of the comparison, as a grid's block says it; `none` is the same model without a method.
        models, methods: names of the catalogue that make its rows.
        settings: those that people sweep, with what each does.
        tiny: the subjects that it is tested by.
        identity: the method at the setting that leaves the plain network as it is, or `no_identity` why there is none.
        identity_tolerance: largest difference from the plain outputs; 0 is bit for bit.
        knowledge: whether all of it could be read (`exact`), some is rebuilt (`reconstruction`), or there are only the
            published numbers (`published only`, no row).
        of: what is rebuilt, or why there is no row.
        library, licence: whose code it is, where it is not ours.
        needs: what it does not run without.
        trains: whether its weights are learned here.
        closed_form: dotted path of `function(model_settings, method_settings) -> MACs of one sample`, matmul
            convention.
        step_form: dotted path of `function(model_settings, method_settings, batch) -> {reading: value}` of a training
            step: `macs_backward` of one sample, `saved_activation_bytes` of the batch, or one of them.
        dtypes: those that it claims to run in on a CPU, or on the device that it needs.
        counts_on_meta: that counts without storage equal counts for real, or why they do not.
        batch_independent: that a batch of two gives what two batches of one give, or why not.
        refuses: specs that must be refused.
        known_failures: check of the battery -> why it fails.
        execution, kernel: labels of its rows (`bench.labels`), unless the module says its own.
        nominal_bits, nominal_activation_bits: of its number format, or the name of the setting that gives them.
    """

    name: str
    suite: str
    kind: Literal["system", "network"] = "system"
    title: str = Field(min_length=3)
    summary: str = Field(min_length=3)
    arxiv: str | None = Field(None, pattern=r"^\d{4}\.\d{4,5}$|^[a-z.-]+/\d{7}$")
    venue: str | None = None
    year: int = Field(ge=1950, le=2100)
    workload: str = "forward"
    against: Literal["none"] | Against = "none"
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    settings: dict[str, str] = Field(default_factory=dict)
    tiny: tuple[Tiny, ...] = ()
    identity: str | None = None
    no_identity: str | None = None
    identity_tolerance: float = Field(0.0, ge=0)
    knowledge: Literal["exact", "reconstruction", "published only"]
    of: str | None = None
    library: str | None = None
    licence: str | None = None
    needs: Needs = Needs()
    trains: bool = False
    closed_form: str | None = None
    step_form: str | None = None
    dtypes: tuple[str, ...] = Field(("fp32",), min_length=1)
    counts_on_meta: HoldsOrWhyNot = True
    batch_independent: HoldsOrWhyNot = True
    refuses: tuple[str, ...] = ()
    known_failures: dict[str, str] = Field(default_factory=dict)
    execution: str | None = None
    kernel: str | None = None
    nominal_bits: float | str | None = None
    nominal_activation_bits: float | str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the catalogue that make its rows."""
        return (*self.models, *self.methods)

    @field_validator("tiny", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("dtypes")
    @classmethod
    def _known(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if value not in DTYPES:
                raise ValueError(no_such("dtype", value, DTYPES))
        return values

    @field_validator("execution", "kernel")
    @classmethod
    def _label(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = LABELS[str(info.field_name)]
        if value is not None and value not in known:
            raise ValueError(no_such(str(info.field_name), value, known))
        return value

    def stated(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What the card says of its rows, by attribute of a module; a setting's name stands for its value.

        Args:
            settings: of the model or method that the card is of, presets included.
        """
        found: dict[str, Any] = {"execution": self.execution, "kernel": self.kernel}
        for name in ("nominal_bits", "nominal_activation_bits"):
            value = getattr(self, name)
            given = settings.get(value) if isinstance(value, str) else value
            found[name] = given if isinstance(given, int | float) and not isinstance(given, bool) else None
        return {name: value for name, value in found.items() if value is not None}

    @field_validator("counts_on_meta", "batch_independent")
    @classmethod
    def _reason(cls, value: HoldsOrWhyNot) -> HoldsOrWhyNot:
        if isinstance(value, str) and len(value) < 10:
            raise ValueError("is true, or a sentence that says why not")
        return value

    @model_validator(mode="after")
    def _filled(self) -> Card:
        for problem in _unfilled(self):
            raise ValueError(problem)
        return self


def _unfilled(card: Card) -> Iterable[str]:
    """What a card still has to say, in the order in which one fills it."""
    if card.arxiv is None and card.venue is None:
        yield "needs an arXiv number or a venue"
    if card.knowledge != "exact" and not card.of:
        yield f"knowledge is {card.knowledge}: say of what"
    if (card.library is None) != (card.licence is None):
        yield "library and licence go together"
    if card.knowledge == "published only":
        if card.names or card.tiny:
            yield "published only means that there is no row: it can have no models, methods or tiny setting"
        return
    if not card.names:
        yield "needs the models or methods that make its rows; without a row its knowledge is published only"
    if not card.tiny:
        yield "needs a tiny setting that it is tested by"
    if card.kind == "network" and card.methods:
        yield "a network is plain: it has no methods"
    if card.methods and (card.identity is None) == (card.no_identity is None):
        yield "needs an identity setting, or says under no_identity why there is none"
    if card.methods and not card.refuses:
        yield "needs settings that are refused"


def load(folders: Iterable[Path] | None = None) -> dict[str, Card]:
    """Every card by its name, in the order of the suites and their files.

    Raises:
        UsageError: a file is malformed, a card is unfilled, or two systems have one name.
    """
    found: dict[str, Card] = {}
    for folder in suite_folders() if folders is None else folders:
        for card in read(folder):
            if card.name in found:
                raise UsageError(
                    f'{folder / FILE}: system "{card.name}" is already defined in suite {found[card.name].suite}; '
                    "rename one"
                )
            found[card.name] = card
    return found


@cache
def of_rows(folder: Path, name: str, kind: Literal["model", "method"]) -> Card | None:
    """The card of a model's or method's own rows in the suite folder that defines it; None without one.

    A card with methods is no card of the plain models that they work on.
    """
    for card in read(folder):
        if name in (card.methods if kind == "method" else card.models) and (kind == "method" or not card.methods):
            return card
    return None


def read(folder: Path) -> list[Card]:
    """The cards of one suite; none where it has no file of them.

    Raises:
        UsageError: the file is malformed or a card is unfilled; the message names the file, the system and the key.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    content = read_yaml(file)
    for key in content:
        if key not in ("defaults", "systems"):
            raise UsageError(f'{file}: unknown key "{key}"; {did_you_mean(key, ("defaults", "systems"))}')
    defaults, systems = content.get("defaults") or {}, content.get("systems")
    if not isinstance(systems, dict) or not isinstance(defaults, dict):
        raise UsageError(f"{file}: must have a mapping of names to cards under `systems`")
    return [_card(str(name), value, defaults, file) for name, value in systems.items()]


def _card(name: str, value: Any, defaults: Mapping[str, Any], file: Path) -> Card:
    where = f"{file}: system {name}"
    if not isinstance(value, dict):
        raise UsageError(f"{where}: must be a mapping")
    for key in ("name", "suite"):
        if key in value:
            raise UsageError(f"{where}: the {key} is not given, it follows from where the card stands")
    try:
        return Card(**{**defaults, **value, "name": name, "suite": file.parent.name})
    except ValidationError as error:
        raise UsageError("\n".join(f"{where}: {line}" for line in _lines(error))) from error


def _lines(error: ValidationError) -> list[str]:
    """One line per problem: the key, and what is wrong with it."""
    lines = []
    for item in error.errors():
        at = ".".join(str(part) for part in item["loc"])
        message = str(item["msg"]).removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = next((m for key, m in _INNER.items() if key in item["loc"][:-1]), Card)
            message = f'unknown key "{item["loc"][-1]}"; {did_you_mean(str(item["loc"][-1]), known.model_fields)}'
        elif item["type"] == "missing":
            message = f'the key "{at}" is missing'
        elif at:
            message = f"{at}: {message}"
        lines.append(message)
    return list(dict.fromkeys(lines))


_INNER: dict[str, type[BaseModel]] = {"needs": Needs, "tiny": Tiny, "against": Against}


# -- cards and the catalogue --------------------------------------------------------------------------------------


def problems(cards: Mapping[str, Card], catalogue: Catalogue) -> list[str]:
    """What does not fit between the cards and the catalogue, a sentence each; empty where all is well."""
    found = [
        f"{card.suite}: system {card.name}: {text}" for card in cards.values() for text in _misfits(card, catalogue)
    ]
    for kind, entries in (("method", catalogue.methods), ("model", catalogue.models)):
        named = {name for card in cards.values() for name in (card.methods if kind == "method" else card.models)}
        for entry in entries.values():
            if entry.name not in named:
                suite = entry.folder.name if entry.folder else "?"
                found.append(f'{suite}: {kind} "{entry.name}" of the catalogue has no card in {suite}/{FILE}')
    return found


def _misfits(card: Card, catalogue: Catalogue) -> Iterable[str]:
    """What a card says that the catalogue does not know."""
    for kind, names, known in (("model", card.models, catalogue.models), ("method", card.methods, catalogue.methods)):
        for name in names:
            if name not in known and name.partition(":")[0] not in catalogue.prefixes:
                yield f'{kind} "{name}" is not in the catalogue; {did_you_mean(name, known)}'
    yield from _spec_misfits(card, catalogue)
    yield from _untested(card, catalogue)
    paths = [entry.path for entry in _entries(card, catalogue)]
    taken = {name for path in paths for name in signature(path).settings}
    bits = [value for value in (card.nominal_bits, card.nominal_activation_bits) if isinstance(value, str)]
    for name in [*card.settings, *bits]:
        if name not in taken and not any(signature(path).open for path in paths):
            yield f'none of its models and methods takes the setting "{name}"; {did_you_mean(name, taken)}'
    for key, path in (("closed_form", card.closed_form), ("step_form", card.step_form)):
        if path is None:
            continue
        try:
            split_path(path)
            signature(path)
        except UsageError as error:
            yield f"{key}: {error}"


def _entries(card: Card, catalogue: Catalogue) -> list[Entry]:
    """Entries of the catalogue behind a card; names that are not there are told elsewhere."""
    models = [catalogue.models[name] for name in card.models if name in catalogue.models]
    behind = {name.partition(":")[0] for name in card.models if ":" in name}
    models += [catalogue.prefixes[prefix] for prefix in sorted(behind) if prefix in catalogue.prefixes]
    return models + [catalogue.methods[name] for name in card.methods if name in catalogue.methods]


def _spec_misfits(card: Card, catalogue: Catalogue) -> Iterable[str]:
    """Specs of the card that are no model or method with settings that these take."""
    models = [("tiny", tiny.model) for tiny in card.tiny]
    methods = [("tiny", tiny.method) for tiny in card.tiny if tiny.method != BASELINE_METHOD]
    methods += [("identity", card.identity)] if card.identity is not None else []
    if isinstance(card.against, Against):
        models += [("against", card.against.model)] if card.against.model is not None else []
        methods += [("against", card.against.method)] if card.against.method not in (None, BASELINE_METHOD) else []
    for where, spec, kind in [*((w, s, "model") for w, s in models), *((w, s, "method") for w, s in methods)]:
        try:
            name, settings = parse_spec(spec)
            if kind == "model":
                check_model(catalogue.model(name), settings)
            else:
                check_method(catalogue.method(name), settings)
        except UsageError as error:
            yield f"{where}: {error}"
    for spec in card.refuses:
        name = spec.partition("(")[0].strip()
        if name not in card.names:
            yield f'refuses: "{name}" is none of its models and methods; {did_you_mean(name, card.names)}'


def _untested(card: Card, catalogue: Catalogue) -> Iterable[str]:
    """Methods and builders of the card that no tiny setting builds."""
    tried = {parse_spec(tiny.method)[0] for tiny in card.tiny}
    for name in card.methods:
        if name not in tried:
            yield f'method "{name}" has no tiny setting'
    if card.methods:
        return  # its models are there for the method
    try:
        built = {catalogue.model(parse_spec(tiny.model)[0]).path for tiny in card.tiny}
    except UsageError:
        return  # told above
    for entry in _entries(card, catalogue):
        if entry.path not in built:
            yield f'model "{entry.name}" is built by {entry.path}, which no tiny setting uses'
