"""What the papers promise, set beside what was measured here: reproduced, not reproduced, or not comparable and why.

Counts are held to the precision they were printed with; times only as ratios to the plain model, because milliseconds
and images per second belong to a machine; accuracies only on a task with the paper's data.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

from bench import workloads
from bench.analysis.lower_bounds import lower_bounds
from bench.analysis.table import of_part
from bench.canonical import BASELINE_METHOD, parse_settings, settings_text
from bench.config.catalogue import parse_spec
from bench.config.claims import Claim, amount, digits, load, quantity
from bench.conventions import CONVENTIONS, Unknown, counts_of
from bench.labels import NO_SPEED
from bench.metrics import METRICS
from bench.plan.case import spec_text
from bench.scores import RULES
from bench.store.record_parts import whole_of
from bench.store.records import Record

__all__ = ["Claim", "Judged", "amount", "as_dicts", "evaluate", "load"]

#: Counts that a subject has where it names its kernel.
OF_KERNELS = ("macs_dense", "macs_nonzero")
#: Counts that are sums over operators, so that one without a rule leaves them too small.
OF_OPERATORS = ("macs", "macs_fvcore", "macs_per_token", "vector_ops", "bit_operations", *OF_KERNELS)
#: Smallest batch that counts as one that saturates a GPU, where a claim is about throughput.
LARGE_BATCH = 32

Kind = Literal["reproduced", "not reproduced", "not comparable here"]
#: Points within which two evaluations of one checkpoint agree (resizing, cropping), and two checkpoints rarely do.
SAME_WEIGHTS = 0.3

#: Per case key the score less the plain model's (accuracy: in percentage points), with its paired interval.
Differences = Mapping[str, tuple[float, float, float]]
#: Records by case key: what conventions are functions of.
ByCase = Mapping[str, Record]


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, the reason, what would make it comparable, and the value and rows behind it."""

    claim: Claim
    kind: Kind
    reason: str
    remedy: str = ""
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    case_keys: tuple[str, ...] = ()


def evaluate(
    claims: Iterable[Claim],
    frame: pd.DataFrame,
    differences: Differences = MappingProxyType({}),
    records: Iterable[Record] = (),
) -> list[Judged]:
    """Every claim judged against the tidy table, in the given order.

    Args:
        claims: of `load`.
        frame: of `bench.analysis.table.load`.
        differences: paired differences of the score by case key; without one the two intervals are combined as
            independent.
        records: those behind the frame, for claims that are counted by a convention of their own.
    """
    listed, behind = list(claims), list(records)
    by_case = {str(record["case_key"]): record for record in behind}
    usable = frame[frame["status"].isin(["ok", "contaminated"]) & frame["value"].notna()]
    usable = usable[usable["provenance"].isin(["measured", "counted"]) | _by_formula(usable)]
    rows = _Usable(usable, dict(iter(usable.groupby("method", sort=False))), lower_bounds(behind))
    return [_with_misprint(_judge(claim, rows, listed, differences, by_case)) for claim in listed]


@dataclass(frozen=True)
class _Usable:
    """The rows that claims are judged on, and those of each method, so that no claim looks through all of them.

    `bounds` says by case key what is not counted of the cases whose products are a lower bound.
    """

    whole: pd.DataFrame
    by_method: Mapping[str, pd.DataFrame]
    bounds: Mapping[str, str]

    def of(self, method: str) -> pd.DataFrame:
        return self.by_method.get(method, self.whole.iloc[:0])


def _by_formula(frame: pd.DataFrame) -> pd.Series:
    """Which rows hold what a paper's formula gives of a network: modelled, and by its metric the same everywhere."""
    exact = frame["metric"].map(lambda name: name in METRICS and METRICS[name].comparison == "exact")
    return (frame["provenance"] == "modelled") & exact.astype(bool)


def _with_misprint(judged: Judged) -> Judged:
    """The verdict with what the paper misprinted beside its reason."""
    misprint = judged.claim.misprint
    return replace(judged, reason=f"{judged.reason}; {misprint}") if misprint else judged


