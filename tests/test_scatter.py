"""Scatter is taken apart into what it was made of."""

import gzip
import json

import numpy as np
import pytest

from bench.errors import UsageError
from perf.scatter import as_markdown, cases, components, control, main


def made(rng, processes, length, iteration, wander, process):
    """Logarithms with a level a process, a level a block of ten, and noise an iteration."""
    return [
        rng.normal(0, process) + np.repeat(rng.normal(0, wander, length // 10), 10) + rng.normal(0, iteration, length)
        for _ in range(processes)
    ]


@pytest.mark.parametrize("truth", [(0.01, 0.0, 0.0), (0.02, 0.01, 0.03), (0.005, 0.02, 0.0)])
def test_components_come_back(truth):
    found = components(made(np.random.default_rng(1), 400, 100, *truth))
    assert (found.iteration, found.wander, found.process) == pytest.approx(truth, abs=0.005)


def test_too_little_says_nothing():
    rng = np.random.default_rng(1)
    assert components(made(rng, 2, 100, 0.01, 0, 0)) is None and components(made(rng, 9, 10, 0.01, 0, 0)) is None


def write(folder, processes, shared):
    """A session of a plain case of 2 ms, its twin and a method of 1 ms; a process's level is the product's too."""
    rng = np.random.default_rng(2)
    (folder / "samples" / "s").mkdir(parents=True)
    for number in range(processes):
        level = rng.normal(0, shared)
        draw = lambda ms, level=level: list(ms * np.exp(level + rng.normal(0, 0.001, 50)))  # noqa: E731
        file = {
            "cases": {"plain": {"latency_ms": draw(2.0)}, "method": {"latency_ms": draw(1.0)}},
            "twin": {"of": "plain", "latency_ms": draw(2.0)},
            "reference_gemm": {"ms": draw(5.0)},
        }
        with gzip.open(folder / "samples" / "s" / f"{number:02}.json.gz", "wt") as out:
            json.dump(file, out)


def test_a_level_that_all_of_a_process_share_is_gone_from_ratios_and_told_by_the_product(tmp_path, capsys):
    write(tmp_path, 30, 0.05)
    plain, method = sorted(cases(tmp_path), key=lambda case: -case.milliseconds)
    assert plain.ratio is None and plain.twin.process < 0.001
    assert method.time.process == pytest.approx(0.05, abs=0.02) and method.ratio.process < 0.001
    slope, left, free = control([plain, method])
    assert slope == pytest.approx(1, abs=0.02) and left < 0.01 and free == 58
    assert "1 to 10 ms | 2 |" in as_markdown([plain, method])
    main([str(tmp_path)])
    assert "slope 1.0" in capsys.readouterr().out


def test_what_slows_a_round_is_in_ratios_of_medians_and_in_none_by_rounds(tmp_path):
    """Rounds that are slowed by 0 or by half, at random; of three processes one lost a sample of its twin."""
    rng = np.random.default_rng(6)
    (tmp_path / "samples" / "s").mkdir(parents=True)
    for number in range(3):
        slow = 1 + 0.5 * (rng.random(40) < 0.5)
        base, twin = (list(20 * slow * np.exp(rng.normal(0, 0.001, 40))) for _ in range(2))
        file = {
            "cases": {"plain": {"latency_ms": base}},
            "twin": {"of": "plain", "latency_ms": twin[: 39 if number == 2 else 40]},
            "reference_gemm": {"ms": [1.0]},
        }
        with gzip.open(tmp_path / "samples" / "s" / f"{number:02}.json.gz", "wt") as out:
            json.dump(file, out)
    (case,) = cases(tmp_path)
    assert len(case.twins) == 2 and max(abs(rounds) for _, rounds in case.twins) < 0.001
    by_hand = [median - other for median, other in case.twins]
    assert all(np.isfinite(by_hand)) and "10 to 100 ms | 2 |" in as_markdown([case])


def test_a_folder_without_samples_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no samples of any session"):
        list(cases(tmp_path))
