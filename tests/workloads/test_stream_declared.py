"""What a stream may say of itself: a reference beside its clip, delays, chunks, cycles, products of what changed."""

import pytest
import torch

from bench.errors import UsageError
from tests.workloads.subjects import Causal, subject_of
from tests.workloads.test_facts import counts_of, facts_of, values


def declared(**attributes):
    subject = subject_of(Causal)
    for name, value in attributes.items():
        setattr(subject.module, name, value)
    return subject


def test_a_reference_takes_the_place_of_the_clip_which_is_then_compared_by_itself():
    subject = declared()
    window = subject.module.offline
    subject.module.reference = window
    subject.module.offline = lambda clip: window(clip)[:, -1] + 1.0
    found = values(facts_of("stream", subject))
    assert found["offline_error"] < 1e-6 and found["offline_agreement"] == 100.0 and found["offline_nrmse"] < 1e-6
    assert found["clip_error"] > 0.1
    lengths = []
    subject.module.offline = lambda clip: lengths.append(clip.shape[1]) or window(clip)[:, -1]
    assert values(facts_of("stream", subject, window=8))["clip_error"] < 1e-6 and lengths == [8]


@pytest.mark.parametrize("exact, flags", [(True, ["stream_not_exact"]), (False, []), (None, [])])
def test_a_stream_that_says_it_is_exact_is_invalid_where_it_is_not(exact, flags):
    subject = declared(**({} if exact is None else {"exact": exact}))
    offline = subject.module.offline
    subject.module.offline = lambda clip: 1.01 * offline(clip)
    facts = facts_of("stream", subject)
    assert [each["code"] for each in facts.flags] == flags
    assert all(each["severity"] == "invalid" for each in facts.flags)
    assert not facts_of("stream", declared(exact=True)).flags


def test_a_stream_that_comes_near_is_compared_over_the_whole_clip():
    (near,) = [curve for curve in facts_of("stream", declared(exact=False)).curves if curve.metric == "offline_error"]
    (same,) = [curve for curve in facts_of("stream", declared(exact=True)).curves if curve.metric == "offline_error"]
    assert list(same.at) == [3, 5] and list(near.at) == list(range(3, 22, 2))


def test_the_mean_error_is_over_the_range_of_the_reference():
    subject = declared(transient=2)
    offline = subject.module.offline
    subject.module.offline = lambda clip: offline(clip) + 0.5
    found = facts_of("stream", subject, window=6)
    clip = subject.module.example_clip(1, 22)[:, :6]  # as the stream cuts it
    with torch.no_grad():
        wanted = subject.module.offline(clip)
    (nrmse,) = [each.value for each in found.readings if each.metric == "offline_nrmse"]
    assert nrmse == pytest.approx(0.5 / float(wanted.max() - wanted.min()), rel=1e-4)


def test_delays_are_readings_and_a_rate_tells_which_steps_come_too_late():
    found = values(facts_of("stream", declared(dependency_delay=1.5, alignment_delay=3, rate_hz=500.0)))
    assert found["dependency_delay_steps"] == 1.5 and found["alignment_delay_steps"] == 3
    assert found["miss_share"] == pytest.approx(50)  # steps of 1 and 3 ms, inputs 2 ms apart
    assert found["answer_delay_ms"] == pytest.approx(1.5 * 2 + 2)
    assert found["step_p50_ms"] == pytest.approx(2) and found["step_max_ms"] == pytest.approx(3)
    assert "miss_share" not in values(facts_of("stream", declared()))


def test_the_warm_up_lasts_beyond_the_first_answer_and_the_transient():
    from bench.workloads.steps import Stream

    whole = {"batch": 1, "window": None, "steps": None}
    assert Stream(declared(), whole).warm == 6
    assert Stream(declared(first_output=11), whole).warm == 14  # 11 + 1 + a period of 2
    assert Stream(declared(first_output=1, transient=20), whole).warm == 24  # 23, to whole periods
    assert Stream(declared(cycle=40), whole).length == 6 + 40


def test_costs_are_counted_over_a_cycle_and_an_output_costs_what_its_steps_do():
    found = values(counts_of("stream", declared(), batch=3))
    assert found["macs_per_step"] == 12 and found["macs_per_output"] == 24
    assert found["clip_mac_ratio"] == pytest.approx(2) and found["break_even_hop_macs"] == pytest.approx(4)
    chunks = counts_of("stream", declared(outputs_per_answer=4, cycle=6), batch=3)
    assert values(chunks)["macs_per_output"] == 6 and len(chunks.curves[0].values) == 6


def test_a_network_of_one_window_refuses_another():
    with pytest.raises(UsageError, match="window is 6 steps"):
        facts_of("stream", declared(fixed_window=True), window=8)
    assert not facts_of("stream", declared(fixed_window=True), window=6).flags


def test_products_of_what_changed_are_means_over_successive_inputs():
    seen = []

    def effective(x, state):
        seen.append((x.clone(), state["count"]))
        return {"dense": 10.0, "spatial": 5.0, "delta": float(len(seen))}

    facts = facts_of("stream", declared(effective_macs=effective))
    found = values(facts)
    assert found["macs_dense_per_step"] == 10 and found["macs_spatial_per_step"] == 5
    assert found["macs_delta_per_step"] == pytest.approx((len(seen) + 1) / 2)
    assert [count for _, count in seen] == list(range(6, 6 + len(seen)))  # states go on, from the warm-up
    (row,) = [each for each in facts.readings if each.metric == "macs_delta_per_step"]
    assert row.provenance == "modelled" and "least 1" in row.method_note
    assert {each.metric for each in facts.curves} >= {"macs_delta_per_step", "macs_spatial_per_step"}