def as_dicts(judged: Iterable[Judged]) -> list[dict[str, Any]]:
    """Plain data for reports: the claim's fields, `verdict`, `kind` (for badges), `text`, `evidence`, `case_keys`."""
    return [
        {
            **asdict(item.claim),
            "convention": "; ".join(filter(None, (item.claim.convention, item.claim.counting))),
            "text": item.claim.text,
            "verdict": item.kind,
            "kind": item.kind.replace(" ", "-"),
            "evidence": item.reason,
            "remedy": item.remedy,
            "measured": item.measured,
            "low": item.low,
            "high": item.high,
            "case_keys": list(item.case_keys),
        }
        for item in judged
    ]


# ---------------------------------------------------------------------------------------------- judging


def _judge(claim: Claim, usable: _Usable, claims: Sequence[Claim], differences: Differences, records: ByCase) -> Judged:
    """The verdict on one claim: not comparable, with both values, where a look-up finds two that differ."""
    try:
        return _judge_known(claim, usable, claims, differences, records)
    except (Ambiguous, Unknown) as error:
        return _not_comparable(claim, str(error))


def _judge_known(
    claim: Claim, usable: _Usable, claims: Sequence[Claim], differences: Differences, records: ByCase
) -> Judged:
    """The verdict on one claim: first whether it can be compared at all, then by the kind of its metric."""
    if claim.tolerance is None:
        return _not_comparable(claim, "the paper's model, data, training or hardware are not those of any row here")
    of_method = usable.of(claim.method)
    rows = _rows_of(claim, of_method)
    if rows.empty:
        return _not_comparable(claim, _why_absent(claim, of_method))
    if _is_count(claim, rows):
        return _judge_count(claim, rows, usable, records)
    compared = METRICS[claim.metric].compared
    if compared in ("time", "ratio"):
        return _judge_time(claim, rows, usable, claims)
    if compared == "score":
        return _judge_score(claim, rows, usable.whole, differences)
    return _judge_form(claim, rows) if compared == "form" else _of_a_machine(claim)


def _of_a_machine(claim: Claim) -> Judged:
    title = METRICS[claim.metric].title.lower()
    return _not_comparable(claim, f"{title} depends on the machine, so no paper's number travels")


def _rows_of(claim: Claim, rows: pd.DataFrame) -> pd.DataFrame:
    """Of a method's rows those of the claimed model, setting and resolution; of any setting where it names none."""
    if claim.model is not None:
        name, settings = parse_spec(claim.model)
        rows = rows[(rows["model"] == name) & (rows["model_settings"].fillna("") == settings_text(settings))]
    if rows.empty:
        return rows
    fits = of_part(rows, claim.part) | (rows["metric"] != claim.metric)
    if claim.resolution is not None and claim.model is not None:
        fits &= (rows["resolution"] == claim.resolution).fillna(False).astype(bool)
    for column, wanted in (("workload", claim.workload), ("backend", claim.backend), ("task", claim.task)):
        if wanted is not None:
            fits &= (rows[column] == wanted).fillna(False).astype(bool)
    for column, says in (
        ("shape", claim.shape and _says(claim.shape, _late_axes(claim))),
        ("against", claim.against and _says(claim.against)),
        ("setting", None if claim.setting is None else _same_setting(claim.setting)),
    ):
        if says:
            fits &= rows[column].map(says).astype(bool)
    return rows[fits]


def _is_count(claim: Claim, rows: pd.DataFrame) -> bool:
    """Whether what the claim is about is counted and so exact on every machine."""
    own = rows[rows["metric"] == claim.metric]
    return METRICS[claim.metric].compared == "exact" or (len(own) > 0 and bool((own["provenance"] == "counted").all()))


def _late_axes(claim: Claim) -> frozenset[str]:
    """Axes that a shape has only where they are not at their default, which a claim that does not name them means."""
    name = claim.workload or workloads.FORWARD
    if workloads.is_own(name):
        return frozenset()
    return frozenset(axis.name for axis in workloads.find(name).axes if axis.late)


def _says(wanted: str, only_if_named: Collection[str] = ()) -> Any:
    """Whether a row's settings hold every value that is wanted, whatever else they hold but for some names."""
    named = parse_settings(wanted)

    def says(text: Any) -> bool:
        try:
            found = parse_settings(str(text))
        except ValueError:
            return False
        if any(name in found and name not in named for name in only_if_named):
            return False
        return all(name in found and found[name] == value for name, value in named.items())

    return says


