"""The field's own numbers follow from readings by their definitions, intervals with them, and never without inputs."""

import pytest

from bench.reading import reading, unavailable
from bench.workloads import module_of


def derive(workload, known, **shape):
    """Derived readings by metric and part, from latencies or whole readings by (metric, part)."""
    module = module_of(workload)
    table = {key: value if hasattr(value, "unit") else measured(*key, value) for key, value in known.items()}
    found = module.derive(module.WORKLOAD.shape(shape), lambda metric, part: table.get((metric, part)))
    assert len({item.key for item in found}) == len(found)
    return {item.key: item for item in found}


def measured(metric, part, value):
    return reading(metric, value, "measured", part=part, ci_low=0.9 * value, ci_high=1.1 * value, n=5)


def test_generation_in_the_field_s_own_words():
    known = {("latency_ms", "request"): 110.0, ("latency_ms", "prefill"): 50.0}
    found = derive("generate", known, batch=4, context=128, new_tokens=16)
    assert found["time_to_first_token_ms", "request"].value == 50
    assert found["time_per_output_token_ms", "request"].value == pytest.approx(60 / 15)
    assert found["output_tokens_per_s", "request"].value == pytest.approx(4 * 15 / 0.060)


def test_the_first_token_is_told_with_and_without_the_pictures_that_are_read_before_it():
    known = {("latency_ms", "request"): 110.0, ("latency_ms", "prefill"): 50.0}
    assert not any("encoder" in metric for metric, _ in derive("generate", known))
    found = derive("generate", {**known, ("latency_ms", "encoder"): 20.0})
    assert found["encoder_ms", "request"].value == 20 and found["time_to_first_token_ms", "request"].value == 50
    alone = found["prefill_alone_ms", "request"]
    assert alone.value == 30 and (alone.ci_low, alone.ci_high) == pytest.approx((45 - 22, 55 - 18))


def test_intervals_go_along_and_turn_round_with_rates():
    known = {("latency_ms", "request"): 110.0, ("latency_ms", "prefill"): 50.0}
    found = derive("generate", known, batch=1, context=100, new_tokens=11)
    per_token = found["time_per_output_token_ms", "request"]
    assert (per_token.ci_low, per_token.ci_high) == pytest.approx(((99 - 55) / 10, (121 - 45) / 10))
    rate = found["output_tokens_per_s", "request"]
    assert (rate.ci_low, rate.ci_high) == pytest.approx((1e3 / 7.6, 1e3 / 4.4))
    assert rate.n == 5


def test_a_missing_time_leaves_a_reason_and_no_number():
    why = unavailable("latency_ms", "it timed out", "prefill")
    found = derive("generate", {("latency_ms", "request"): 110.0, ("latency_ms", "prefill"): why})
    assert found["time_per_output_token_ms", "request"].value is None
    assert "it timed out" in found["time_to_first_token_ms", "request"].method_note


def test_a_request_no_longer_than_its_prefill_has_no_time_per_token():
    found = derive("generate", {("latency_ms", "request"): 49.0, ("latency_ms", "prefill"): 50.0})
    missing = found["time_per_output_token_ms", "request"]
    assert missing.value is None and "noise" in missing.method_note
    assert found["output_tokens_per_s", "request"].value is None


def test_the_time_after_the_first_token_is_taken_inside_the_requests_where_they_tell_it():
    from bench.workloads import generate

    spans = [{"first_token": [9.0, 9.0, 9.0], "output_tokens": runs} for runs in ([3.0, 4.0, 50.0], [4.0, 4.0, 3.0])]
    (later,) = generate.spanned(spans, [[12.0, 13.0, 59.0], [13.0, 13.0, 12.0]], {})
    assert later.value == pytest.approx(4.0) and later.n == 2  # the median of each process
    known = {("latency_ms", "request"): 110.0, ("latency_ms", "prefill"): 50.0, ("later_tokens_ms", "request"): later}
    per_token = derive("generate", known, new_tokens=11)["time_per_output_token_ms", "request"]
    assert per_token.value == pytest.approx(0.4) and "after the first token" in per_token.method_note
    assert generate.spanned([{"answer": [50.0]}], [[50.0]], {}) == []  # written by the module


def test_a_difference_that_may_be_nothing_is_no_time():
    found = derive("generate", {("latency_ms", "request"): 55.0, ("latency_ms", "prefill"): 50.0}, new_tokens=2)
    missing = found["time_per_output_token_ms", "request"]
    assert missing.value is None and "5 [-5.5, 15.5]" in missing.method_note
    assert found["output_tokens_per_s", "request"].value is None


