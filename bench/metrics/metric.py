"""What a metric is, and what the metrics of a section have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Metric:
    """What one quantity is.

    Attributes:
        name: as records, configuration and the library have it.
        unit: in SI, or a plain noun.
        better: which direction is an improvement, if there is one.
        section: groups it in MLflow and in the leaderboard's column chooser.
        title: as a person reads it.
        definition: one sentence or two.
        comparison: how two values are compared, where that differs from the rest of its section.
        of_subject: it belongs to the subject as a whole, in a section whose other metrics are of each part.
    """

    name: str
    unit: str
    better: Direction
    section: str
    title: str
    definition: str
    comparison: Comparison | None = None
    of_subject: bool = False

    def __post_init__(self) -> None:
        if self.section not in SECTIONS:
            raise ValueError(f"metric {self.name}: there is no section {self.section!r} in bench.metrics.SECTIONS")

    @property
    def per_part(self) -> bool:
        """Whether each part of a workload has this quantity; else it belongs to the subject as a whole."""
        return SECTIONS[self.section].per_part and not self.of_subject

    @property
    def compared(self) -> Comparison:
        """How two values of it are compared, wherever that is done: ranks, comparisons, reproductions, claims."""
        return self.comparison or SECTIONS[self.section].compared

    @property
    def travels(self) -> bool:
        """Whether a value of one machine holds on another."""
        return SECTIONS[self.section].travels


#: exact: counted, so equal or not. tolerance: deterministic but measured. time: per process, on logs. ratio: to the
#: other side. energy: within a share. score: by the rule of `bench.scores`. form: a pure number that a closed form
#: gives on any machine, held to it by claims. modelled: follows from others. shown: not compared.
Comparison = Literal["exact", "tolerance", "time", "ratio", "energy", "score", "form", "modelled", "shown"]


@dataclass(frozen=True)
class Section:
    """What the metrics of a section have in common."""

    compared: Comparison = "shown"
    per_part: bool = False
    travels: bool = False


#: Sections in the order of charts and columns; a metric of another section is refused when the table is made.
SECTIONS: dict[str, Section] = {
    "size": Section("exact", travels=True),
    "compute": Section("exact", per_part=True, travels=True),
    "roofline": Section("modelled", per_part=True),
    "latency": Section("time", per_part=True),
    "throughput": Section("time", per_part=True),
    "memory": Section("tolerance", per_part=True, travels=True),
    "hardware": Section(per_part=True),
    "energy": Section("energy", per_part=True),
    "quality": Section("score", travels=True),
    "fidelity": Section(),
    "generation": Section(),
    "sampling": Section(),
    "stream": Section(),
    "training": Section(),
    "pipeline": Section(),
    "split": Section(),
    "operator": Section(),
    "prediction": Section(),
    "method": Section(),
    "inputs": Section(),
}