def _same_setting(wanted: str) -> Any:
    """Whether a row's setting says the same as the claim's, whatever the order or spelling."""

    def same(text: Any) -> bool:
        try:
            return bool(parse_settings(str(text)) == parse_settings(wanted))
        except ValueError:
            return False

    return same


def _why_absent(claim: Claim, of_method: pd.DataFrame) -> str:
    """What is missing from the method's rows, from the method inwards."""
    if of_method.empty and not claim.is_of_model:
        return f"{claim.method} has not been measured"
    if claim.model is not None and not claim.is_of_model and of_method[of_method["model"] == claim.model].empty:
        return f"{claim.method} has not been measured on {claim.model}"
    setting = f" with {claim.setting}" if claim.setting else ""
    pixels = f" at {claim.resolution} px" if claim.resolution is not None else ""
    further = [
        *([f"as {claim.workload}"] if claim.workload else []),
        *([f"of {claim.shape}"] if claim.shape else []),
        *([f"on {claim.backend}"] if claim.backend else []),
        *([f"for the task {claim.task}"] if claim.task else []),
        *([f"against {claim.against}"] if claim.against else []),
    ]
    where = " ".join(["", *further]) if further else ""
    subject = claim.model or "the model" if claim.is_of_model else claim.method
    on = "" if claim.is_of_model else f" on {claim.model or 'its model'}"
    return f"{subject} has not been measured{on}{setting}{pixels}{where}"


def _judge_count(claim: Claim, rows: pd.DataFrame, usable: _Usable, records: ByCase) -> Judged:
    """A count, or a ratio of counts: exact, so it must agree to the printed precision on every machine."""
    counted = rows[rows["metric"] == claim.metric]
    if claim.relative_to_baseline:
        counted, bound = _surely_counted(counted, usable.bounds)
        if counted.empty and bound:
            return _not_comparable(claim, f"not judged: a count is a lower bound ({bound})")
    values = _claimed_counts(claim, counted, usable.whole, records)
    if values.empty:
        return _not_comparable(
            claim, f"{METRICS[claim.metric].title} of the rows or of their baselines are unavailable"
        )
    nearest = values.sub(claim.value).abs().idxmin()
    found, keys = float(values[nearest]), (str(nearest),)
    if claim.model is None or (claim.setting is None and not claim.is_of_model):
        named = _row_name(rows, nearest)
        reason = f"the paper's own setting is not one of ours; the nearest row, {named}, has {_show(found, claim)}"
        return _not_comparable(claim, reason, measured=found, keys=keys)
    if claim.printed is not None:
        return _judge_print(claim, claim.printed, found, keys)
    off = found / claim.value - 1
    agrees = abs(off) <= (claim.tolerance or 0.0) * (1 + 1e-9)
    is_modelled = bool((counted["provenance"] == "modelled").all())
    way = "modelled" if is_modelled else "counted"
    reason = f"{way} {_show(found, claim)} here, {_how_far(off, claim.tolerance or 0.0)}"
    return Judged(claim, "reproduced" if agrees else "not reproduced", reason, measured=found, case_keys=keys)


def _claimed_counts(claim: Claim, counted: pd.DataFrame, frame: pd.DataFrame, records: ByCase) -> pd.Series:
    """What the claim is about of every case, counted its way: a count, or one over that of the other side."""
    if claim.counted_as is not None or (claim.factor is not None and not claim.relative_to_baseline):
        counted = _as_counted(claim, counted, records)
        if claim.relative_to_baseline:  # else a row of another subject, which lacks what is needed, would stop it
            frame = _as_counted(claim, frame, records)
    return (_relative(counted, frame, claim) if claim.relative_to_baseline else _by_case(counted)).dropna()


def _surely_counted(rows: pd.DataFrame, bounds: Mapping[str, str]) -> tuple[pd.DataFrame, str]:
    """The rows of which neither side's products are a lower bound, and what is not counted of one that is left out."""
    if not bounds or rows.empty or str(rows["metric"].iloc[0]) not in OF_OPERATORS:
        return rows, ""
    kept = ~(rows["case_key"].isin(list(bounds)) | rows["baseline_key"].isin(list(bounds)))
    left_out = rows[~kept]
    if left_out.empty:
        return rows, ""
    sides = (str(left_out.iloc[0][name]) for name in ("case_key", "baseline_key"))
    return rows[kept], "; ".join(dict.fromkeys(bounds[key] for key in sides if key in bounds))


