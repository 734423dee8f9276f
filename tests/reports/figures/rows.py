"""Rows of a report made of synthetic records."""

from bench.reading import reading
from reports.rows import Row, rows_of
from tests.synthetic import record


def rows(*records) -> list[Row]:
    problems: list[str] = []
    made = rows_of(records, problems)
    assert not problems
    return made


def with_readings(made, **values):
    """The record with further readings: `metric=value` counted, `metric=(low, value, high)` measured, None removed."""
    kept = [item for item in made["readings"] if item["metric"] not in values]
    for metric, value in values.items():
        if isinstance(value, tuple):
            low, middle, high = value
            kept.append(reading(metric, middle, "measured", ci_low=low, ci_high=high, n=5).as_dict())
        elif value is not None:
            kept.append(reading(metric, value, "counted").as_dict())
    return {**made, "readings": kept}


def case(name, latency=None, accuracy=None, ideal=None, attainable=None, **fields):
    """A record of method `name` with exactly these readings."""
    extra = {"latency_ms": latency, "accuracy": accuracy, "ideal_ms": ideal, "attainable_ms": attainable}
    made = record(method=name, **fields)
    return with_readings({**made, "readings": [], "layers": []}, **extra)
