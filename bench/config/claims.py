"""The claims of a suite's papers as data: `claims.yaml`, read and checked without torch or pandas.

A file has `claims`, a list of entries with the fields of `Claim`, and may have `assume`: fields that hold for every
entry that does not give its own (the field's usual resolution, the data of its accuracies).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench import workloads
from bench.canonical import BASELINE_METHOD, parse_settings, settings_text
from bench.config.axes import BY_NAME, CROSSABLE
from bench.config.yaml_file import read_yaml
from bench.conventions import CONVENTIONS
from bench.errors import UsageError, did_you_mean, no_such
from bench.foreign_text import shortened
from bench.metrics import METRICS
from bench.scores import RULES

FILE = "claims.yaml"
#: Fields that an entry may take from the file's `assume`.
ASSUMABLE = (
    "resolution",
    "tasks",
    "samples",
    "workload",
    "part",
    "backend",
    "shape",
    "hardware",
    "convention",
    "counted_as",
)
_NEEDED = ("method", "metric", "value", "unit", "relative_to_baseline", "mode", "hardware", "convention", "source")
#: No quantity of a paper is larger.
_LARGEST = 1e60
#: Decimal prefixes that a printed number may carry.
_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_PRINTED = re.compile(r"(\d+(?:\.(\d+))?) ?([kMGT]?)")


@dataclass(frozen=True)
class Claim:
    """One number of one paper.

    With `relative_to_baseline` the value is the case over the side that it is compared with (scores: the difference, in
    percentage points where they are percent); that side is the plain model, or what `against` names.

    Attributes:
        method: a method's name, or `none` for a claim about a model.
        metric: in the metrics table.
        value: the claim; of a misprint what it should read.
        unit: of the value.
        relative_to_baseline: see above.
        mode: off-the-shelf (no training) or trained.
        hardware: what a time is about; `any` for counts.
        convention: how the number was counted or timed, in words.
        source: paper and place.
        model: the subject; None where the claim is about no single model.
        setting: canonical text of the method's settings; None where the paper's own is not one setting of ours.
        tolerance: relative difference that still reproduces the claim (of a difference of scores: points); None where
            no measurement here could.
        comparable_when: what a measurement needs to be set beside the claim.
        note: for the reader.
        resolution: pixels of the rows that are meant; None for any.
        printed: a count as the paper prints it, `2.7 G`: a count reproduces it if it would be printed alike.
        plain: the plain model's score in the paper: a score off the shelf is judged only on weights that score the
            same.
        part: of the workload; None is the whole run or the subject.
        workload: what one run is; None for any.
        shape: canonical text of axes of the workload that a row must have, `new_tokens=32`.
        backend: None for any.
        task: of the rows that are meant; None for any.
        against: canonical text of what the other side is, `model='resnet50'`; empty is whatever the case is compared
            with, which is the plain model unless the grid names another.
        counted_as: a name of `bench.conventions.CONVENTIONS`: what was counted here is converted to that first.
        factor: times what was counted here, where the paper's convention is a plain factor.
        as_printed: a misprint as the paper has it, shown beside the value.
        follows_from_its_own_table: whether the value follows from the paper's own table; None where it was not looked
            at.
        tasks: tasks whose data may be the paper's own.
        samples: how many samples the paper's score is of; None where that does not matter.
        suite: the folder that the claim stands in.
    """

    method: str
    metric: str
    value: float
    unit: str
    relative_to_baseline: bool
    mode: str
    hardware: str
    convention: str
    source: str
    model: str | None = None
    setting: str | None = None
    tolerance: float | None = None
    comparable_when: str = ""
    note: str = ""
    resolution: int | None = None
    printed: str | None = None
    plain: float | None = None
    part: str | None = None
    workload: str | None = None
    shape: str = ""
    backend: str | None = None
    task: str | None = None
    against: str = ""
    counted_as: str | None = None
    factor: float | None = None
    as_printed: str | None = None
    follows_from_its_own_table: bool | None = None
    tasks: tuple[str, ...] = ()
    samples: int | None = None
    suite: str = ""

    @property
    def is_of_model(self) -> bool:
        """Whether the claim is about a model as it is, without a method."""
        return self.method == BASELINE_METHOD

    @property
    def counting(self) -> str:
        """How what was counted here is made the paper's, in words; nothing where it is taken as it is."""
        if self.counted_as is not None:
            return f"counted as {self.counted_as}: {CONVENTIONS[self.counted_as][0]}"
        return "" if self.factor is None else f"{self.factor:g} times what is counted here"

    @property
    def misprint(self) -> str:
        """What the paper prints instead of the value, and whether its own table bears the value out."""
        said = [f"the paper prints {self.as_printed}"] if self.as_printed else []
        if self.follows_from_its_own_table is not None:
            said.append(
                "the value "
                + ("follows" if self.follows_from_its_own_table else "does not follow")
                + " from the paper's own table"
            )
        return "; ".join(said)

    @property
    def text(self) -> str:
        """The claim as a sentence: who promises what of what."""
        method = f"{self.method}({self.setting})" if self.setting else self.method
        subject = f"{method} on {self.model}" if self.model else method
        if self.is_of_model:
            subject = self.model or "the model"
        named = f" against {self.against}" if self.against else ""
        what = METRICS[self.metric].title + (f" of {self.part}" if self.part else "")
        where = "" if self.hardware == "any" else f"; {self.hardware}"
        return f"{subject}{named}: {what} {amount(self)} ({self.mode}{where})"


