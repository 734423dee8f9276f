"""Every quantity that a leaderboard can show, in order: metrics, comparisons derived from them, what papers print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.metrics import METRICS
from bench.scores import RULES


@dataclass(frozen=True)
class Column:
    """What a column of the leaderboard holds; `better` is lower, higher or none.

    `part` is the part of the workload that the quantity is of, empty for the whole run and for the subject.
    """

    key: str
    title: str
    unit: str
    better: str
    section: str
    definition: str
    default: bool = False
    part: str = ""

    def of(self, part: str) -> Column:
        """The same quantity of a further part of the workload."""
        default = self.key in _DEFAULT_OF_PARTS
        return replace(
            self, key=column_key(self.key, part), title=f"{self.title} of {part}", default=default, part=part
        )


#: Between metric and part in a column's key.
OF = "@"


def column_key(metric: str, part: str = "") -> str:
    """The key of a cell: the metric (or derived quantity), and the part where it is not the whole run."""
    return f"{metric}{OF}{part}" if part else metric


def _changes() -> Iterable[Column]:
    """The change of every score against the other side's."""
    for metric in METRICS.values():
        if metric.name in RULES:
            unit = "pp" if metric.unit == "%" else metric.unit
            yield Column(
                f"{metric.name}{CHANGE}",
                title=f"{metric.title} change",
                unit=unit,
                better=metric.better,
                section="quality",
                definition=f"{metric.title} less the baseline's"
                + (" in percentage points" if unit == "pp" else "")
                + ", sample by sample where both were scored on the same ones: then with the paired 95 % interval.",
            )


#: Ends the key of the change of a score.
CHANGE = "_change"

DERIVED: tuple[Column, ...] = (
    Column(
        "mac_ratio",
        title="MAC ratio",
        unit="x",
        better="higher",
        section="compute",
        definition=(
            "The baseline's MACs over the case's: the speed-up that the operations promise. The MACs that a method "
            "makes for its own decisions are left out, as papers do; they stand under MACs of the method itself."
        ),
    ),
    Column(
        "realised_gain",
        title="Realised gain",
        unit="x",
        better="higher",
        section="latency",
        definition="Measured speed-up divided by the MAC ratio: how much of the promised saving the machine gives.",
        default=True,
    ),
    Column(
        "arrived_share",
        title="Arrived share",
        unit="1",
        better="higher",
        section="latency",
        definition=(
            "Saved time over saved products, (1 - t/t0) / (1 - m/m0): 1 is all of the saving, 0 nothing, below 0 the "
            "case got slower."
        ),
    ),
    Column(
        "bits_ratio",
        title="Bits promised",
        unit="x",
        better="higher",
        section="size",
        definition="The baseline's stored bits per weight over the case's nominal bits: what the format promises.",
    ),
    Column(
        "size_ratio",
        title="Bytes saved",
        unit="x",
        better="higher",
        section="size",
        definition="The baseline's bytes in memory over the case's, both as stored, scales and buffers included.",
    ),
    Column(
        "own_share",
        title="Time in own operators",
        unit="%",
        better="lower",
        section="latency",
        definition=(
            "Share of a run's time in modules that the method adds to the network, its own decisions. The ends add up "
            "the ends of the modules' own intervals."
        ),
    ),
    *_changes(),
)

#: What papers print of their own weights; see `reports.published`.
PUBLISHED = Column(
    "published_accuracy",
    title="Published accuracy",
    unit="%",
    better="none",
    section="quality",
    definition=(
        "The accuracy that the method's paper prints for this setting, of the paper's own weights: never ranked, drawn "
        "or joined to a cost, which here is of other weights."
    ),
    default=True,
)

#: Amounts of a footprint: key, title, unit; `{currency}` is the user's.
_AMOUNTS = {"kwh": ("Electricity", "kWh"), "co2e": ("CO2e", "g"), "cost": ("Cost of electricity", "{currency}")}


def footprint_columns(
    amounts: Iterable[str], grams: float | None, price: float | None, currency: str
) -> tuple[Column, ...]:
    """The columns of electricity, carbon and cost per million samples, and per million tokens that were made.

    Args:
        amounts: of `kwh`, `co2e`, `cost`.
        grams: CO2 equivalent of a kilowatt-hour, as stated.
        price: of a kilowatt-hour, as stated.
        currency: of the price.
    """
    stated = {
        "kwh": "the energy of the row",
        "co2e": f"the energy of the row at {grams:g} g of CO2e per kWh, as stated" if grams is not None else "",
        "cost": f"the energy of the row at {price:g} {currency} per kWh, as stated" if price is not None else "",
    }
    return tuple(
        Column(
            f"{name}_per_million_{noun}",
            title=f"{_AMOUNTS[name][0]} per million {noun}",
            unit=_AMOUNTS[name][1].format(currency=currency),
            better="lower",
            section="energy",
            definition=f"A million {noun} at {stated[name]}; the device's share of a machine's idle time is not in it.",
            default=noun == "samples",
        )
        for noun in ("samples", "tokens")
        for name in amounts
    )


_SCORES = tuple(RULES)
#: Shown at once where rows have them: the common quantities, scores, and what people ask of each workload first.
_DEFAULT = (
    "latency_ms", "speedup", "macs", *_SCORES, "peak_memory_bytes", "energy_j", "time_to_first_token_ms",
    "time_per_output_token_ms", "cache_bytes", "time_per_image_ms", "network_evaluations", "time_per_step_ms",
    "state_bytes", "saved_activation_bytes", "optimizer_bytes", "payload_bytes", "total_modelled_ms",
    "sojourn_p99_ms", "achieved_rate", "reference_error", "output_error", "artefact_bytes",
)  # fmt: skip
_DEFAULT_OF_PARTS = ("latency_ms", "speedup")
#: Derived columns that each part of a run has.
DERIVED_OF_PARTS = ("mac_ratio", "realised_gain", "arrived_share", "own_share")
_ORDER = (
    "latency_ms", "speedup", "macs", "mac_ratio", "realised_gain", "arrived_share", "own_share", *_SCORES,
    *(f"{name}{CHANGE}" for name in _SCORES), "published_accuracy", "time_to_first_token_ms",
    "time_per_output_token_ms", "time_per_image_ms", "time_per_step_ms", "cache_bytes", "peak_memory_bytes",
    "energy_j", "throughput_per_s", "params", "size_bytes",
)  # fmt: skip

#: Every column in the order of the table; those not named in `_ORDER` follow as in `bench.metrics`.
COLUMNS: tuple[Column, ...] = tuple(
    sorted(
        (
            *(
                Column(
                    m.name,
                    title=m.title,
                    unit=m.unit,
                    better=m.better,
                    section=m.section,
                    definition=m.definition,
                    default=m.name in _DEFAULT,
                )
                for m in METRICS.values()
            ),
            *DERIVED,
            PUBLISHED,
        ),
        key=lambda column: _ORDER.index(column.key) if column.key in _ORDER else len(_ORDER),
    )
)
_BY_KEY = {column.key: column for column in COLUMNS}


def column_of(key: str) -> Column:
    """The column of a key; raises KeyError for a quantity that no column holds."""
    metric, _, part = key.partition(OF)
    return _BY_KEY[metric].of(part) if part else _BY_KEY[metric]
