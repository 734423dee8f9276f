"""Times of two sessions: a row that came later is set beside the others by its ratio, not by its milliseconds."""

from reports.sessions import cost_of, plain_latency
from tests.reports.figures.rows import case, rows, with_readings


def of_two_sessions():
    """Plain: 100 ms. A row of a session in which everything took 0.7 of that: 21 ms, where plain took 70 there."""
    plain = with_readings(case("none", 100.0), macs=8.0)
    later = with_readings(case("tome", 21.0), macs=2.0, speedup=(3.2, 70 / 21, 3.5))
    later["timing"] = {**later["timing"], "session": "another"}
    return rows(plain, later)


def test_a_time_of_another_session_is_the_plain_time_over_the_paired_speed_up():
    plain, later = of_two_sessions()
    assert cost_of(later, plain, "latency_ms") == 100 / (70 / 21)  # 30 ms: not 21
    assert cost_of(later, plain, "macs") == 2.0
    assert round(plain_latency(later, plain).value, 9) == 70.0 and plain_latency(later, plain).low is None


def test_within_a_session_nothing_is_changed():
    plain, other = rows(case("none", 100.0), with_readings(case("tome", 21.0), speedup=(3.0, 4.0, 5.0)))
    assert cost_of(other, plain, "latency_ms") == 21.0
    assert plain_latency(other, plain).value == 100.0
    assert plain_latency(other, None) is None


def test_products_that_are_a_lower_bound_make_no_ratio():
    def solved(share):
        plain = with_readings(case("none", 40.0), macs=8.0)
        plain["counts"] = {**plain["counts"], "uncounted": [{"operator": "aten::cholesky", "time_share": share}]}
        return rows(plain, with_readings(case("tome", 20.0), macs=2.0, speedup=(1.9, 2.0, 2.1)))[1].cells

    assert solved(0.005)["mac_ratio"].value == 4.0
    bound = solved(0.13)
    assert bound["mac_ratio"].value is None and "aten::cholesky" in bound["mac_ratio"].note
    assert bound["realised_gain"].value is None and "13%" in bound["realised_gain"].note
