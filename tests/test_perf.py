"""The benchmarks of the instrument compute what their tables say; their times are not asserted on."""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path

import psutil
import pytest

from bench.errors import UsageError
from perf import instrument, known, loops, site_speed
from perf.instrument import Known, Twins


def test_a_busy_wait_lasts_at_least_its_time_and_gives_its_input_back() -> None:
    module = known.BusyWait(2_000_000)
    (x,) = module.example_inputs(3)
    start = time.perf_counter()
    assert module(x) is x
    assert time.perf_counter() - start >= 2e-3
    assert x.shape == (3, 1)


def test_the_loops_make_as_many_iterations_as_their_tools_do() -> None:
    calls: list[None] = []

    def step() -> None:
        calls.append(None)

    assert len(loops.timm(step)) == 40
    assert len(calls) == 50
    calls.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "_timed", lambda step: (step(), 900.0)[1])
        assert len(loops.optimum(step)) == 12  # eleven times 0.9 s is less than ten seconds
        patch.setattr(loops, "_timed", lambda step: (step(), 5000.0)[1])
        assert len(loops.optimum(step)) == 10  # ten iterations at least
    assert len(calls) == 10 + 12 + 10 + 10
    start = time.monotonic()
    times = loops.torch_timer(lambda: time.sleep(0.01))
    assert min(times) >= 10.0  # a block of several is given as the time of one
    assert time.monotonic() - start >= 0.2


def test_intervals_of_mean_and_median_are_the_textbooks() -> None:
    low, high = loops.mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5 / 5)  # t(0.975, 4) times the standard error
    assert (low, high) == pytest.approx((3.0 - half, 3.0 + half))
    # 95 % of the median over ten values: the second and the ninth (binomial tails 0.0107 each)
    assert loops.median_interval([float(i) for i in range(1, 11)]) == (2.0, 9.0)
    assert loops.median_interval([1.0, 2.0, 3.0]) == (0.0, math.inf)  # too few for any


def test_time_for_the_goal_is_the_repetitions_that_the_real_spread_asks_for() -> None:
    rows = [Twins("x", 0, math.exp(sign * 0.0303), 0.9, 1.1, 2.0) for sign in (1, -1)]
    error, repetitions, seconds = instrument.needed(rows)
    assert error == pytest.approx(math.expm1(1.96 * 0.0303))
    assert repetitions == 9  # (1.96 * 0.0303 / ln 1.02)^2 = 8.99
    assert seconds == pytest.approx(18.0)
    exact = [Twins("x", 0, 1.001, 0.9, 1.1, 2.0)]
    assert instrument.needed(exact)[1:] == (1, 2.0)  # never less than once


def test_tables_say_how_far_off_and_how_often_wrong() -> None:
    table = instrument.known_table(
        [Known("a", 1.0, 1.0012, 1.0005, 1.0019, 3.0), Known("b", 1.0, 0.9, 0.0, math.inf, 1.0)]
    )
    assert "| 1 ms | a | 1.0012 ms | +1.2 us (0.120 %) | [+0.5, +1.9] us | 3.0 |" in table
    assert "none: too few samples" in table
    twins = [Twins("a", 0, 1.0, 0.99, 1.01, 4.0), Twins("a", 1, 1.05, 1.03, 1.07, 6.0)]
    line = instrument.twins_table(twins).splitlines()[-1]
    assert line.startswith("| a | 2 | 50 % (9 % to 91 %) |")
    assert "| 5.0 |" in line


def test_the_instrument_goes_on_where_it_stopped_and_mixes_no_busy_and_quiet_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, asked = tmp_path / "answers.json", []

    def twins(tool: object, number: int) -> list[Twins]:
        asked.append((name := instrument.name_of(tool), number))  # type: ignore[arg-type]
        return [Twins(name, number, 1.01, 0.99, 1.03, 2.0)]

    monkeypatch.setattr(instrument, "twins_by", twins)
    monkeypatch.setattr(instrument, "twins_by_us", twins)
    words = ["--json", str(file), "--rounds", "2", "--longest-ms", "0"]
    others = [tool for tool in map(instrument.name_of, instrument.TOOLS) if tool != "waterline v2/quick"]
    left_out = [word for tool in others for word in ("--without", tool)]
    assert instrument.main(["--json", str(file), "--rounds", "1", "--longest-ms", "0", *left_out]) == 0
    assert asked == [("waterline v2/quick", 0)] and "goes on" not in capsys.readouterr().out
    assert instrument.main([*words, "--minutes", "0"]) == 0
    assert len(asked) == 2 and "the same command goes on" in capsys.readouterr().out
    assert instrument.main(words) == 0
    tools = [*others, "waterline v2/quick"]
    assert sorted(asked) == sorted((tool, number) for tool in tools for number in (0, 1))
    out = capsys.readouterr().out
    assert "goes on" not in out and "| waterline v2/quick | 2 | 0 %" in out and "| waterline quick | 2 | 0 %" in out
    assert instrument.main([*words, "--busy", "2"]) == 2 and "--busy 0" in capsys.readouterr().err


