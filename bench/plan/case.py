"""One point of a suite: everything that can change its numbers, and the keys made from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from bench.canonical import BASELINE_METHOD, digest, parse_settings, settings_text
from bench.config.axes import AXES, BY_NAME, CROSSABLE, ITSELF


@dataclass(frozen=True)
class Case:
    """A subject and the conditions it is measured under; every field is an axis of `bench.config.axes`.

    Settings and shape are canonical text (see `bench.canonical.settings_text`). `subject_digest` is a hash of the
    source of the model and the method, `checkpoint` one of the weights file, `data` one of the user's data, and
    `protocol` the hash of the protocol's parameters: change one and it is another case. `shape` holds the workload's
    axes but batch and resolution. `against` names the other side: the axes in which it differs from this case, or
    `itself`; empty is the same model with the method `none`.
    """

    suite: str
    model: str
    method: str = BASELINE_METHOD
    model_settings: str = ""
    setting: str = ""
    device: str = "cpu"
    dtype: str = "fp32"
    batch: int = 1
    resolution: int | None = None
    task: str = "none"
    data: str | None = None
    checkpoint: str | None = None
    seed: int = 0
    threads: int = 1
    compile: str = "off"
    cuda_graphs: bool = False
    memory_format: str = "contiguous"
    protocol: str = ""
    subject_digest: str = ""
    workload: str = "forward"
    shape: str = ""
    backend: str = "eager"
    against: str = ""
    against_digest: str = ""

    @cached_property
    def key(self) -> str:
        """Hash of every axis of a case's identity: the same work in two suites is the same case."""
        kept = {
            axis.name: getattr(self, axis.name)
            for axis in AXES
            if axis.identity and not (axis.late and getattr(self, axis.name) == axis.default)
        }
        return digest(kept)

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with this case."""
        return self.against == ITSELF or (not self.against and self.method == BASELINE_METHOD)

    @property
    def plain(self) -> Case:
        """The same model under the same conditions without a method, compared with nothing."""
        return replace(
            self, method=BASELINE_METHOD, setting="", subject_digest=self.model_digest, against="", against_digest=""
        )

    @property
    def baseline(self) -> Case:
        """The case that this one is compared with: the named other side, else the same model with method `none`."""
        if self.is_baseline:
            return self
        if not self.against:
            return self.plain
        named = parse_settings(self.against)
        other = replace(self, **named, subject_digest=self.against_digest, against="", against_digest="")
        return other if other.is_baseline else replace(other, against=ITSELF)

    def compared_with(self, other: Case) -> Case:
        """This case with `other` as its baseline; `other` itself becomes a baseline.

        Raises:
            ValueError: the two differ in an axis in which the sides of a comparison must be alike, or in their source
                alone.
        """
        alone = replace(self, against="", against_digest="")
        rival = replace(other, against="", against_digest="")
        if alone == rival:
            return alone if alone.is_baseline else replace(alone, against=ITSELF)
        if alone.baseline == rival:
            return alone
        differing = [a.name for a in AXES if a.identity and getattr(alone, a.name) != getattr(rival, a.name)]
        unlike = [name for name in differing if name not in CROSSABLE and name != "subject_digest"]
        if unlike:
            raise ValueError(f"the sides of a comparison must be alike in {', '.join(unlike)}")
        named = {name: getattr(rival, name) for name in differing if name in CROSSABLE}
        if not named:
            raise ValueError("the sides of a comparison differ in nothing but their source")
        return replace(alone, against=settings_text(named), against_digest=rival.subject_digest)

    @property
    def model_digest(self) -> str:
        """The part of `subject_digest` that the model alone accounts for."""
        return self.subject_digest.split("+")[0]

    @cached_property
    def group_key(self) -> str:
        """Hash of what a group shares: the case that its members are compared with."""
        return self.baseline.key

    @property
    def axes(self) -> dict[str, Any]:
        """The workload's shape without its batch and resolution, by axis."""
        return parse_settings(self.shape)

    @property
    def full_shape(self) -> dict[str, Any]:
        """The workload's whole shape by axis."""
        return {"batch": self.batch, "resolution": self.resolution, **self.axes}

    @property
    def method_label(self) -> str:
        """The method with its setting, as a suite file spells it: `tome(r=13)`."""
        return spec_text(self.method, self.setting)

    @property
    def model_label(self) -> str:
        """The model with its settings, as a suite file spells it."""
        return spec_text(self.model, self.model_settings)

    @property
    def label(self) -> str:
        """One line for people: model, method with setting, and the conditions that are not the default."""
        parts = [self.model_label, self.method_label]
        if self.workload != "forward":
            parts.append(self.workload)
        if self.resolution is not None:
            parts.append(f"{self.resolution}px")
        parts.append(f"batch {self.batch}")
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in self.axes.items() if value is not None]
        for name in ("dtype", "backend", "device", "compile", "cuda_graphs", "memory_format"):
            value, axis = getattr(self, name), BY_NAME[name]
            if value != axis.default and not (name == "compile" and self.backend == "compile"):
                parts.append(axis.title if name == "cuda_graphs" else axis.show(value))
        return " · ".join(parts)

    @property
    def against_label(self) -> str:
        """The other side in words; empty for a baseline."""
        if self.is_baseline:
            return ""
        other = self.baseline
        parts = [other.model_label] if other.method == BASELINE_METHOD else [other.model_label, other.method_label]
        parts += [
            BY_NAME[name].show(getattr(other, name))
            for name in CROSSABLE
            if BY_NAME[name].condition and getattr(other, name) != getattr(self, name)
        ]
        return " · ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The case as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Case:
        """The case that `as_dict` wrote; unknown keys are refused."""
        unknown = set(data) - _FIELDS
        if unknown:
            raise ValueError(f"not fields of a case: {sorted(unknown)}")
        return cls(**data)


_FIELDS = frozenset(field.name for field in fields(Case))


def spec_text(name: str, settings: str) -> str:
    """A model or a method with its settings, as a suite file spells it."""
    return f"{name}({settings})" if settings else name
