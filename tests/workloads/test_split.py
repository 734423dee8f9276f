"""A split network with several devices, and a link that is really paced."""

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.meters import macs
from bench.reading import reading
from bench.workloads import module_of
from bench.workloads.counting import count_part
from bench.workloads.paced_link import transfer_ms
from tests.workloads.subjects import Causal, FakeBuilt, Fused, Halves, parts_of, subject_of, timed
from tests.workloads.test_facts import facts_of

MODULE = module_of("split")


def fused():
    return subject_of(Fused, torch.randn(2, 4, generator=torch.Generator().manual_seed(3)))


def test_every_branch_has_its_time_and_its_count_and_the_whole_has_all_of_them():
    subject = fused()
    parts, _ = parts_of("split", subject, batch=2)
    with torch.inference_mode():
        times = {name: timed(part, subject.clock) for name, part in parts.items()}
    assert times == {
        "request": 3 * (1 + 2 + 3) + 4, "head": 3, "encode": 6, "decode": 9, "tail": 4,
        "head_1": 1, "encode_1": 2, "head_2": 1, "encode_2": 2, "head_3": 1, "encode_3": 2,
    }  # fmt: skip
    found = {name: count_part(subject.module, part, macs.count).executed_macs for name, part in parts.items()}
    assert found["request"] == 3 * 16 + 20 and found["head"] == 48 and found["head_2"] == 16 and found["tail"] == 20


def test_payloads_of_every_branch_add_up_to_those_of_the_request():
    facts = facts_of("split", fused(), batch=2)
    sizes = {item.part: item.value for item in facts.readings if item.metric == "payload_bytes"}
    assert sizes == {"request": 8 + 16 + 8, "encode_1": 8, "encode_2": 16, "encode_3": 8}
    assert facts.details["branches"] == 3 and facts.details["payload_bytes"] == [32]


def derived(times, payloads, **shape):
    known = {("latency_ms", part): reading("latency_ms", ms, "measured", part=part) for part, ms in times.items()}
    known |= {
        ("payload_bytes", part): reading("payload_bytes", size, "counted", part=part) for part, size in payloads.items()
    }
    known["answer_bytes", "request"] = reading("answer_bytes", 125, "counted", part="request")
    found = MODULE.derive(MODULE.WORKLOAD.shape(shape), lambda metric, part: known.get((metric, part)))
    return {item.metric: item for item in found}


def test_devices_and_their_links_work_at_the_same_time_and_the_slowest_decides():
    times = {"head": 9, "encode": 3, "decode": 5, "tail": 7, "head_1": 6, "encode_1": 1, "head_2": 3, "encode_2": 2}
    payloads = {"request": 3125, "encode_1": 125, "encode_2": 3000}
    found = derived(times, payloads, bandwidth_mbps=1.0, rtt_ms=10.0, device_factor=2.0)
    slow = 2 * (3 + 2) + (24 + 1 + 10) + 5 + 7  # the second device: its payload takes 24 ms, the answer 1
    assert found["total_modelled_ms"].value == pytest.approx(slow) and found["link_ms"].value == pytest.approx(35)
    assert found["total_modelled_ms"].provenance == "modelled"
    assert "head_2 + encode_2" in found["total_modelled_ms"].method_note
    busy = derived({**times, "head_1": 60}, payloads, bandwidth_mbps=1.0, rtt_ms=10.0)
    assert busy["total_modelled_ms"].value == pytest.approx(60 + 1 + (1 + 1 + 10) + 5 + 7)


def test_a_branch_without_a_time_leaves_no_total():
    times = {"head": 9, "encode": 3, "decode": 5, "tail": 7, "head_1": 6, "encode_1": 1, "head_2": 3}
    found = derived(times, {"request": 3125, "encode_1": 125, "encode_2": 3000})
    assert found["total_modelled_ms"].value is None and "not measured" in found["total_modelled_ms"].method_note


def test_a_network_without_devices_or_whose_device_lacks_a_call_says_so():
    subject = fused()
    subject.module.branches = list
    with pytest.raises(UsageError, match="gives none"):
        parts_of("split", subject)
    subject.module.branches = lambda: [nn.Linear(4, 2)]
    with pytest.raises(UsageError, match=r"Linear .* offers no head, encode, decode"):
        parts_of("split", subject)


def test_branches_are_counted_where_there_are_shapes_only():
    with torch.device("meta"):
        module = Fused().eval()
    parts, _ = parts_of("split", FakeBuilt(module, (torch.empty(2, 4, device="meta"),), device="meta"))
    assert set(parts) == {"request", "head", "tail", "head_1", "head_2", "head_3"}
    assert count_part(module, parts["request"], macs.count).executed_macs == 3 * 16 + 20


# ---------------------------------------------------------------- the link
def test_bytes_on_a_paced_link_are_never_faster_than_the_link():
    payload, answer = bytes(range(256)) * 20, bytes(999)
    times = transfer_ms(payload, answer, 10.0, 4.0, repeats=3)
    assert len(times) == 3 and min(times) >= MODULE.link_ms(len(payload), len(answer), 10.0, 4.0)


