"""One point of a suite: everything that can change its numbers, and the keys made from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from bench.canonical import BASELINE_METHOD, digest


@dataclass(frozen=True)
class Case:
    """A subject and the conditions it is measured under; `settings` are canonical text (see `settings_text`).

    `subject_digest` is a hash of the source of the model and the method, `checkpoint` one of the weights file, `data`
    one of the user's data, and `protocol` the hash of the protocol's parameters: change one and it is another case.
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

    @property
    def key(self) -> str:
        """Hash of every field but the suite's name: the same work in two suites is the same case."""
        return digest({k: v for k, v in asdict(self).items() if k != "suite"})

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with this case."""
        return self.method == BASELINE_METHOD

    @property
    def baseline(self) -> Case:
        """The case that this one is compared with: the same model and conditions, method `none`."""
        return replace(self, method=BASELINE_METHOD, setting="", subject_digest=self.model_digest)

    @property
    def model_digest(self) -> str:
        """The part of `subject_digest` that the model alone accounts for."""
        return self.subject_digest.split("+")[0]

    @property
    def group_key(self) -> str:
        """Hash of what a group shares: everything but method, setting and the method's source."""
        return self.baseline.key

    @property
    def method_label(self) -> str:
        """The method with its setting, as a suite file spells it: `tome(r=13)`."""
        return f"{self.method}({self.setting})" if self.setting else self.method

    @property
    def label(self) -> str:
        """One line for people: model, method with setting, and the conditions that are not the default."""
        model = f"{self.model}({self.model_settings})" if self.model_settings else self.model
        parts = [model, self.method_label]
        if self.resolution is not None:
            parts.append(f"{self.resolution}px")
        parts.append(f"batch {self.batch}")
        parts += [self.dtype] if self.dtype != "fp32" else []
        parts += [self.device] if self.device != "cpu" else []
        parts += [f"compile {self.compile}"] if self.compile != "off" else []
        parts += ["CUDA graphs"] if self.cuda_graphs else []
        parts += [self.memory_format] if self.memory_format != "contiguous" else []
        return " · ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The case as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Case:
        """The case that `as_dict` wrote; unknown keys are refused."""
        known = {field.name for field in fields(cls)}
        unknown = set(data) - known
        if unknown:
            raise ValueError(f"not fields of a case: {sorted(unknown)}")
        return cls(**data)
