"""`prediction`: one run predicts the cost of `batch` networks that are encoded already; its quality is its error.

The subject's module is a predictor: its forward takes encoded networks and gives their costs, [networks]. It offers

- `example_inputs(batch) -> tuple`: so many encoded networks;

and may offer

- `encode_one() -> None`: encodes one network, which is timed beside the prediction.

A task (`bench.plan.recipe`: one whose constructor takes `results` is told the results folder) fits the module to what
other rows measured and gives

- `evaluation(module) -> Evaluation`: held-out networks with what was measured and what is predicted of them.

Predicted values are `modelled`; how far they are from measured ones is told with an interval over networks. Without a
task there is nothing to be wrong about. Cases of this workload are made from other records: they come after all others
of a sweep and are made again when what they were made from has changed (`measured`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import prediction_errors
from bench.canonical import digest
from bench.flags import flag
from bench.reading import Curve, Reading, reading, unavailable
from bench.workloads.deriving import Value, derived
from bench.workloads.workload import BATCH, Built, Facts, Part, Shape, Workload, ask, clock_of

WORKLOAD = Workload(
    "prediction",
    unit="network",
    parts=("predict",),
    axes=(BATCH,),
    title="the cost of networks, predicted",
    of_records=True,
)

#: Errors that a reader gets beside the score of the task.
ERRORS = tuple(name for name in prediction_errors.MEASURES if name != "mape")
#: What of them is told of a predictor that only ranks.
RANKS = ("spearman", "kendall", "top1_regret")
#: What else is told of a predictor.
COUNTS = ("build_seconds", "training_networks", "table_entries", "refused_entries")
ENCODINGS = 20
#: Share of networks without a prediction that is told beside the row, per cent.
UNCOVERED = 0.0


@dataclass(frozen=True)
class Evaluation:
    """Held-out networks: what was measured and what is predicted of each.

    Attributes:
        names, families: of the networks that could be predicted.
        measured: their costs.
        predicted: the same of the predictor, in the same unit.
        repeats: their measured cost in every process, for the noise ceiling; empty where it was taken once.
        unpredicted: networks that the predictor lacks something for, with what; never left out in silence.
        facts: `build_seconds`, `training_networks`, `table_entries`, `refused_entries`, as far as they are there.
        in_ms: whether the cost is a time in milliseconds.
        ranks_only: whether the predictor says which network is cheaper and nothing of what it costs.
        budget: a cost that networks are to stay below, for which it is told how often a predictor decides right; None
            without one.
        simulated: whether the costs are those of a simulated machine.
        source: hash of the measured rows that all of this was made from (`source_of`); empty of a simulated machine.
        suite: whose rows those are.
        details: plain JSON to keep: split, entries refused, networks refused in training, sessions.
        flags: what a reader has to know of it.
    """

    names: Sequence[str]
    families: Sequence[str]
    measured: Sequence[float]
    predicted: Sequence[float]
    repeats: Sequence[Sequence[float]] = ()
    unpredicted: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    in_ms: bool = True
    ranks_only: bool = False
    budget: float | None = None
    simulated: bool = False
    source: str = ""
    suite: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[dict[str, str]] = ()


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The prediction of the example networks."""
    module, args, kwargs = subject.module, subject.args, subject.kwargs
    return [Part("predict", lambda: module(*args, **kwargs), units=float(shape["batch"]))]


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Errors over held-out networks with their intervals, per family as curves; what the predictor was built from."""
    evaluation = None if subject.device == "meta" else ask(subject.task, "evaluation", subject.module)
    if evaluation is None:
        why = "there is no task that gives measured networks" if subject.device != "meta" else "nothing is run on meta"
        others = ("noise_mape", "coverage_percent", "decides_percent")
        return Facts([unavailable(name, why) for name in (*ERRORS, *COUNTS, *others)])
    made_from = {"measured": evaluation.source, "measured_in": evaluation.suite}
    details = {**evaluation.details, **made_from, "unpredicted": dict(evaluation.unpredicted)}
    details["encode_us"] = _encode_us(subject)
    found = [*_errors(evaluation, subject.seed), *_counts(evaluation), _coverage(evaluation)]
    found += [_ceiling(evaluation), _decisions(evaluation)]
    return Facts(found, _curves(evaluation, subject.seed), details, [*evaluation.flags, *_flags(evaluation)])


def _errors(evaluation: Evaluation, seed: int) -> list[Reading]:
    """Each error over all families together; of a simulated machine it is modelled as a whole."""
    if not evaluation.names:
        why = "no held-out network can be predicted: " + _first_reason(evaluation)
        return [unavailable(name, why) for name in ERRORS]
    told = RANKS if evaluation.ranks_only else ERRORS
    found = prediction_errors.estimates(evaluation.measured, evaluation.predicted, seed, told)
    without = [unavailable(name, "it ranks networks and predicts no cost") for name in ERRORS if name not in told]
    return [*(_as_reading(name, estimate, evaluation) for name, estimate in found.items()), *without]


def _as_reading(name: str, estimate: prediction_errors.Estimate, evaluation: Evaluation) -> Reading:
    if estimate.value is None:
        return unavailable(name, "not defined for these networks: costs that are zero or all equal")
    note = "against a simulated machine" if evaluation.simulated else "predicted values are modelled"
    ends = {"ci_low": estimate.low, "ci_high": estimate.high, "n": estimate.n}
    how = "percentile bootstrap over networks" if estimate.low is not None else "too few networks for an interval"
    kind: Any = "modelled" if evaluation.simulated else "measured"
    return reading(name, estimate.value, kind, statistic=how, method_note=note, **ends)


def _counts(evaluation: Evaluation) -> list[Reading]:
    kinds: dict[str, Any] = {"build_seconds": "measured"}
    return [
        reading(name, evaluation.facts[name], kinds.get(name, "counted"))
        if evaluation.facts.get(name) is not None
        else unavailable(name, "this predictor has none, or it was not taken down")
        for name in COUNTS
    ]


def _coverage(evaluation: Evaluation) -> Reading:
    known, lacking = len(evaluation.names), len(evaluation.unpredicted)
    if not known + lacking:
        return unavailable("coverage_percent", "no network is held out")
    return reading("coverage_percent", 100 * known / (known + lacking), "counted", n=known + lacking)


def _ceiling(evaluation: Evaluation) -> Reading:
    value = prediction_errors.ceiling([values for values in evaluation.repeats if len(values) > 1])
    if value is None:
        return unavailable("noise_mape", "no held-out network was measured in several processes")
    note = "from each process against the geometric mean of the others, as of two means over all processes"
    return reading("noise_mape", value, "measured", n=len(evaluation.names), method_note=note)


def _decisions(evaluation: Evaluation) -> Reading:
    """How many networks it puts on the right side of the budget, with Wilson's interval."""
    if evaluation.budget is None or not evaluation.names:
        return unavailable("decides_percent", "there is no budget, or no network that could be predicted")
    from bench.statistics import wilson

    right = prediction_errors.right_side(evaluation.measured, evaluation.predicted, evaluation.budget)
    low, high = (100 * end for end in wilson(sum(right), len(right)))
    note = f"the budget is {evaluation.budget:.4g}, the median cost of what was learned from"
    kind: Any = "modelled" if evaluation.simulated else "measured"
    ends = {"ci_low": low, "ci_high": high, "n": len(right), "statistic": "share, Wilson 95 % interval over networks"}
    return reading("decides_percent", 100 * sum(right) / len(right), kind, method_note=note, **ends)


