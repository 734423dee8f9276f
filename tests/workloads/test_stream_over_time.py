"""A stream that goes on: steps that slow down, states that grow, sums that drift; and how many keep the rate."""

import pytest
import torch

from tests.workloads.subjects import Causal, subject_of
from tests.workloads.test_facts import facts_of, values


def slowing(per_step):
    """A stream whose every step takes so much longer than the last."""
    subject = subject_of(Causal)
    step = subject.module.step

    def slower(x, state):
        subject.module.clock.pass_ms(per_step * state["count"])
        return step(x, state)

    subject.module.step = slower
    return subject


def test_steps_that_take_longer_and_longer_are_flagged():
    found = facts_of("stream", slowing(0.5))
    (flag,) = found.flags
    assert flag["code"] == "step_time_grows" and flag["severity"] == "warn"
    assert values(found)["step_time_trend"] > 1.25
    even = facts_of("stream", subject_of(Causal))
    assert not even.flags and values(even)["step_time_trend"] == pytest.approx(1)


def test_a_state_that_grows_is_flagged_and_one_that_wavers_is_not():
    subject = subject_of(Causal)
    step = subject.module.step

    def remembering(x, state, most=10**9):
        output, state = step(x, state)
        kept = [*state.get("seen", []), x.clone()]
        return output, {**state, "seen": kept if len(kept) <= most else []}

    subject.module.step = remembering
    (flag,) = facts_of("stream", subject).flags
    assert flag["code"] == "stream_state_grows" and "B at first" in flag["text"]
    subject.module.step = lambda x, state: remembering(x, state, 3)
    assert not facts_of("stream", subject).flags


class Summing(Causal):
    """Adds what its last inputs weigh to a sum and takes it off again; each step leaves an error behind."""

    period, left = 1, 0.0

    def init(self, batch):
        return {"ring": self.mix.weight.new_zeros(batch, 3, 2), "count": 0, "off": 0.0}

    def step(self, x, state):
        ring = torch.cat([state["ring"][:, 1:], x[:, None]], 1)
        state = {"ring": ring, "count": state["count"] + 1, "off": state["off"] + self.left}
        return self.mix(ring.flatten(1)) + state["off"], state

    def offline(self, clip):
        windows = clip.unfold(1, 3, 1).transpose(2, 3).flatten(2)
        return self.mix(windows)


@pytest.mark.parametrize("repeats, steps", [(1, 112), (10, 154)])
def test_the_drift_is_what_has_piled_up_after_as_many_steps_as_are_asked_for(repeats, steps):
    """A clip has 6 + 8 steps; 100 steps are 8 rounds of it, and a count of time of 10 comes round after 10 more."""
    subject = subject_of(Summing)
    subject.module.drift_steps, subject.module.time_repeats = 100, repeats
    subject.module.left = 0.01
    found = facts_of("stream", subject)
    (row,) = [each for each in found.readings if each.metric == "drift_error"]
    with torch.no_grad():
        last = subject.module.offline(subject.module.example_clip(1, 14))[:, -1].abs().max()
    assert row.value == pytest.approx(steps * 0.01 / float(last), rel=1e-3)
    assert f"after {steps} steps" in row.method_note
    subject.module.left = 0.0
    assert values(facts_of("stream", subject))["drift_error"] < 1e-6
    assert "drift_error" not in values(facts_of("stream", subject_of(Causal)))


class Crowded(Causal):
    """A step takes a millisecond a stream."""

    def step(self, x, state):
        self.clock.pass_ms(len(x) - 2 if state["count"] % 2 else len(x))
        return super().step(x, state)


def test_the_batch_is_doubled_while_steps_come_in_time():
    """1, 2, 4 streams take 2, 3, 5 ms a step at most; inputs are 4 ms apart."""
    subject = subject_of(Crowded)
    subject.module.rate_hz = 250.0
    (row,) = [each for each in facts_of("stream", subject, streams=64).readings if each.metric == "streams_max"]
    assert row.value == 2 and "4 take 5 ms" in row.method_note
    (row,) = [each for each in facts_of("stream", subject, streams=2).readings if each.metric == "streams_max"]
    assert row.value == 2 and "ended at 2" in row.method_note
    subject.module.rate_hz = 2000.0
    assert values(facts_of("stream", subject, streams=4))["streams_max"] == 0
    assert "streams_max" not in values(facts_of("stream", subject))
    del subject.module.rate_hz
    (row,) = [each for each in facts_of("stream", subject, streams=4).readings if each.metric == "streams_max"]
    assert row.value is None and "how fast" in row.method_note
