"""What the papers promise, set beside what was measured here: reproduced, not reproduced, or not comparable and why.

Counts are held to the precision they were printed with; times only as ratios to the plain model, because milliseconds
and images per second belong to a machine; accuracies only on a task with the paper's data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

from bench.analysis.table import of_part
from bench.canonical import parse_settings, settings_text
from bench.config.yaml_file import read_yaml
from bench.errors import UsageError, did_you_mean
from bench.metrics import METRICS
from bench.scores import RULES

FILE = "claims.yaml"
#: Smallest batch that counts as one that saturates a GPU, where a claim is about throughput.
LARGE_BATCH = 32
#: Tasks whose data may be the papers' own.
PAPER_TASKS = ("imagefolder",)
#: Images of ImageNet-1k's validation set: an accuracy over another number of images is of other data.
IMAGENET_IMAGES = 50_000
#: Papers of this field measure at this resolution unless the claim says otherwise.
RESOLUTION = 224

Kind = Literal["reproduced", "not reproduced", "not comparable here"]
_COUNTED = ("size", "compute")
_RATIOS = ("latency_ms", "throughput_per_s", "speedup")
#: Fields that may be missing from the file.
_OPTIONAL = ("model", "setting", "tolerance", "comparable_when", "note", "resolution", "printed", "plain", "part")
#: Points within which two evaluations of one checkpoint agree (resizing, cropping), and two checkpoints rarely do.
SAME_WEIGHTS = 0.3
#: Decimal prefixes that a printed number may carry.
_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_PRINTED = re.compile(r"(\d+(?:\.(\d+))?) ?([kMGT]?)")

#: Per case key the score less the plain model's (accuracy: in percentage points), with its paired interval.
Differences = Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Claim:
    """One number of one paper, as `claims.yaml` has it.

    With `relative_to_baseline` the value is method over plain model (accuracy: difference in percentage points).
    `setting` is canonical text, `None` where the paper's own is not one setting of ours. `tolerance` is the relative
    difference that still reproduces the claim (of a difference of accuracies: percentage points), `None` where no
    measurement here could. `printed` is a count as the paper prints it, `2.7 G`: a measured count reproduces it if it would
    be printed alike, whatever the tolerance. `plain` is the accuracy of the paper's plain model: an accuracy off the shelf is
    judged only on weights that score the same. `part` is a part of the workload, None the whole run or the subject.
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
    resolution: int | None = RESOLUTION
    printed: str | None = None
    plain: float | None = None
    part: str | None = None
    suite: str = ""

    @property
    def text(self) -> str:
        """The claim as a sentence: who promises what of what."""
        method = f"{self.method}({self.setting})" if self.setting else self.method
        subject = f"{method} on {self.model}" if self.model else method
        what = METRICS[self.metric].title + (f" of {self.part}" if self.part else "")
        return f"{subject}: {what} {_amount(self)} ({self.mode}; {self.hardware})"


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


