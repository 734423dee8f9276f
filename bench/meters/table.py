"""Every meter of a probe, once: its name, the metrics it gives, when it runs, and where its details stand in a record.

A further meter is one file and one line here; `take` is the dotted path of its function, which is given the built
subject, what was made ready of it and the part, and gives readings and details. Without torch, so that anybody may look
things up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["memory", "counting", "running"]


@dataclass(frozen=True)
class Meter:
    """What takes one quantity of a case, alone in its process.

    Attributes:
        name: as a sweep and `bench.measure` ask for it.
        section: of the metrics that it gives; empty where they are of several.
        stage: `memory` before anything else, `counting` without gradients, `running` as the case is timed.
        per_part: whether each part of the workload is taken by itself.
        details: the part of a record that holds what it found besides readings; default its name.
        take: `package.module:function(subject, ready, part)`; empty where the probe has it itself.
    """

    name: str
    section: str
    stage: Stage
    per_part: bool = False
    details: str = ""
    take: str = ""

    @property
    def key(self) -> str:
        """Where its details stand in a record."""
        return self.details or self.name


#: In the order in which a probe runs them. Quality comes after energy: batches of another size make a compiler compile
#: again for sizes that change. Fidelity is last: it builds another subject in the process.
METERS: tuple[Meter, ...] = (
    Meter("memory", "memory", "memory", per_part=True),
    Meter("params", "size", "counting"),
    Meter("macs", "compute", "counting", per_part=True, details="counts"),
    Meter("facts", "", "counting", details="workload"),
    Meter("hardware", "hardware", "running", per_part=True, take="bench.meters.hardware:take"),
    Meter("energy", "energy", "running", per_part=True),
    Meter("quality", "quality", "running"),
    Meter("fidelity", "fidelity", "running"),
)
BY_NAME: dict[str, Meter] = {meter.name: meter for meter in METERS}
NAMES: tuple[str, ...] = tuple(BY_NAME)
