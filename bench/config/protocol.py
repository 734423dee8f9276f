"""The measurement protocol in its versions: every number of it, and the hash that stands in every row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.canonical import digest

#: Versions that can measure; the first is in force, the second is asked for by name (`protocol=v2/quick`).
VERSIONS = (1, 2)
#: Settings that say where something lies on this machine: they change no number, and a record names no paths.
PLACES: dict[str, set[str]] = {"energy": {"csv"}}
#: Limits of labels and of verdicts, with the value that was in force before each became a parameter. They change
#: nothing that is timed, so a record without one of them was measured as if it had this value, whatever the default is
#: today. What decides which processes run or count (`preempted_loss`, `l2`, `further_invocations`) has no place here.
BEFORE: dict[str, dict[str, Any]] = {
    "latency": {
        "busy_cores": 0.25,
        "pressure_share": 0.05,
        "steal_share": 0.01,
        "switches_per_s": 25.0,
        "drift": 0.02,
        "page_faults": 10.0,
        "margin": 0.02,
        "equivalence": 0.05,
    }
}
#: Values of version 2's `standard`, where version 1's, which are the defaults below, are others.
DEFAULTS_2: dict[str, dict[str, Any]] = {
    "latency": {
        "max_invocations": 15,
        "absolute_half_width": None,
        "fewest_samples": 20,
        "most_samples": 400,
        "warm_by_evidence": True,
        "throughput_processes": 3,
        "twin_control": True,
        "by_rounds": True,
        "long_run_s": 1.0,
        "long_invocations": 3,
    },
    "counting": {"layer_processes": 1},
}
#: Parameters that came with version 2. They are no part of version 1's parameters, so its hashes hold and rows that
#: were measured by it are still its rows; the defaults below say what version 1 does.
SINCE_2: dict[str, tuple[str, ...]] = {
    "latency": (
        "fewest_samples",
        "most_samples",
        "between",
        "one_piece",
        "warm_by_evidence",
        "throughput_processes",
        "twin_control",
        "by_rounds",
        "long_run_s",
        "long_samples",
        "long_invocations",
    ),
    "counting": ("layer_processes",),
}


class Section(BaseModel):
    """A frozen section of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(Section):
    """How time is taken; see docs/protocol.md for the reason behind each value."""

    invocations: int = Field(5, ge=1, le=1000, description="fresh processes at least")
    max_invocations: int = Field(10, ge=1, le=1000, description="fresh processes at most")
    budget_s: float = Field(900.0, gt=0, description="time after which a group gets no further process")
    ratio_half_width: float = Field(0.01, gt=0, lt=1, description="half-width of ratios that stops adding processes")
    absolute_half_width: float | None = Field(
        0.02, gt=0, lt=1, description="the same for absolute times; null: they do not decide"
    )
    further_invocations: int = Field(1, ge=0, description="processes after the first that is precise enough")
    at_once: float = Field(0.5, ge=0, le=1, description="share of the half-widths at which none is added to that")
    samples: int = Field(100, ge=3, le=100_000, description="raw samples of a case in the first process")
    fewest_samples: int | None = Field(
        None, ge=3, le=100_000, description="in the others, planned by what the first showed; null: as many as in it"
    )
    most_samples: int | None = Field(None, ge=3, le=100_000, description="raw samples that are planned at most")
    between: float = Field(
        0.007, gt=0, lt=1, description="what ratios are taken to differ by between processes, for that plan"
    )
    one_piece: float = Field(
        5.0, gt=0, description="standard errors by which a block may stand out for fewer samples than in the first"
    )
    min_samples: int = Field(10, ge=3, description="raw samples that a slow case gets all the same")
    case_seconds: float = Field(10.0, gt=0, description="time for the samples of a case in a process")
    min_sample_ms: float = Field(1.0, ge=0, description="iterations are blocked until a sample lasts this long")
    warmup_iterations: int = Field(10, ge=1, description="forwards before the first sample at least")
    warmup_s: float = Field(1.0, ge=0, description="seconds of warm-up at least, on a CPU")
    warmup_s_gpu: float = Field(3.0, ge=0, description="on a GPU")
    warmup_cap_s: float = Field(30.0, gt=0, description="time after which a warm-up ends, steady or not")
    warm_by_evidence: bool = Field(
        False, description="on a CPU only the first process warms up in full, the others as long as that needed"
    )
    steady_variation: float = Field(0.02, gt=0, description="variation of the last 10 that counts as steady")
    l2: Literal["warm", "cold"] = Field(
        "warm", description="cold: the GPU's L2 cache is flushed before every iteration"
    )
    throughput_windows: int = Field(5, ge=1, description="windows of forwards back to back")
    throughput_window_s: float = Field(0.2, gt=0, description="length of such a window")
    throughput_processes: int | None = Field(
        None, ge=1, description="the first processes that take throughput windows; null: all"
    )
    twin_control: bool = Field(False, description="ratios are to the baseline and its twin together")
    by_rounds: bool = Field(False, description="a process's ratio is the median of the ratios of its rounds")
    long_run_s: float | None = Field(
        None, gt=0, description="runs of this length and more get few in a process; null: as all others"
    )
    long_samples: int = Field(1, ge=1, description="raw samples of such runs in a process at least")
    long_invocations: int = Field(1, ge=1, le=1000, description="fresh processes of such runs at least")
    quiet_wait_s: float = Field(30.0, ge=0, description="cap of the wait for a quiet host before a process")
    preempted_share: float = Field(
        0.25, gt=0, le=1, description="a member's preempted samples that set a process aside"
    )
    preempted_loss: float = Field(0.02, ge=0, lt=1, description="share of a sample that a preemption must have cost")
    drift: float = Field(0.02, gt=0, description="last third against first that is labelled")
    page_faults: float = Field(10.0, ge=0, description="minor faults per iteration that are labelled")
    replacements: int = Field(2, ge=0, description="processes set aside that are replaced")
    busy_cores: float = Field(0.25, gt=0, description="cores that others use before the host is called busy")
    pressure_share: float = Field(0.05, gt=0, le=1, description="time in which some task waited for a processor")
    steal_share: float = Field(0.01, gt=0, le=1, description="processors' time that the hypervisor gave to others")
    switches_per_s: float = Field(25.0, gt=0, description="involuntary context switches a second")
    margin: float = Field(0.02, gt=0, lt=0.5, description="difference from which a verdict is FASTER or SLOWER")
    equivalence: float = Field(0.05, gt=0, lt=0.5, description="difference up to which a verdict may be SAME")

    @model_validator(mode="after")
    def _consistent(self) -> Latency:
        if self.max_invocations < self.invocations:
            raise ValueError(
                f"max_invocations={self.max_invocations} clashes with invocations={self.invocations}: "
                "raise the first or lower the second"
            )
        if self.min_samples > self.samples:
            raise ValueError(f"min_samples={self.min_samples} clashes with samples={self.samples}")
        if self.equivalence < self.margin:
            raise ValueError(
                f"equivalence={self.equivalence:g} clashes with margin={self.margin:g}: with the first below the "
                "second no number of processes could tell a difference between them"
            )
        return self

    @model_validator(mode="after")
    def _planned(self) -> Latency:
        """The bounds of what is planned are there together and in order."""
        fewest, most = self.fewest_samples, self.most_samples
        if (fewest is None) != (most is None):
            raise ValueError(f"fewest_samples={fewest} clashes with most_samples={most}: give both, or null for both")
        if fewest is not None and most is not None and fewest > most:
            raise ValueError(f"fewest_samples={fewest} clashes with most_samples={most}: raise the second")
        return self

    @property
    def long_least(self) -> int:
        """Processes at least where runs are long: never more than of other runs."""
        return min(self.invocations, self.long_invocations)