def _curves(evaluation: Evaluation, seed: int) -> list[Curve]:
    """Predicted over measured, a curve a family, and every error by family."""
    families = list(dict.fromkeys(evaluation.families))
    members = {f: [i for i, own in enumerate(evaluation.families) if own == f] for f in families}
    found = []
    for family, places in members.items():
        if evaluation.in_ms and not evaluation.ranks_only:
            measured, predicted = ([side[i] for i in places] for side in (evaluation.measured, evaluation.predicted))
            note = f"family {family}; places are measured milliseconds"
            found.append(Curve("predicted_ms", "measured_ms", measured, predicted, "modelled", family, note))
    by_family: dict[str, list[float | None]] = {}
    for places in members.values():
        sides = [[side[i] for i in places] for side in (evaluation.measured, evaluation.predicted)]
        for name in RANKS if evaluation.ranks_only else prediction_errors.MEASURES:
            measure = prediction_errors.MEASURES[name]
            by_family.setdefault(name, []).append(measure(*sides))
    kind: Any = "modelled" if evaluation.simulated else "measured"
    return [*found, *(Curve(name, "family", families, values, kind) for name, values in by_family.items())]


def _flags(evaluation: Evaluation) -> list[dict[str, str]]:
    found = []
    lacking = len(evaluation.unpredicted)
    if lacking:
        text = f"{lacking} held-out networks cannot be predicted: {_first_reason(evaluation)}"
        found.append(flag("networks_without_prediction", "warn", text))
    if evaluation.simulated:
        found.append(flag("simulated_machine", "info", "measured costs are those of a simulated machine"))
    return found


def _first_reason(evaluation: Evaluation) -> str:
    return next((f"{name}: {why}" for name, why in evaluation.unpredicted.items()), "none is held out")


def _encode_us(subject: Built) -> float | None:
    """Median microseconds of encoding one network; None of a predictor that does not offer it."""
    from statistics import median

    if not callable(getattr(subject.module, "encode_one", None)):
        return None
    clock, taken = clock_of(subject), []
    for _ in range(ENCODINGS):
        start = clock()
        subject.module.encode_one()
        taken.append((clock() - start) / 1e3)
    return float(median(taken))


def derive(shape: Shape, value: Value) -> list[Reading]:
    """What one prediction takes."""
    networks = int(shape.get("batch") or 1)
    note = f"latency of a run over its {networks} networks"
    return [derived("predict_us", "predict", value("latency_ms", "predict"), lambda ms: 1e3 * ms / networks, note)]


# ---------------------------------------------------------------------------------------------- of what it was made


def source_of(records: Iterable[Mapping[str, Any]], suite: str) -> str:
    """Hash of the timed rows among records that a prediction may be made from: those of no prediction, that ended well.

    Args:
        records: of a results folder.
        suite: whose rows count; those that other suites measured are read, and do not make a prediction anew.
    """
    kept = sorted(
        str(record["content_hash"])
        for record in records
        if record["case"].get("workload") != WORKLOAD.name
        and record["status"] in ("ok", "contaminated")
        and (record.get("timing") or {}).get("invocations")
        and record["case"].get("suite") == suite
    )
    return digest(kept)


def is_outdated(record: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a record of this workload was made from other measured rows than there are now.

    One that failed for lack of rows is tried again; one that says nothing of what it was made from (a simulated
    machine, data of the user's own) is never outdated.

    Args:
        record: of a prediction.
        records: all there are in its results folder.
    """
    if record["status"] not in ("ok", "contaminated"):
        return True
    found = record.get("workload") or {}
    made_from = found.get("measured")
    return bool(made_from) and made_from != source_of(records, str(found.get("measured_in", "")))