def load(folder: Path) -> list[Claim]:
    """The claims of a suite's folder; none where it has no `claims.yaml`.

    Raises:
        UsageError: the file is not as described; the message names the entry and the field.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    tree = read_yaml(file)
    entries, assumed = tree.get("claims"), tree.get("assume") or {}
    if not isinstance(entries, list):
        raise UsageError(f"{file}: must have a list under `claims`")
    if not isinstance(assumed, dict):
        raise UsageError(f"{file}: `assume` must be a mapping")
    for name in assumed:
        if name not in ASSUMABLE:
            raise UsageError(f'{file}: assume: unknown field "{name}"; {did_you_mean(str(name), ASSUMABLE)}')
    return [_claim(entry, assumed, f"{file}: claim {number}", folder.name) for number, entry in enumerate(entries, 1)]


def digits(printed: str) -> tuple[int, float]:
    """Decimals and scale of a printed number: `2.7 G` has one and 1e9.

    Raises:
        ValueError: it is none.
    """
    found = _PRINTED.fullmatch(printed)
    if found is None:
        raise ValueError(f"{printed!r} is not a number as it is printed, such as 2.7 G")
    return len(found[2] or ""), _SCALES[found[3]]


def quantity(value: float, unit: str) -> str:
    """A count in G or M of its unit, anything else as it is."""
    for scale, prefix in ((1e9, "G"), (1e6, "M")):
        if unit in ("MAC", "FLOP", "parameter", "B", "op", "bitop") and abs(value) >= scale:
            return f"{value / scale:.5g} {prefix}{unit}"
    return f"{value:.5g} {unit}"


def amount(claim: Claim) -> str:
    """The claimed value in words."""
    if not claim.relative_to_baseline:
        return quantity(claim.value, claim.unit)
    other = "the other side" if claim.against else "the plain model"
    if claim.metric in RULES:
        return f"{claim.value:+g} {RULES[claim.metric].unit} against {other}"
    return f"{claim.value:g}x" if claim.metric == "speedup" else f"{claim.value:g} of {other}"


def canonical(settings: Any, where: str) -> str:
    """Settings given as text (`r=13`) or as a mapping, in their one spelling.

    Raises:
        UsageError: they cannot be read.
    """
    try:
        return settings_text(dict(settings) if isinstance(settings, Mapping) else parse_settings(str(settings)))
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


# ---------------------------------------------------------------------------------------------- one entry


def _claim(entry: Any, assumed: Mapping[str, Any], where: str, suite: str) -> Claim:
    """One entry of the file, checked, with what the file assumes."""
    names = [field.name for field in fields(Claim) if field.name != "suite"]
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: must be a mapping")
    for name in entry:
        if name not in names:
            raise UsageError(f'{where}: unknown field "{name}"; {did_you_mean(str(name), names)}')
    whole = {**assumed, **entry}
    missing = [name for name in _NEEDED if name not in whole]
    if missing:
        raise UsageError(f"{where}: needs {', '.join(missing)}")
    _check(whole, where)
    setting = "" if whole["method"] == BASELINE_METHOD else whole.get("setting")
    changes = {
        "value": float(whole["value"]),
        "suite": suite,
        "tasks": tuple(whole.get("tasks") or ()),
        "setting": None if setting is None else canonical(setting, where),
        "shape": canonical(whole.get("shape") or {}, f"{where}: shape"),
        "against": _against(whole.get("against"), where),
    }
    return Claim(**{**whole, **changes})


#: Fields that are texts in the class and may be mappings in the file.
_TEXT_OR_MAPPING = ("setting", "shape", "against")


def _check_kinds(entry: Mapping[str, Any], where: str) -> None:
    """Raise UsageError unless texts are texts, as their fields are declared, and tasks a list of names."""
    for one in fields(Claim):
        value, kind = entry.get(one.name), str(one.type)
        if not kind.startswith("str") or (value is None and one.name not in _NEEDED):
            continue
        wanted = (str, int, float, Mapping) if one.name in _TEXT_OR_MAPPING else (str,)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UsageError(f"{where}: {one.name} must be a text, not {shortened(repr(value))}")
    tasks = entry.get("tasks") or ()
    if not isinstance(tasks, list | tuple) or not all(isinstance(task, str) for task in tasks):
        raise UsageError(f"{where}: tasks must be a list of names, not {shortened(repr(tasks))}")


def _check(entry: Mapping[str, Any], where: str) -> None:
    """Raise UsageError unless every field of an entry is of its kind and the names in it exist."""
    _check_kinds(entry, where)
    if entry["metric"] not in METRICS:
        raise UsageError(f"{where}: metric {entry['metric']!r}; {did_you_mean(str(entry['metric']), METRICS)}")
    for name in ("value", "tolerance", "plain", "factor", "samples", "resolution"):
        number = entry.get(name)
        if number is None and name not in _NEEDED:
            continue
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < _LARGEST:
            raise UsageError(f"{where}: {name} must be a number, not {shortened(repr(number))}")
    for name in ("relative_to_baseline", "follows_from_its_own_table"):
        if not isinstance(entry.get(name, False), bool | None) or (name in _NEEDED and entry[name] is None):
            raise UsageError(f"{where}: {name} must be true or false")
    if entry.get("printed") is not None:
        _check_print(entry["printed"], float(entry["value"]), where)
    for name in ("as_printed", "convention", "part", "backend", "task", "model"):
        if entry.get(name) is not None and not isinstance(entry[name], str):
            raise UsageError(f"{where}: {name} must be a text, not {entry[name]!r}")
    _check_counting(entry, where)
    try:
        shape = parse_settings(canonical(entry.get("shape") or {}, f"{where}: shape"))
        if shape and entry.get("workload") is None:
            raise UsageError("shape names axes of a workload: say which with workload")
        _check_workload(str(entry.get("workload") or workloads.FORWARD), shape)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _check_workload(name: str, shape: Iterable[str]) -> None:
    """Raise UsageError unless the workload exists and has the axes; of a user's own module only the name is read."""
    if workloads.is_own(name):
        return
    found = workloads.find(name)
    for axis in shape:
        found.axis(axis)