def _how_far(off: float, tolerance: float) -> str:
    """A count's distance from the claimed one in words, beside the allowed one; both are shares of the claim."""
    if off == 0:
        return "exactly as claimed"
    allowed = f"{100 * tolerance:g} % is allowed" if tolerance else "it has to be exact"
    percent = f"{100 * off:+.2f}" if abs(off) >= 5e-5 else f"{100 * off:+.1g}"
    return f"{percent} % from the claim; {allowed}"


def _as_counted(claim: Claim, rows: pd.DataFrame, records: ByCase) -> pd.DataFrame:
    """The rows of the claim's metric with their values in the paper's way of counting.

    Raises:
        Unknown: a record does not hold what the convention needs.
    """
    own = rows[(rows["metric"] == claim.metric) & of_part(rows, claim.part)].copy()
    if claim.factor is not None:
        return own.assign(value=own["value"] * claim.factor)
    wanted = {key: _converted(claim, records.get(str(key))) for key in own["case_key"].unique()}
    return own.assign(value=own["case_key"].map(wanted).astype(float))


def _converted(claim: Claim, record: Record | None) -> float:
    if record is None:
        raise Unknown(f"the records behind the table are needed to count as {claim.counted_as}")
    _, function = CONVENTIONS[str(claim.counted_as)]
    return function(counts_of(record, claim.part or whole_of(record)))


def _judge_form(claim: Claim, rows: pd.DataFrame) -> Judged:
    """A pure number of a closed form: it has to lie within the interval over runs, widened by the tolerance.

    Of several rows, of other seconds say, the one with the narrowest interval is judged.
    """
    own = rows[rows["metric"] == claim.metric]
    sure = own[own["ci_low"].notna() & own["ci_high"].notna()]
    if sure.empty:
        return _not_comparable(claim, "it was measured in too few runs for an interval")
    row = sure.loc[(sure["ci_high"] / sure["ci_low"]).idxmin()]
    value, low, high = (float(row[name]) for name in ("value", "ci_low", "ci_high"))
    slack = (claim.tolerance or 0.0) * claim.value
    agrees = low - slack <= claim.value <= high + slack
    unit = METRICS[claim.metric].unit
    reason = (
        f"{value:.3g} {unit} here ({low:.3g} to {high:.3g}), the closed form gives {claim.value:.4g}; "
        f"{100 * (claim.tolerance or 0):g} % is allowed beside the interval"
    )
    kind: Kind = "reproduced" if agrees else "not reproduced"
    return Judged(claim, kind, reason, "", value, low, high, (str(row["case_key"]),))


def _judge_print(claim: Claim, printed: str, found: float, keys: tuple[str, ...]) -> Judged:
    """A count held to the digits that the paper prints: it must round to them."""
    places, scale = digits(printed)
    shown = f"{found / scale:.{places}f}"
    agrees = shown == printed.partition(" ")[0].rstrip("kMGT")
    reason = f"counted {_show(found, claim)} here, which prints as {shown}; the paper prints {printed}"
    return Judged(claim, "reproduced" if agrees else "not reproduced", reason, measured=found, case_keys=keys)


def _judge_time(claim: Claim, rows: pd.DataFrame, usable: _Usable, claims: Sequence[Claim]) -> Judged:
    """A time as a ratio to the plain model, on the kind of hardware the claim is about."""
    if not claim.relative_to_baseline:
        return _not_comparable(
            claim, "an absolute time belongs to its machine; only ratios to the plain model are judged"
        )
    speed = rows[(rows["metric"] == "speedup") & of_part(rows, claim.part)]
    if speed.empty:
        return _not_comparable(claim, "no speed-up over the plain model was measured for it")
    if "execution" in speed.columns:
        imitated = [str(kind) for kind in speed["execution"] if kind in NO_SPEED]
        speed = speed[~speed["execution"].isin(list(NO_SPEED))]
        if speed.empty:
            return _not_comparable(claim, NO_SPEED[imitated[0]])
    fitting = speed[_on_like_hardware(claim, speed)]
    if claim.setting is None and not claim.is_of_model:
        fitting, why = _at_claimed_macs(claim, fitting, usable, claims)
        if fitting.empty and why:
            return _not_comparable(claim, why)
    if fitting.empty:
        best = speed.loc[speed["batch"].astype(int).idxmax()]
        where = f"{best['device']}, batch {best['batch']}"
        reason = f"the claim is about {claim.hardware}; here, on {where}, the speed-up is {_span(best)}"
        return _not_comparable(claim, reason, measured=best["value"], keys=(best["case_key"],))
    return _judge_speed(claim, fitting.loc[fitting["batch"].astype(int).idxmax()])