class Counting(Section):
    """How MACs, layers and memory are taken."""

    second_count: bool = Field(True, description="count with fvcore as well and compare")
    layer_repeats: int = Field(15, ge=1, description="passes of the per-layer timing")
    layer_processes: int | None = Field(
        None, ge=1, description="the first processes that take times of layers; null: all"
    )


class Energy(Section):
    """How energy is taken."""

    backend: Literal["auto", "nvml", "rapl", "zeus", "external", "estimate", "off"] = Field(
        "auto", description="where joules come from"
    )
    windows: int = Field(3, ge=1, description="windows of load")
    window_s: float = Field(10.0, gt=0, description="seconds of a window at least")
    csv: str | None = Field(None, description="the log that a wall meter writes; only where it is, so not in the hash")
    watts: float | None = Field(None, gt=0, lt=1e6, description="the device's full-load power, for an estimate")


class Protocol(Section):
    """The parameters of a measurement; two rows with other parameters are never ranked together."""

    name: str = "standard"
    version: Literal[1, 2] = 1
    timed: bool = Field(True, description="false: counts alone, on the meta device; no process is timed")
    latency: Latency = Latency()
    counting: Counting = Counting()
    energy: Energy = Energy()

    @model_validator(mode="before")
    @classmethod
    def _of_version(cls, given: Any) -> Any:
        """What version 2 leaves out has its own values, and version 1 does not know what came later."""
        if not isinstance(given, Mapping) or not all(
            isinstance(given.get(name, {}), Mapping | BaseModel) for name in SINCE_2
        ):
            return given  # which pydantic refuses in its own words
        filled = dict(given)
        for name, later in SINCE_2.items():
            section = filled.get(name, {})
            own = section.model_dump() if isinstance(section, BaseModel) else dict(section)
            if given.get("version", 1) == 2:
                filled[name] = {**DEFAULTS_2[name], **own}
                continue
            model: type[BaseModel] = Latency if name == "latency" else Counting
            unknown = [key for key in later if key in own and own[key] != model.model_fields[key].default]
            if unknown:
                raise ValueError(
                    f"version 1 of the protocol knows no {name}.{unknown[0]}={own[unknown[0]]}: take it with one "
                    "of version 2, such as protocol=v2/quick"
                )
        return filled

    @property
    def hash(self) -> str:
        """Hash of every value but the name and where files lie."""
        return digest({"version": self.version, **self.parameters})

    @property
    def parameters(self) -> dict[str, Any]:
        """Every value but name, version and places; `timed` only where it is not, so that older hashes hold."""
        unknown = SINCE_2 if self.version == 1 else {}
        left_out = {name: PLACES.get(name, set()) | set(unknown.get(name, ())) for name in {**PLACES, **unknown}}
        values = self.model_dump(exclude={"name": True, "version": True, **left_out})
        return {name: value for name, value in values.items() if name != "timed" or not value}

    def as_record(self) -> dict[str, Any]:
        """The `protocol` part of a record."""
        return {"version": self.version, "name": self.name, "hash": self.hash, "parameters": self.parameters}


def protocol_key(record: Mapping[str, Any]) -> str | None:
    """What two records share if they were measured alike: the hash of a record's protocol in today's parameters.

    The hash that a record stores is of the parameters that there were when it was written. So that a new limit of a
    label does not part all older records from new ones, those of `BEFORE` are filled in where they are missing. The
    stored hash stands where that says nothing: another parameter is missing, one is unknown, or there are none.
    """
    stored = record.get("protocol") or {}
    key = _key_of(json.dumps([stored.get("version"), stored.get("parameters")], sort_keys=True))
    return stored.get("hash") if key is None else key


@lru_cache(maxsize=1024)
def _key_of(stored: str) -> str | None:
    """The hash of version and parameters as JSON; `None` if they are not those of a protocol that can measure."""
    version, given = json.loads(stored)
    if not isinstance(given, dict) or version not in VERSIONS:
        return None
    known = Protocol(version=version).parameters
    parts = {name: {**BEFORE.get(name, {}), **part} for name, part in given.items() if isinstance(part, dict)}
    if any(known[name].keys() - parts.get(name, {}).keys() for name in known):
        return None
    try:
        return Protocol(version=version, **{**given, **parts}).hash
    except (ValidationError, TypeError):
        return None