def _check_counting(entry: Mapping[str, Any], where: str) -> None:
    """Raise UsageError unless the convention exists and is about a count of work."""
    named, factor = entry.get("counted_as"), entry.get("factor")
    if named is not None and named not in CONVENTIONS:
        raise UsageError(f"{where}: {no_such('counted_as', str(named), CONVENTIONS)}")
    if named is not None and entry["metric"] != "macs":
        raise UsageError(f"{where}: counted_as is about macs, not about {entry['metric']}")
    if named is not None and factor is not None:
        raise UsageError(f"{where}: counted_as and factor both convert the count: keep one")
    if factor is not None and factor <= 0:
        raise UsageError(f"{where}: factor must be above 0")


def _check_print(printed: Any, value: float, where: str) -> None:
    """Raise UsageError unless the printed number is one and is the claim's value."""
    try:
        places, scale = digits(str(printed))
    except ValueError as error:
        raise UsageError(f"{where}: printed: {error}") from error
    if not isinstance(printed, str) or f"{value / scale:.{places}f}" != printed.partition(" ")[0].rstrip("kMGT"):
        raise UsageError(f"{where}: printed {printed!r} is not the value {value:g}")


def _against(named: Any, where: str) -> str:
    """The other side as canonical text of the axes in which it differs."""
    if named in (None, ""):
        return ""
    text = canonical({"model": named} if isinstance(named, str) and "=" not in named else named, f"{where}: against")
    for axis in parse_settings(text):
        if axis not in CROSSABLE:
            known = [name for name in CROSSABLE if name in BY_NAME]
            raise UsageError(f'{where}: against: unknown axis "{axis}"; {did_you_mean(str(axis), known)}')
    return text