def _judge_speed(claim: Claim, row: pd.Series) -> Judged:
    """A measured speed-up against the claimed one: at least that much, within the tolerance, for certain."""
    goal = 1 / claim.value if claim.metric == "latency_ms" else claim.value
    bound = goal * (1 - (claim.tolerance or 0.0))
    low, high, value = (float(row[name]) for name in ("ci_low", "ci_high", "value"))
    where = f"{row['device']}, batch {row['batch']}"
    reason = f"speed-up {_span(row)} here ({where}); claimed {goal:.2f}x"
    found = Judged(
        claim,
        "not comparable here",
        f"{reason}; too noisy to tell",
        "more invocations",
        value,
        _finite(low),
        _finite(high),
        (str(row["case_key"]),),
    )
    if low >= bound:
        return replace(found, kind="reproduced", reason=reason, remedy="")
    if high < bound:
        return replace(found, kind="not reproduced", reason=reason, remedy="")
    return found


def _judge_score(claim: Claim, rows: pd.DataFrame, frame: pd.DataFrame, differences: Differences) -> Judged:
    """A score, only where the task may have the paper's data and the weights are a checkpoint."""
    metric, title = claim.metric, METRICS[claim.metric].title
    title = title if title[:2].isupper() else title.lower()
    found = rows[(rows["metric"] == metric) & rows["task"].isin(claim.tasks) & rows["value"].notna()]
    if "checkpoint" in found.columns:
        found = found[found["checkpoint"].notna()]
    if claim.samples is not None:
        found = found[(found["n"] == claim.samples).fillna(False).astype(bool)]
    if found.empty:
        return _not_comparable(claim, f"no {title} was measured here on the paper's data with the paper's weights")
    found = found.sort_values(["batch", "dtype", "case_key"], kind="stable")  # of several conditions the smallest batch
    if claim.mode == "trained":
        return _not_comparable(
            claim,
            "the table does not say that the checkpoint was trained with the method",
            measured=float(found["value"].iloc[0]),
            keys=(found["case_key"].iloc[0],),
        )
    row = found.iloc[0]
    value, low, high = (float(row[name]) for name in ("value", "ci_low", "ci_high"))
    slack = claim.tolerance or 0.0
    base = frame[
        (frame["case_key"] == row["baseline_key"])
        & (frame["machine_key"] == row["machine_key"])
        & (frame["metric"] == metric)
    ]
    if len(base) > 1:
        raise Ambiguous(f"the plain model has {len(base)} values of {title} on the machine of this row")
    if base.empty and (claim.relative_to_baseline or claim.plain is not None):
        return _not_comparable(claim, f"the plain model's {title} is not in the table")
    if claim.plain is not None and abs(float(base.iloc[0]["value"]) - claim.plain) > SAME_WEIGHTS:
        unit = METRICS[metric].unit
        here = f"the plain model scores {base.iloc[0]['value']:.2f} {unit} here and {claim.plain:g} {unit} in the paper"
        return _not_comparable(claim, f"other weights: {here}", measured=value, keys=(str(row["case_key"]),))
    if claim.relative_to_baseline:
        value, low, high = differences.get(str(row["case_key"])) or _apart(row, base.iloc[0])
    else:
        slack *= claim.value
    agrees = low - slack <= claim.value <= high + slack
    unit = RULES[metric].unit if claim.relative_to_baseline else METRICS[metric].unit
    reason = f"{value:.2f} {unit} here ({low:.2f} to {high:.2f}); claimed {claim.value:g} {unit}"
    return Judged(
        claim, "reproduced" if agrees else "not reproduced", reason, "", value, low, high, (str(row["case_key"]),)
    )


def _apart(row: pd.Series, base: pd.Series) -> tuple[float, float, float]:
    """The difference of two scores whose samples cannot be paired: half-widths add in squares."""
    value = float(row["value"] - base["value"])
    below = math.hypot(row["value"] - row["ci_low"], base["ci_high"] - base["value"])
    above = math.hypot(row["ci_high"] - row["value"], base["value"] - base["ci_low"])
    return value, value - below, value + above