def test_a_sweep_of_the_instrument_has_its_records_when_its_folder_is_gone() -> None:
    records, seconds = instrument.sweep("glance", ["perf.known:busy_wait(milliseconds=0.1)"], ["none"])
    (record,) = records
    (median,) = instrument.per_process(record, "latency_ms")
    assert record["status"] in ("ok", "contaminated") and seconds > 0
    assert median >= 0.1  # nothing is quicker than what it waits for


def test_a_gate_in_a_quiet_world_finds_a_tenth_and_the_table_says_what_that_takes() -> None:
    from perf import gate_worlds
    from perf.rules import VERSION_2
    from perf.worlds import WORLDS

    row = gate_worlds.row_of(VERSION_2[1], WORLDS[0], draws=20, sizes=(1, 2))
    assert row.lines[1].needed in (1, 2) and row.false <= 0.1 and 0 < row.seconds < 20
    line = gate_worlds.as_table([row]).splitlines()[-1]
    assert (
        line.startswith(f"| quiet | {row.seconds:.1f} |") and f"| {2 * row.lines[1].needed * row.seconds:.0f} |" in line
    )


def recorded_sessions(noise: float, count: int) -> list[dict[str, object]]:
    """Sessions of one case that differ by this noise, as a runner would have recorded them."""
    import numpy as np

    from bench.store.records import seal
    from tests.synthetic import record

    made = []
    for number, draw in enumerate(np.random.default_rng(3).normal(0, 1, count)):
        host = math.exp(noise * draw)
        own = record(latency_ms=40 * host, baseline_ms=40 * host, noise=0.0005, seed=number)
        own["timing"] = {**own["timing"], "session": f"s{number}"}
        made.append(seal(own))
    return made


@pytest.mark.parametrize(("noise", "difference", "count"), [(0.03, 0.10, 4), (0.02, 0.05, 8)])
def test_power_from_recorded_sessions_is_that_of_the_formula_at_their_noise(
    noise: float, difference: float, count: int
) -> None:
    from bench.analysis.power import power
    from perf import gate_power

    pool = gate_power.sessions_of(recorded_sessions(noise, 40))
    spread = statistics.stdev(math.log(line["timing"]["invocations"][0]["median_ms"]) for line in pool)
    found = gate_power.share_found(pool, count, difference, draws=120)
    assert found == pytest.approx(
        power(spread, count, difference, 0.02), abs=0.13
    )  # three standard errors, and a bootstrap's own


def test_what_is_needed_is_the_first_size_that_is_enough_and_nothing_is_found_where_nothing_changed() -> None:
    from perf import gate_power

    pool = gate_power.sessions_of(recorded_sessions(0.01, 12))
    line = gate_power.line_of(pool, 0.10, draws=30)
    assert line.needed is not None and list(line.found)[-1] == line.needed
    assert all(share < 0.9 for count, share in line.found.items() if count < line.needed)
    assert gate_power.share_found(pool, 3, 0.0, draws=60) <= 0.05
    text = gate_power.as_text(pool, [line], 0.0)
    assert f"10% more time is found nine times in ten with {line.needed} sessions a side" in text


def test_too_few_recorded_sessions_are_refused_with_how_many_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from perf import gate_power
    from tests.synthetic import store

    store(tmp_path / "results")
    assert gate_power.main([str(tmp_path / "results")]) == 2
    assert "1 sessions of one case say little" in capsys.readouterr().err


