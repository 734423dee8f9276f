"""A sweep ends with its rows and their states, and says what measures those again that were disturbed or failed."""

import pytest

from bench.app.best import best_row
from bench.app.closing import in_order_of, seconds_again, show_rows, state_text
from bench.config.schema import validate
from bench.store.outline import outline_of
from bench.store.records import is_present
from tests.synthetic import record


def of_status(status, **fields):
    return {**record(**fields), "status": status}


def test_the_states_of_rows_are_counted_and_each_names_its_remedy_with_the_time_it_takes():
    rows = [of_status("ok"), of_status("contaminated"), of_status("contaminated"), of_status("crashed")]
    rows.append(of_status("interrupted"))
    assert state_text(rows, {"disturbed": 300.0, "failed": 12.0}) == (
        "1 ok; 2 disturbed by other work (retry=disturbed measures them again, about 5 min); "
        "1 failed (retry=failed measures it again, about 12 s); 1 interrupted (the same command measures it)"
    )
    assert state_text([of_status("ok")]) == "1 ok"


def test_measuring_again_takes_whole_groups_each_once():
    rows = [{"case_key": key, "status": status} for key, status in (("a", "contaminated"), ("b", "contaminated"))]
    rows += [{"case_key": "c", "status": "crashed"}, {"case_key": "d", "status": "ok"}]
    groups, seconds = {"a": "g", "b": "g", "c": "h", "d": "h"}, {"g": 10.0, "h": 4.0}
    assert seconds_again(rows, groups, seconds) == {"disturbed": 10.0, "failed": 4.0}


def test_the_table_shows_what_was_compared_with_its_promise_and_what_was_disturbed(capsys):
    reduced = record(method="tome", setting="r=8", macs=0.625e9, latency_ms=25.0)
    show_rows([record(), reduced, of_status("contaminated", method="evit", setting="keep_rate=0.7")])
    told = capsys.readouterr().out
    (line,) = (line for line in told.splitlines() if "tome(r=8)" in line)
    assert "2.00×" in line and "ms" in line and line.rstrip().endswith("ok")  # 1.25 over 0.625 GMACs
    (line,) = (line for line in told.splitlines() if "evit" in line)
    assert line.rstrip().endswith("disturbed")


def test_a_model_alone_is_shown_by_its_cost_and_nothing_is_called_faster(capsys):
    alone = [record(macs=1.25e9)]
    show_rows(alone)
    told = capsys.readouterr().out
    assert "MACs" in told and "1.25\u00a0GMACs" in told and "speed-up" not in told
    assert best(alone) == ""


def best(records):
    """What is said of a sweep: it knows outlines, which hold no answers, and asks for the whole of few."""
    return best_row([outline_of(item) for item in records], lambda keys: [r for r in records if r["case_key"] in keys])


def answered(made, right, of=1000):
    """The record with so many of its samples right."""
    item = next(one for one in made["readings"] if one["metric"] == "accuracy")
    item.update(value=100 * right / of, ci_low=80.0, ci_high=99.0, n=of, provenance="measured", method_note="")
    made["quality"] = {"per_sample": "1" * right + "0" * (of - right), "samples_digest": "d", "n": of, "correct": right}
    return made


def test_the_best_row_is_no_row_that_loses_for_certain_and_where_all_do_the_loss_is_told_first():
    plain = answered(record(), 950)
    fast = answered(record(method="evit", setting="keep_rate=0.5", latency_ms=20.0), 800)
    sound = answered(record(method="tome", setting="r=8", latency_ms=32.0), 949)
    told = best([plain, fast, sound])
    assert "tome(r=8)" in told and "1.25x [" in told and told.endswith(", accuracy 94.9 %, no certain loss")
    told = best([plain, fast])
    assert told.startswith("nothing is faster without a certain loss: at \N{MINUS SIGN}15.0 ± ")
    assert told.index("points of accuracy") < told.index("evit(keep_rate=0.5)") < told.index("2.00x [")
    assert best([plain, fast, record(method="tome", setting="r=8", latency_ms=32.0)]).endswith("no score was measured")
    assert best([fast]).endswith("accuracy 80 %, its change is not known")
    slower = record(method="tome", setting="r=2", latency_ms=50.0)
    assert best([plain, slower]) == "nothing is faster than its baseline for certain"


def test_rows_of_one_side_stand_together_and_are_told_apart_by_what_differs_in_their_shape(capsys):
    made = [record(batch=batch) for batch in (1, 8)]
    made += [record(method="tome", setting="r=8", batch=batch, macs=0.625e9, latency_ms=25.0) for batch in (1, 8)]
    show_rows([made[2], made[1], made[0], made[3]])
    told = [line for line in capsys.readouterr().out.splitlines() if "batch" in line]
    assert [("tome" in line, "batch 8" in line) for line in told] in (
        [(False, False), (True, False), (False, True), (True, True)],
        [(False, True), (True, True), (False, False), (True, False)],
    )


def test_rows_stand_in_the_order_in_which_their_cases_were_written_down():
    made = [record(method="tome", setting=f"r={i}") for i in (3, 1, 2)]
    keys = [made[place]["case_key"] for place in (1, 2)]
    assert [one["case"]["setting"] for one in in_order_of(keys, made)] == ["r=1", "r=2", "r=3"]


@pytest.mark.parametrize(
    ("retry", "again"),
    [
        ("none", {"interrupted"}),
        ("disturbed", {"interrupted", "contaminated"}),
        ("failed", {"interrupted", "crashed", "unsupported"}),
        ("all", {"interrupted", "contaminated", "crashed", "unsupported"}),
    ],
)
def test_what_is_measured_again_is_chosen_by_name(retry, again):
    statuses = ("ok", "contaminated", "crashed", "unsupported", "interrupted")
    assert {status for status in statuses if not is_present(of_status(status), retry=retry)} == again
    assert not is_present(None, retry=retry)


def test_the_older_spelling_measures_everything_again():
    plain = {"suite": {"name": "s", "grids": {"default": [{"models": ["m"]}]}}, "protocol": {"name": "t", "version": 1}}
    assert validate({**plain, "retry_failed": True}).retries == "all"
    assert validate({**plain, "retry": "disturbed"}).retries == "disturbed"