class Ambiguous(ValueError):
    """A look-up by case found two values that differ."""


def _by_case(rows: pd.DataFrame, column: str = "value") -> pd.Series:
    """One value per case key.

    Raises:
        Ambiguous: two rows of a case, of two machines or two readings, do not say the same.
    """
    known = rows[["case_key", column, "metric"]].drop_duplicates(["case_key", column])
    twice = known[known["case_key"].duplicated()]
    if len(twice):
        key, title = twice["case_key"].iloc[0], METRICS[str(twice["metric"].iloc[0])].title
        said = ", ".join(str(value) for value in known.loc[known["case_key"] == key, column])
        raise Ambiguous(f"the records of case {key} do not agree on {title}: {said}")
    return known.set_index("case_key")[column]


def _relative(rows: pd.DataFrame, frame: pd.DataFrame, claim: Claim) -> pd.Series:
    """A count over that of the case's other side, per case; missing where that one has no value."""
    metric = str(rows["metric"].iloc[0]) if len(rows) else claim.metric
    others = frame[
        (frame["metric"] == metric) & of_part(frame, claim.part) & frame["case_key"].isin(rows["baseline_key"])
    ]
    base = _by_case(others)
    if metric in OF_KERNELS:  # a plain network names no kernel: its products are all dense and none is zero
        plain = frame[(frame["metric"] == "macs") & of_part(frame) & frame["case_key"].isin(rows["baseline_key"])]
        base = base.reindex(base.index.union(plain["case_key"])).fillna(_by_case(plain))
    ratio: pd.Series = _by_case(rows) / _by_case(rows, "baseline_key").map(base).astype(float)
    return ratio


def _on_like_hardware(claim: Claim, rows: pd.DataFrame) -> pd.Series:
    """Which rows were measured on hardware of the claimed kind.

    A named GPU stands for any GPU, as only ratios are judged.
    """
    if claim.hardware == "any":
        return pd.Series(True, index=rows.index)
    on_gpu = ~rows["device"].str.startswith("cpu")
    latency = claim.metric == "latency_ms"
    return on_gpu if latency else on_gpu & (rows["batch"] >= LARGE_BATCH).fillna(False).astype(bool)


def _at_claimed_macs(
    claim: Claim, rows: pd.DataFrame, usable: _Usable, claims: Sequence[Claim]
) -> tuple[pd.DataFrame, str]:
    """Rows whose MACs are what the same paper claims at the claimed speed, where the claim names no setting of ours."""
    partner = next(
        (
            c
            for c in claims
            if (c.method, c.model) == (claim.method, claim.model)
            and c.metric == "macs"
            and c.relative_to_baseline
            and c.tolerance is not None
        ),
        None,
    )
    if partner is None:
        return rows.iloc[:0], "the paper's own setting is not one of ours, and it states no MAC ratio to match"
    if rows.empty:
        return rows, ""
    frame = usable.whole
    counted = frame[(frame["metric"] == "macs") & of_part(frame) & frame["case_key"].isin(rows["case_key"])]
    counted, _ = _surely_counted(counted, usable.bounds)
    ratios = _relative(counted, frame, partner)
    near = ratios[(ratios / partner.value - 1).abs() <= (partner.tolerance or 0.0)].index
    return rows[
        rows["case_key"].isin(near)
    ], f"no row has the {partner.value:g} of the MACs that the claimed speed belongs to"


def _not_comparable(claim: Claim, reason: str, *, measured: float | None = None, keys: tuple[str, ...] = ()) -> Judged:
    return Judged(claim, "not comparable here", reason, claim.comparable_when, measured, case_keys=keys)


def _row_name(rows: pd.DataFrame, case_key: Any) -> str:
    row = rows[rows["case_key"] == case_key].iloc[0]
    method = spec_text(row["method"], row["setting"])
    return f"{method} on {row['model']}" if row["method"] != BASELINE_METHOD else str(row["model"])


def _span(row: pd.Series) -> str:
    return f"{row['value']:.2f}x ({row['ci_low']:.2f} to {row['ci_high']:.2f})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _show(value: float, claim: Claim) -> str:
    if claim.relative_to_baseline:
        return f"{value:.4g} of " + ("the other side" if claim.against else "the plain model")
    return quantity(value, claim.unit)