def test_an_answer_of_no_bytes_takes_what_the_payload_takes():
    assert min(transfer_ms(b"x" * 100, b"", 1.0, 0.0, repeats=1)) >= 0.0


def test_a_paced_request_has_the_time_of_its_transfers_beside_the_modelled_one():
    subject = subject_of(Halves, torch.randn(2, 4))
    facts = facts_of("split", subject, batch=2, paced=1, bandwidth_mbps=1.0, rtt_ms=5.0)
    (row,) = [item for item in facts.readings if item.metric == "link_paced_ms"]
    assert row.value >= facts.details["link_model_ms"] == pytest.approx(8e-3 * (8 + 24) + 5)
    assert row.provenance == "modelled" and row.n == 5 == len(facts.details["link_paced_ms"])
    assert "link_paced_ms" not in {item.metric for item in facts_of("split", subject, batch=2).readings}


def test_a_paced_link_that_does_not_keep_its_pace_is_flagged(monkeypatch):
    monkeypatch.setattr("bench.workloads.paced_link.transfer_ms", lambda *given, **options: [9.0, 10.0, 11.0])
    facts = facts_of("split", subject_of(Halves, torch.randn(2, 4)), paced=1, bandwidth_mbps=1.0, rtt_ms=5.0)
    (flag,) = facts.flags
    assert flag["code"] == "link_disagrees" and "10 ms" in flag["text"] and "5.256" in flag["text"]


def test_what_would_travel_for_long_is_not_sent():
    facts = facts_of("split", subject_of(Halves, torch.randn(2, 4)), paced=1, bandwidth_mbps=0.001, rtt_ms=1900.0)
    (row,) = [item for item in facts.readings if item.metric == "link_paced_ms"]
    assert row.value is None and "2.16 s" in row.method_note


def test_a_module_of_another_kind_says_what_is_missing():
    with pytest.raises(UsageError, match="offers no tail, head, encode, decode"):
        parts_of("split", FakeBuilt(Causal(), (torch.ones(1, 2),)))


# ---------------------------------------------------------------- what a module may say besides
class Whole(nn.Module):
    """Everything on the device."""

    answers_on_device = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.layer(x)


def test_a_network_that_answers_on_the_device_is_its_head_and_sends_nothing():
    subject = subject_of(lambda clock: Whole(), torch.randn(2, 4))
    parts, _ = parts_of("split", subject, batch=2)
    assert set(parts) == {"request", "head"}
    assert torch.equal(parts["request"].run(), subject.module(subject.args[0]))
    facts = facts_of("split", subject, batch=2)
    assert {item.metric: item.value for item in facts.readings} == dict.fromkeys(
        [*MODULE.PAYLOAD_METRICS, "answer_bytes"], 0
    )
    found = derived({"head": 7.0}, {"request": 0}, bandwidth_mbps=1.0, rtt_ms=10.0, device_factor=3.0)
    assert found["link_ms"].value == 0 and found["total_modelled_ms"].value == 21
    assert found["total_modelled_ms"].provenance == "modelled"


def test_both_sides_are_made_ready_before_every_run_outside_the_clock():
    subject = subject_of(Halves, torch.randn(2, 4))
    seen = []
    subject.module.ready = lambda given: (seen.append(given.shape), subject.clock.pass_ms(50))
    parts, _ = parts_of("split", subject, batch=2)
    with torch.inference_mode():
        assert timed(parts["request"], subject.clock) == 1 + 2 + 3 + 4 and timed(parts["head"], subject.clock) == 1
        assert timed(parts["tail"], subject.clock) == 4 and len(seen) >= 3


def test_what_codecs_multiply_is_counted_of_shapes_alone():
    with torch.device("meta"):
        module = Halves()
        twice = nn.Linear(2, 2, bias=False)
    module.both = twice
    module.uncoded = lambda hidden: twice(twice(hidden))
    parts, _ = parts_of("split", FakeBuilt(module, (torch.empty(2, 4, device="meta"),), device="meta"))
    assert count_part(module, parts["request"], macs.count).executed_macs == 2 * (8 + 4 + 4 + 6)


def test_ratios_are_named_after_their_denominators():
    subject = subject_of(Halves, torch.randn(2, 4))
    subject.module.denominators = lambda given: {"vs_u8_input": given.numel(), "vs_jpeg_equal_accuracy": "none is"}
    subject.module.device_params = lambda: 8
    found = {item.metric: item for item in facts_of("split", subject, batch=2).readings}
    assert found["vs_u8_input"].value == 8 / 8 and found["head_params"].value == 8
    assert found["vs_jpeg_equal_accuracy"].value is None and "none is" in found["vs_jpeg_equal_accuracy"].method_note
    assert found["payload_elements"].value == 4 and "vs_fp32_cut" not in found
