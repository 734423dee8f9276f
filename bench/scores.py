"""The score of a task: one number with its unit, direction and interval, and the samples that it stands on.

Three kinds of score are compared in three ways. A *proportion* (accuracy) has Wilson's interval and is paired by
McNemar's test; a *mean* over samples (bits per byte, PSNR) has a t-interval and is paired by its differences; a
*distribution* (Frechet distance) is one number of a whole set: it has no interval, but the spread of a few seeds and a
floor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.metrics import METRICS
from bench.reading import Provenance, Reading, reading

Kind = Literal["proportion", "mean", "distribution"]


@dataclass(frozen=True)
class Rule:
    """How two scores of one metric are compared; `same` is the difference, in `unit`, that does not matter."""

    kind: Kind
    same: float
    unit: str


#: What a task scores that names no metric, and what records hold that are older than other scores.
DEFAULT_SCORE = "accuracy"
#: Every metric that a task may score; a new one needs a row here and a row in `bench.metrics`.
RULES: Mapping[str, Rule] = {
    "accuracy": Rule("proportion", 0.5, "points"),
    "bits_per_byte": Rule("mean", 0.01, "bits per byte"),
    "character_error_rate": Rule("mean", 0.5, "points"),
    "psnr_db": Rule("mean", 0.1, "dB"),
    "step_accuracy": Rule("mean", 0.5, "points"),
    "dice": Rule("mean", 0.01, "Dice"),
    "mean_iou": Rule("mean", 0.01, "IoU"),
    "forecast_error": Rule("mean", 0.01, "of the persistence error"),
    "field_error": Rule("mean", 0.005, "of the field"),
    "distance_error": Rule("mean", 0.001, "of half the cube's side"),
    "normal_error": Rule("mean", 1.0, "degrees"),
    "nll": Rule("mean", 0.02, "nats"),
    "end_point_error": Rule("mean", 0.05, "px"),
    "rate_error": Rule("mean", 0.2, "beats per minute"),
    "auroc": Rule("mean", 0.5, "points"),
    "cosine": Rule("mean", 0.01, "cosine"),
    "mape": Rule("mean", 0.5, "points"),
    "frechet_distance": Rule("distribution", 0.1, "squared feature units"),
}


@dataclass(frozen=True)
class Score:
    """What a task says of one module.

    Attributes:
        metric: one of `RULES`; `value` is in its unit.
        n: samples behind the value.
        low, high: ends of the 95 % interval, None where there is none.
        interval: how the interval was made, or why there is none.
        per_sample: one mark per sample ("1" for right) of a proportion, one value per sample of a mean, empty for a
            distribution. Two scores of one `samples_digest` can be compared sample by sample.
        samples_digest: hash of the inputs and answers as they were scored.
        details: plain JSON: `spread` and `floor` of a distribution, other numbers of the task.
        also: further scores of the same samples, of other metrics; this one stays the task's.
        flags: what a reader has to know of it, as flags of a record (`code`, `severity`, `text`); `invalid` where it
            says nothing.
        provenance: `modelled` where what it is judged against was not measured.
    """

    metric: str
    value: float
    n: int
    low: float | None
    high: float | None
    interval: str
    per_sample: str | tuple[float, ...]
    samples_digest: str
    details: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[Score, ...] = ()
    flags: tuple[Mapping[str, str], ...] = ()
    provenance: Provenance = "measured"

    def __post_init__(self) -> None:
        if self.metric not in RULES:
            raise ValueError(f"{self.metric!r} is no score: add it to bench.scores.RULES and to bench.metrics")
        if self.n < 1 or not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} of {self.n} samples is no score")
        kind = RULES[self.metric].kind
        if kind == "distribution" and "spread" not in self.details:
            raise ValueError(f"{self.metric} has no interval, so it needs the spread of its seeds")
        if kind != "distribution" and len(self.per_sample) != self.n:
            raise ValueError(f"{self.metric}: {len(self.per_sample)} answers of {self.n} samples")

    def reading(self) -> Reading:
        """The score as a reading with its interval."""
        return reading(
            self.metric,
            self.value,
            self.provenance,
            ci_low=self.low,
            ci_high=self.high,
            n=self.n,
            statistic=self.interval,
        )

    def readings(self) -> list[Reading]:
        """The score and what was scored beside it."""
        return [self.reading(), *(other.reading() for other in self.also)]

    def as_dict(self) -> dict[str, Any]:
        """The score as plain JSON types, as a record keeps it."""
        given = self.per_sample
        counted = {"correct": given.count("1")} if isinstance(given, str) and given else {}
        marks = given if isinstance(given, str) else list(given)
        return {
            "metric": self.metric,
            "value": self.value,
            "n": self.n,
            "ci_low": self.low,
            "ci_high": self.high,
            "interval": self.interval,
            "per_sample": marks,
            "samples_digest": self.samples_digest,
            "details": dict(self.details),
            "also": [other.as_dict() for other in self.also],
            **counted,
        }


def proportion(metric: str, marks: str, samples_digest: str) -> Score:
    """The share of right answers in percent with Wilson's interval (Wilson 1927, JASA 22: 209-212).

    Args:
        metric: of the kind proportion.
        marks: one character per sample, "1" for right and "0" for wrong.
        samples_digest: hash of what was scored.
    """
    from bench.statistics import wilson  # here and below: a typo on the command line does not wait for scipy

    if set(marks) - {"0", "1"}:
        raise ValueError(f"marks other than 0 and 1: {sorted(set(marks))}")
    right, n = marks.count("1"), len(marks)
    low, high = wilson(right, n)
    text = f"{'top-1' if metric == 'accuracy' else 'share'}, Wilson 95 % interval over samples"
    return Score(metric, 100.0 * right / n, n, 100 * low, 100 * high, text, marks, samples_digest)


def mean(metric: str, values: Sequence[float], samples_digest: str, **details: Any) -> Score:
    """The mean over samples with Student's t-interval; one sample has none.

    Args:
        metric: of the kind mean.
        values: one finite value per sample, in the metric's unit.
        samples_digest: hash of what was scored.
        details: further plain JSON to keep.
    """
    from bench.statistics import mean_interval

    centre, low, high = mean_interval(values)
    text = "mean, t 95 % interval over samples" if low is not None else "mean; one sample gives no interval"
    return Score(metric, centre, len(values), low, high, text, tuple(map(float, values)), samples_digest, details)


def distribution(
    metric: str, value: float, n: int, samples_digest: str, *, seeds: Sequence[float], **details: Any
) -> Score:
    """One number of a whole set of samples, with the spread (largest less smallest) of some seeds as its interval.

    Args:
        metric: of the kind distribution.
        value: of this set.
        n: samples of the set.
        samples_digest: hash of what was compared with.
        seeds: the same number of at least two sets that differ in their seed alone, made once by the plain model.
        details: further plain JSON to keep, such as the `floor`.
    """
    if len(seeds) < 2:
        raise ValueError(f"{metric} needs at least two seeds to tell its spread, got {len(seeds)}")
    spread = float(max(seeds) - min(seeds))
    text = f"one set of {n} samples, no interval: {len(seeds)} seeds of the plain model spread over {spread:.3g}"
    kept = {**details, "spread": spread, "seeds": [float(seed) for seed in seeds]}
    return Score(metric, float(value), n, None, None, text, "", samples_digest, kept)


# ---------------------------------------------------------------------------------------------- two scores


@dataclass(frozen=True)
class Change:
    """The second score less the first, in the rule's unit; `p` that they are equal, None where no test applies.

    `low` and `high` are the interval of the difference; of a distribution they are the difference less and plus the
    seeds' spread. `pairing` says what was compared with what.
    """

    metric: str
    value: float
    low: float
    high: float
    p: float | None
    pairing: str

    @property
    def better(self) -> bool | None:
        """True or False where the second is certainly better or worse, None where neither is certain."""
        up = METRICS[self.metric].better == "higher"
        if self.low > 0:
            return up
        return not up if self.high < 0 else None

    @property
    def same(self) -> bool:
        """Whether the difference does not matter: its whole interval is small, or a distribution's spread hides it."""
        if RULES[self.metric].kind == "distribution":
            return self.low <= 0 <= self.high
        rule = RULES[self.metric]
        return self.low >= -rule.same and self.high <= rule.same

    @property
    def text(self) -> str:
        """The difference with its interval and unit, signed."""
        return f"{self.value:+.2f} {RULES[self.metric].unit} ({self.low:+.2f} to {self.high:+.2f})"


