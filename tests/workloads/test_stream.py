"""What is asked of a stream: known traffic of its state, its first output, the rate that it keeps, streams apart."""

import pytest
import torch
from torch import nn

from bench.workloads import state_traffic
from tests.workloads.subjects import Causal, FakeBuilt, parts_of, subject_of
from tests.workloads.test_facts import facts_of, values


def traffic(step, state):
    with torch.inference_mode(False), torch.no_grad():
        found = state_traffic.of_step(step, state)
    return found.read, found.written


def test_a_ring_that_is_put_together_again_is_moved_whole():
    """3 x 6 floats of 4 bytes; 2 of 3 places are read to make the next, all are written."""
    assert traffic(lambda ring: torch.cat([ring[1:], torch.ones(1, 6)]), torch.zeros(3, 6)) == (48, 72)
    assert traffic(lambda ring: ring.roll(-1, 0), torch.zeros(3, 6)) == (72, 72)


def test_a_ring_that_is_overwritten_in_place_moves_one_place():
    def step(ring):
        ring[1] = torch.ones(6)
        return ring

    assert traffic(step, torch.zeros(3, 6)) == (0, 24)


def test_what_is_added_in_place_is_read_and_written():
    assert traffic(lambda total: total.add_(torch.ones(6)), torch.zeros(6)) == (24, 24)


def test_views_move_nothing_and_what_is_made_and_dropped_is_no_state():
    def step(state):
        kept = state.view(2, 3).t()[1:]
        (kept * 2).sum()
        return state

    assert traffic(step, torch.zeros(6)) == (16, 0)  # the product reads 2 x 2 numbers of the view


def test_places_that_are_picked_or_scattered_count_as_many_as_they_are():
    index = torch.tensor([0, 2])

    def step(state):
        picked = state[index] + 1
        state[index] = picked
        return state

    assert traffic(step, torch.zeros(5, 4)) == (32, 32)
    assert traffic(lambda state: state.index_copy_(0, index, torch.ones(2, 4)), torch.zeros(5, 4)) == (0, 32)


def test_the_state_may_be_nested_and_its_numbers_are_no_traffic():
    def step(state):
        return {"rings": [state["rings"][0] * 2], "count": state["count"] + 1}

    assert traffic(step, {"rings": [torch.zeros(4)], "count": 0}) == (16, 16)


def test_the_traffic_of_a_stream_is_the_mean_over_its_period():
    """Three streams with rings of 24 bytes: 48 of 72 are read for the next, 72 written, every second step reads 72."""
    facts = facts_of("stream", subject_of(Causal), batch=3)
    (row,) = [item for item in facts.readings if item.metric == "state_traffic_bytes"]
    assert row.value == (48 + 72) + 72 / 2 and row.provenance == "counted"
    with torch.device("meta"):
        module = Causal().eval()
    found = values(facts_of("stream", FakeBuilt(module, device="meta"), batch=3))
    assert found["state_traffic_bytes"] == row.value and found["rate_max"] is found["first_output_ms"] is None


def test_the_first_output_comes_after_all_its_steps_and_the_rate_is_that_of_the_slow_ones():
    """A step of 1 ms, then one of 3 ms that answers: the first answer after 4 ms, 99 of 100 steps within 3 ms."""
    found = values(facts_of("stream", subject_of(Causal), batch=2))
    assert found["first_output_ms"] == pytest.approx(4)
    assert found["step_p99_ms"] == pytest.approx(3) and found["rate_max"] == pytest.approx(1000 / 3)


def test_a_rate_needs_as_many_steps_as_its_percentile(monkeypatch):
    monkeypatch.setattr("bench.workloads.stream_facts.TIMED_SECONDS", 0.02)
    facts = facts_of("stream", subject_of(Causal))
    missing = {item.metric: item.method_note for item in facts.readings if item.value is None}
    assert set(missing) == {"step_p99_ms", "rate_max"} and "662 are needed" in missing["rate_max"]


def test_streams_of_a_batch_that_touch_each_other_are_invalid():
    assert not facts_of("stream", subject_of(Causal), batch=3).flags
    subject = subject_of(Causal)
    step = subject.module.step

    def mixing(x, state):
        output, state = step(x, state)
        return (None if output is None else output - output.mean(0)), state

    subject.module.step = mixing
    (flag,) = facts_of("stream", subject, batch=3).flags
    assert flag["code"] == "streams_mixed" and flag["severity"] == "invalid"


def test_a_stream_that_cannot_be_alone_says_that_it_was_not_checked():
    subject = subject_of(Causal)
    init = subject.module.init

    def two_at_least(batch):
        if batch == 1:
            raise ValueError("two streams at least")
        return init(batch)

    subject.module.init = two_at_least
    (flag,) = facts_of("stream", subject, batch=2).flags
    assert flag["code"] == "streams_not_checked" and "two streams at least" in flag["text"]


def test_one_input_again_and_again_is_flagged():
    subject = subject_of(Causal)
    subject.module.example_clip = lambda batch, length: torch.ones(batch, length, 2)
    (flag,) = facts_of("stream", subject).flags
    assert flag["code"] == "repeated_input"


def test_a_step_gets_the_inputs_of_its_stream_one_after_another():
    class Remembering(nn.Module):
        period, window = 1, 2

        def example_clip(self, batch, length):
            return torch.arange(float(batch * length)).reshape(batch, length, 1)

        def init(self, batch):
            return []

        def step(self, x, state):
            return x, [*state[-2:], x.flatten().tolist()]

        def offline(self, clip):
            return clip

    parts, _ = parts_of("stream", FakeBuilt(Remembering()), batch=2, window=2)
    seen = [parts["step"].run()[0].flatten().tolist() for _ in range(3)]
    assert seen == [[2.0, 12.0], [3.0, 13.0], [4.0, 14.0]]  # two of ten steps were the warm-up