def test_an_answer_that_is_cut_short_has_no_time_per_token_that_was_asked_for():
    written = reading("tokens_written", 3, "counted", part="request")
    known = {("latency_ms", "request"): 60.0, ("latency_ms", "prefill"): 50.0, ("tokens_written", "request"): written}
    found = derive("generate", known, new_tokens=16)
    assert "3 of 16 tokens" in found["time_per_output_token_ms", "request"].method_note
    assert found["output_tokens_per_s", "request"].value is None


def test_images_of_a_sampler():
    found = derive("sample", {("latency_ms", "image"): 800.0}, batch=4)
    assert found["time_per_image_ms", "image"].value == 200


def test_steps_of_a_stream_beside_its_clip():
    period = reading("period_steps", 4, "counted", part="step")
    known = {("latency_ms", "step"): 8.0, ("latency_ms", "clip"): 40.0, ("period_steps", "step"): period}
    found = {metric: item.value for (metric, _), item in derive("stream", known, batch=3, steps=8).items()}
    assert found.pop("clip_realised_share") is None  # there are no products to set it beside
    assert found == {"time_per_step_ms": 1.0, "time_per_output_ms": 4.0, "clip_speedup": 10.0, "break_even_hop": 40.0}


def test_a_link_is_modelled_and_its_parts_are_kept():
    known = {
        ("payload_bytes", "request"): reading("payload_bytes", 1000, "counted", part="request"),
        ("answer_bytes", "request"): reading("answer_bytes", 250, "counted", part="request"),
        **{("latency_ms", part): float(ms) for part, ms in {"head": 1, "encode": 2, "decode": 3, "tail": 4}.items()},
    }
    found = derive("split", known, bandwidth_mbps=1.0, rtt_ms=30.0, device_factor=10.0)
    link, total = found["link_ms", "request"], found["total_modelled_ms", "request"]
    assert link.value == pytest.approx(10 + 30) and link.provenance == "modelled"
    assert total.value == pytest.approx(10 * 3 + 40 + 7) and total.provenance == "modelled"
    assert (total.ci_low, total.ci_high) == pytest.approx((0.9 * 37 + 40, 1.1 * 37 + 40))


def test_a_link_that_loses_packets_clocks_them_out_again_and_jitter_is_paid_each_way():
    known = {
        ("payload_bytes", "request"): reading("payload_bytes", 10_092, "counted", part="request"),
        ("answer_bytes", "request"): reading("answer_bytes", 0, "counted", part="request"),
        **{("latency_ms", part): 1.0 for part in ("head", "encode", "decode", "tail")},
    }
    link = derive("split", known, rtt_ms=20.0, loss=0.2, jitter_ms=3.0)["link_ms", "request"]
    assert link.value == pytest.approx(8.0736 / 0.8 + 20 + 6) and "20 % of the packets go again" in link.method_note
    assert derive("split", known)["link_ms", "request"].value == pytest.approx(28.0736)
    kept = module_of("split").WORKLOAD.shape({"loss": 0.0, "jitter_ms": 3.0})
    assert "loss" not in kept and kept["jitter_ms"] == 3.0  # at its default a late axis changes no row's key


def test_workspace_is_the_peak_beyond_what_goes_in_and_out():
    known = {
        ("peak_memory_bytes", "call"): reading("peak_memory_bytes", 900, "measured", part="call"),
        ("io_bytes", "call"): reading("io_bytes", 400, "counted", part="call"),
    }
    assert derive("operator", known)["workspace_bytes", "call"].value == 500
    assert derive("operator", {})["workspace_bytes", "call"].value is None


def test_operations_per_byte_count_the_whole_call_and_its_buffers_twice():
    known = {("macs", "call"): 500.0, ("io_bytes", "call"): 100.0, ("buffer_bytes", "call"): 50.0}
    found = derive("operator", known, batch=2)
    assert found["op_per_byte", "call"].value == 20  # 2 x 500 MACs x 2 samples over 100 bytes
    assert found["op_per_byte_copied", "call"].value == 10
    plain = derive("operator", {name: value for name, value in known.items() if name[0] != "buffer_bytes"})
    assert ("op_per_byte_copied", "call") not in plain
    assert derive("operator", {})["op_per_byte", "call"].value is None