def change(metric: str, first: Mapping[str, Any], second: Mapping[str, Any], level: float = 0.95) -> Change | None:
    """How the score changed from the first to the second; None where there is too little to compare them.

    Args:
        metric: of both.
        first: what `Score.as_dict` made, as records keep it; all but `value` may be missing.
        second: the same of the other side.
        level: confidence level.
    """
    kind = RULES[metric].kind
    value = second["value"] - first["value"]
    if kind == "distribution":
        spreads = [(side.get("details") or {}).get("spread") for side in (first, second)]
        if any(spread is None for spread in spreads):
            return None
        reach = max(float(spread) for spread in spreads if spread is not None)
        return Change(metric, value, value - reach, value + reach, None, "within the spread of the seeds")
    if paired_samples(first, second):
        return _paired(metric, first["per_sample"], second["per_sample"], level)
    ends = [side.get(name) for side in (first, second) for name in ("ci_low", "ci_high")]
    if None in ends:
        return None
    return _unpaired(metric, value, [(side["ci_high"] - side["ci_low"]) / 2 for side in (first, second)], level)


def _unpaired(metric: str, value: float, halves: Sequence[float], level: float) -> Change:
    """A difference whose sides' half-widths add in squares."""
    from bench.statistics import LEVEL, normal_reach

    spread = math.hypot(*halves) / normal_reach(LEVEL) * normal_reach(level)
    return Change(metric, value, value - spread, value + spread, None, "unpaired")


def paired_samples(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether both sides answered the same samples, one answer each."""
    one, two = first.get("per_sample"), second.get("per_sample")
    digest = first.get("samples_digest")
    return bool(digest and one and two and digest == second.get("samples_digest") and len(one) == len(two))


def _paired(metric: str, one: Any, two: Any, level: float) -> Change | None:
    from bench.statistics import paired_accuracy_difference, paired_mean_difference

    if RULES[metric].kind == "proportion":
        found = paired_accuracy_difference([mark == "1" for mark in one], [mark == "1" for mark in two], level)
        return Change(metric, found.value, found.low, found.high, found.p, "paired by sample")
    if len(one) < 2:
        return None
    value, low, high, p = paired_mean_difference(one, two, level)
    return Change(metric, value, low, high, p, "paired by sample")