def test_sessions_are_measured_while_there_is_time_for_another_and_neighbours_end_with_them(tmp_path: Path) -> None:
    from perf import gate_sessions

    clock = iter([0.0, 0.0, 0.0, 50.0, 50.0, 50.0, 110.0, 110.0])  # sessions of 50 and 60 s, and no third in 150
    began: list[Path] = []
    made = gate_sessions.measured(tmp_path, "quiet", 150.0, began.append, lambda: next(clock))
    assert made == began and len({path.name for path in made}) == 2
    mine = psutil.Process()
    before = set(mine.children())  # other tests of this process may have some
    with gate_sessions.neighbours(2):
        assert len(set(mine.children()) - before) == 2
    assert not set(mine.children()) - before


def test_the_table_of_a_runner_stands_between_its_marks_and_no_other_line_changes(tmp_path: Path) -> None:
    from perf import gate_power, gate_sessions

    page = tmp_path / "page.md"
    page.write_bytes((gate_sessions.ROOT / "docs" / "statistics.md").read_bytes())
    before = page.read_text().splitlines()
    pool = gate_power.sessions_of(recorded_sessions(0.01, 12))
    table = gate_power.as_table("quiet", 3, pool, [gate_power.line_of(pool, 0.10, draws=10)], 0.0)
    for _ in range(2):  # again takes the place of what was there
        gate_sessions.written(page, "quiet", table)
    after = page.read_text().splitlines()
    start, end = (next(i for i, line in enumerate(after) if f"quiet: {word}" in line) for word in ("begin", "end"))
    assert any("| 10% |" in line for line in after[start:end])
    assert any("12 sessions of deit_tiny; 3 more" in line for line in after[start:end])
    own = [next(i for i, line in enumerate(before) if f"quiet: {word}" in line) for word in ("begin", "end")]
    assert after[:start] == before[: own[0]] and after[end:] == before[own[1] :]
    with pytest.raises(UsageError, match="has no <!-- gate_power windy: begin"):
        gate_sessions.written(page, "windy", table)


@pytest.mark.parametrize(("sessions", "code", "said"), [(1, 2, "1 sessions of one case"), (6, 0, "Taken all the same")])
def test_a_runner_without_undisturbed_sessions_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sessions: int, code: int, said: str
) -> None:
    from bench.store.records import seal
    from perf import gate_power
    from tests.synthetic import store

    page = tmp_path / "page.md"
    page.write_text("  <!-- gate_power busy: begin -->\n  old\n  <!-- gate_power busy: end -->\n")
    for number, one in enumerate(recorded_sessions(0.001, sessions)):
        store(tmp_path / f"r{number}", [seal({**one, "status": "contaminated"})], with_samples=False)
    results = [tmp_path / f"r{number}" for number in range(sessions)]
    monkeypatch.setattr(gate_power, "measured", lambda *_: results)
    assert gate_power.measure_and_write("busy", page, 5) == code
    assert f"0 of {sessions} sessions were undisturbed" in page.read_text()
    assert said in page.read_text() and "old" not in page.read_text()


def test_made_up_records_are_as_many_as_asked_for_and_spread_over_suites() -> None:
    for rows in (36, 400):
        made = list(site_speed.records(rows))
        suites = [item["case"]["suite"] for item in made]
        assert len(made) == rows == len({item["case_key"] for item in made})
        assert len(set(suites)) == site_speed.SUITES and max(map(suites.count, suites)) <= rows / site_speed.SUITES + 1
    assert 0.01 < sum(item["status"] == "contaminated" for item in made) / len(made) < 0.1


def test_a_suites_page_is_small_because_its_figures_stand_beside_it(tmp_path: Path) -> None:
    """The largest page of a site of 2,000 rows in 18 suites is that of a suite of 112."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site_speed, "SUITES", 1)
        assert site_speed.fill(tmp_path / "results", 112) == 112
    site_speed.made(tmp_path, figure_seconds=1e-9)  # the page of the suite comes first and has its figures
    sizes = site_speed.sizes(tmp_path / "site")
    assert sizes["first page"] < 400e3 and sizes["largest suite"] < 500e3 and sizes["its rows"] < 300e3
    assert 20e3 < sizes["its figures"] < 300e3


@pytest.mark.slow
def test_the_speed_of_a_site_is_told_and_its_first_page_stays_below_a_megabyte() -> None:
    line = site_speed.measure(2000)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == "2000" and all(float(cell.split()[0]) > 0 for cell in cells[1:5])
    assert 0.1 < float(cells[5].split(",")[0].removeprefix("first page ")) < 1.0