def load(folder: Path) -> list[Claim]:
    """The claims of a suite's folder; none where it has no `claims.yaml`.

    Raises:
        UsageError: the file is not as described; the message names the entry and the field.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    entries = read_yaml(file).get("claims")
    if not isinstance(entries, list):
        raise UsageError(f"{file}: must have a list under `claims`")
    return [_claim(entry, f"{file}: claim {number}", folder.name) for number, entry in enumerate(entries, 1)]


def evaluate(
    claims: Iterable[Claim], frame: pd.DataFrame, differences: Differences = MappingProxyType({})
) -> list[Judged]:
    """Every claim judged against the tidy table, in the given order.

    Args:
        claims: of `load`.
        frame: of `bench.analysis.table.load`.
        differences: paired differences of the score by case key; without one the two intervals are combined as independent.
    """
    listed = list(claims)
    usable = frame[frame["status"].isin(["ok", "contaminated"]) & frame["value"].notna()]
    usable = usable[usable["provenance"].isin(["measured", "counted"])]
    return [_judge(claim, usable, listed, differences) for claim in listed]


def as_dicts(judged: Iterable[Judged]) -> list[dict[str, Any]]:
    """Plain data for reports: the claim's fields beside `verdict`, `kind` (for badges), `text`, `evidence`, `case_keys`."""
    return [
        {
            **asdict(item.claim), "text": item.claim.text, "verdict": item.kind, "kind": item.kind.replace(" ", "-"),
            "evidence": item.reason, "remedy": item.remedy, "measured": item.measured, "low": item.low,
            "high": item.high, "case_keys": list(item.case_keys),
        }
        for item in judged
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- reading the file


def _claim(entry: Any, where: str, suite: str) -> Claim:
    """One entry of the file, checked."""
    names = [field.name for field in fields(Claim) if field.name != "suite"]
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: must be a mapping")
    for name in entry:
        if name not in names:
            raise UsageError(f'{where}: unknown field "{name}"; {did_you_mean(str(name), names)}')
    missing = [name for name in names if name not in entry and name not in _OPTIONAL]
    if missing:
        raise UsageError(f"{where}: needs {', '.join(missing)}")
    if entry["metric"] not in METRICS:
        raise UsageError(f"{where}: metric {entry['metric']!r}; {did_you_mean(str(entry['metric']), METRICS)}")
    for name in ("value", "tolerance", "plain"):
        number = entry.get(name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
            raise UsageError(f"{where}: {name} must be a number, not {number!r}")
    if not isinstance(entry["relative_to_baseline"], bool):
        raise UsageError(f"{where}: relative_to_baseline must be true or false")
    if entry.get("printed") is not None:
        _check_print(entry["printed"], float(entry["value"]), where)
    setting = entry.get("setting")
    return Claim(**{**entry, "value": float(entry["value"]), "suite": suite,
                    "setting": None if setting is None else _canonical(str(setting), where)})  # fmt: skip


def _digits(printed: str) -> tuple[int, float]:
    """Decimals and scale of a printed number: `2.7 G` has one and 1e9."""
    found = _PRINTED.fullmatch(printed)
    if found is None:
        raise ValueError(f"{printed!r} is not a number as it is printed, such as 2.7 G")
    return len(found[2] or ""), _SCALES[found[3]]


def _check_print(printed: Any, value: float, where: str) -> None:
    """Raise UsageError unless the printed number is one and is the claim's value."""
    try:
        digits, scale = _digits(str(printed))
    except ValueError as error:
        raise UsageError(f"{where}: printed: {error}") from error
    if not isinstance(printed, str) or f"{value / scale:.{digits}f}" != printed.partition(" ")[0].rstrip("kMGT"):
        raise UsageError(f"{where}: printed {printed!r} is not the value {value:g}")


def _canonical(setting: str, where: str) -> str:
    try:
        return settings_text(parse_settings(setting))
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


# ---------------------------------------------------------------------------------------------- judging


def _judge(claim: Claim, frame: pd.DataFrame, claims: Sequence[Claim], differences: Differences) -> Judged:
    """The verdict on one claim: not comparable, with both values, where a look-up finds two that differ."""
    try:
        return _judge_known(claim, frame, claims, differences)
    except Ambiguous as error:
        return _not_comparable(claim, str(error))


def _judge_known(claim: Claim, frame: pd.DataFrame, claims: Sequence[Claim], differences: Differences) -> Judged:
    """The verdict on one claim: first whether it can be compared at all, then by the kind of its metric."""
    if claim.tolerance is None:
        return _not_comparable(claim, "the paper's model, data, training or hardware are not those of any row here")
    rows = _rows_of(claim, frame)
    if rows.empty:
        return _not_comparable(claim, _why_absent(claim, frame))
    if METRICS[claim.metric].section in _COUNTED:
        return _judge_count(claim, rows, frame)
    if claim.metric in _RATIOS:
        return _judge_time(claim, rows, frame, claims)
    if claim.metric in RULES:
        return _judge_score(claim, rows, frame, differences)
    title = METRICS[claim.metric].title.lower()
    return _not_comparable(claim, f"{title} depends on the machine, so no paper's number travels")


def _rows_of(claim: Claim, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the claimed method, model, setting and resolution; of any setting where the claim names none."""
    rows = frame[frame["method"] == claim.method]
    if claim.model is not None:
        rows = rows[(rows["model"] == claim.model) & (rows["model_settings"].fillna("") == "")]
    if claim.resolution is not None and claim.model is not None:
        rows = rows[(rows["resolution"] == claim.resolution).fillna(False).astype(bool)]
    rows = rows[of_part(rows, claim.part) | (rows["metric"] != claim.metric)]
    if claim.setting is not None:
        rows = rows[rows["setting"].map(_same_setting(claim.setting)).astype(bool)] if len(rows) else rows
    return rows


def _same_setting(wanted: str) -> Any:
    """Whether a row's setting says the same as the claim's, whatever the order or spelling."""

    def same(text: Any) -> bool:
        try:
            return bool(parse_settings(str(text)) == parse_settings(wanted))
        except ValueError:
            return False

    return same


def _why_absent(claim: Claim, frame: pd.DataFrame) -> str:
    """What is missing from the table, from the method inwards."""
    of_method = frame[frame["method"] == claim.method]
    if of_method.empty:
        return f"{claim.method} has not been measured"
    if claim.model is not None and of_method[of_method["model"] == claim.model].empty:
        return f"{claim.method} has not been measured on {claim.model}"
    setting = f" with {claim.setting}" if claim.setting else ""
    return f"{claim.method} has not been measured on {claim.model or 'its model'}{setting} at {claim.resolution} px"


def _judge_count(claim: Claim, rows: pd.DataFrame, frame: pd.DataFrame) -> Judged:
    """A count, or a ratio of counts: exact, so it must agree to the printed precision on every machine."""
    counted = rows[rows["metric"] == claim.metric]
    values = (_relative(counted, frame, claim) if claim.relative_to_baseline else _by_case(counted)).dropna()
    if values.empty:
        return _not_comparable(
            claim, f"{METRICS[claim.metric].title} of the rows or of their baselines are unavailable"
        )
    nearest = values.sub(claim.value).abs().idxmin()
    found, keys = float(values[nearest]), (str(nearest),)
    if claim.model is None or claim.setting is None:
        named = _row_name(rows, nearest)
        reason = f"the paper's own setting is not one of ours; the nearest row, {named}, has {_show(found, claim)}"
        return _not_comparable(claim, reason, measured=found, keys=keys)
    if claim.printed is not None:
        return _judge_print(claim, claim.printed, found, keys)
    off = found / claim.value - 1
    agrees = abs(off) <= (claim.tolerance or 0.0) * (1 + 1e-9)
    reason = f"counted {_show(found, claim)} here, {100 * off:+.2f} % from the claim; {100 * (claim.tolerance or 0):g} % is allowed"
    return Judged(claim, "reproduced" if agrees else "not reproduced", reason, measured=found, case_keys=keys)


def _judge_print(claim: Claim, printed: str, found: float, keys: tuple[str, ...]) -> Judged:
    """A count held to the digits that the paper prints: it must round to them."""
    digits, scale = _digits(printed)
    shown = f"{found / scale:.{digits}f}"
    agrees = shown == printed.partition(" ")[0].rstrip("kMGT")
    reason = f"counted {_show(found, claim)} here, which prints as {shown}; the paper prints {printed}"
    return Judged(claim, "reproduced" if agrees else "not reproduced", reason, measured=found, case_keys=keys)


def _judge_time(claim: Claim, rows: pd.DataFrame, frame: pd.DataFrame, claims: Sequence[Claim]) -> Judged:
    """A time as a ratio to the plain model, on the kind of hardware the claim is about."""
    if not claim.relative_to_baseline:
        return _not_comparable(
            claim, "an absolute time belongs to its machine; only ratios to the plain model are judged"
        )
    speed = rows[(rows["metric"] == "speedup") & of_part(rows, claim.part)]
    if speed.empty:
        return _not_comparable(claim, "no speed-up over the plain model was measured for it")
    fitting = speed[_on_like_hardware(claim, speed)]
    if claim.setting is None:
        fitting, why = _at_claimed_macs(claim, fitting, frame, claims)
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
    found = Judged(claim, "not comparable here", f"{reason}; too noisy to tell", "more invocations", value, _finite(low),
                   _finite(high), (str(row["case_key"]),))  # fmt: skip
    if low >= bound:
        return replace(found, kind="reproduced", reason=reason, remedy="")
    if high < bound:
        return replace(found, kind="not reproduced", reason=reason, remedy="")
    return found


def _judge_score(claim: Claim, rows: pd.DataFrame, frame: pd.DataFrame, differences: Differences) -> Judged:
    """A score, only where the task may have the paper's data and the weights are a checkpoint."""
    metric, title = claim.metric, METRICS[claim.metric].title
    title = title if title[:2].isupper() else title.lower()
    found = rows[(rows["metric"] == metric) & rows["task"].isin(PAPER_TASKS) & rows["value"].notna()]
    if "checkpoint" in found.columns:
        found = found[found["checkpoint"].notna()]
    if "imagenet" in claim.convention.lower():
        found = found[(found["n"] == IMAGENET_IMAGES).fillna(False).astype(bool)]
    if found.empty:
        return _not_comparable(claim, f"no {title} was measured here on the paper's data with the paper's weights")
    found = found.sort_values(["batch", "dtype", "case_key"], kind="stable")  # of several conditions the smallest batch
    if claim.mode == "trained":
        return _not_comparable(claim, "the table does not say that the checkpoint was trained with the method",
                               measured=float(found["value"].iloc[0]), keys=(found["case_key"].iloc[0],))  # fmt: skip
    row = found.iloc[0]
    value, low, high = (float(row[name]) for name in ("value", "ci_low", "ci_high"))
    slack = claim.tolerance or 0.0
    base = frame[(frame["case_key"] == row["baseline_key"]) & (frame["machine_key"] == row["machine_key"])
                 & (frame["metric"] == metric)]  # fmt: skip
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
    ratio: pd.Series = _by_case(rows) / _by_case(rows, "baseline_key").map(_by_case(others)).astype(float)
    return ratio


def _on_like_hardware(claim: Claim, rows: pd.DataFrame) -> pd.Series:
    """Which rows were measured on hardware of the claimed kind; a named GPU stands for any GPU, as only ratios are judged."""
    if claim.hardware == "any":
        return pd.Series(True, index=rows.index)
    on_gpu = ~rows["device"].str.startswith("cpu")
    latency = claim.metric == "latency_ms"
    return on_gpu if latency else on_gpu & (rows["batch"] >= LARGE_BATCH).fillna(False).astype(bool)


def _at_claimed_macs(
    claim: Claim, rows: pd.DataFrame, frame: pd.DataFrame, claims: Sequence[Claim]
) -> tuple[pd.DataFrame, str]:
    """Rows whose MACs are what the same paper claims at the claimed speed, where the claim names no setting of ours."""
    partner = next((c for c in claims if (c.method, c.model) == (claim.method, claim.model) and c.metric == "macs"
                    and c.relative_to_baseline and c.tolerance is not None), None)  # fmt: skip
    if partner is None:
        return rows.iloc[:0], "the paper's own setting is not one of ours, and it states no MAC ratio to match"
    if rows.empty:
        return rows, ""
    counted = frame[(frame["metric"] == "macs") & of_part(frame) & frame["case_key"].isin(rows["case_key"])]
    ratios = _relative(counted, frame, partner)
    near = ratios[(ratios / partner.value - 1).abs() <= (partner.tolerance or 0.0)].index
    return rows[
        rows["case_key"].isin(near)
    ], f"no row has the {partner.value:g} of the MACs that the claimed speed belongs to"


def _not_comparable(claim: Claim, reason: str, *, measured: float | None = None, keys: tuple[str, ...] = ()) -> Judged:
    return Judged(claim, "not comparable here", reason, claim.comparable_when, measured, case_keys=keys)


def _row_name(rows: pd.DataFrame, case_key: Any) -> str:
    row = rows[rows["case_key"] == case_key].iloc[0]
    method = f"{row['method']}({row['setting']})" if row["setting"] else row["method"]
    return f"{method} on {row['model']}"


def _span(row: pd.Series) -> str:
    return f"{row['value']:.2f}x ({row['ci_low']:.2f} to {row['ci_high']:.2f})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _show(value: float, claim: Claim) -> str:
    return f"{value:.4g} of the plain model" if claim.relative_to_baseline else _quantity(value, claim.unit)


def _quantity(value: float, unit: str) -> str:
    """A count in G or M of its unit, anything else as it is."""
    for scale, prefix in ((1e9, "G"), (1e6, "M")):
        if unit in ("MAC", "parameter", "B", "op") and abs(value) >= scale:
            return f"{value / scale:.5g} {prefix}{unit}"
    return f"{value:.5g} {unit}"


def _amount(claim: Claim) -> str:
    """The claimed value in words."""
    if not claim.relative_to_baseline:
        return _quantity(claim.value, claim.unit)
    if claim.metric in RULES:
        return f"{claim.value:+g} {RULES[claim.metric].unit} against the plain model"
    return f"{claim.value:g}x" if claim.metric == "speedup" else f"{claim.value:g} of the plain model"
