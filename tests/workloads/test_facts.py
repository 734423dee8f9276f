"""What each workload measures besides: known bytes, shares, agreement, and the reason where there is none."""

from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bench.errors import UsageError
from bench.flags import DISTURBANCES, LATE_ARRIVALS
from bench.meters import macs
from bench.workloads import module_of
from bench.workloads.counting import counter
from tests.workloads.subjects import (
    Causal,
    Chain,
    Denoiser,
    Doubling,
    FakeBuilt,
    Halves,
    Learner,
    Writer,
    parts_of,
    subject_of,
)


def facts_of(workload, subject, **shape):
    module = module_of(workload)
    whole = module.WORKLOAD.shape(shape)
    return module.facts(subject, whole, module.make_parts(subject, whole))


def counts_of(workload, subject, **shape):
    module = module_of(workload)
    whole = module.WORKLOAD.shape(shape)
    count = counter(subject.module, macs.count)
    return module.counts(subject, whole, module.make_parts(subject, whole), count)


def values(facts):
    return {item.metric: item.value for item in facts.readings}


# ---------------------------------------------------------------- generate
def test_the_cache_after_a_request_holds_all_tokens_but_the_last():
    found = values(facts_of("generate", subject_of(Writer), batch=2, context=6, new_tokens=4))
    assert found["cache_bytes"] == 2 * (6 + 4 - 1) * 2 * 4  # sequences, tokens, features, float32
    assert found["cache_bytes_per_token"] == 8
    assert found["cache_allocated_bytes"] == 2 * 64 * 2 * 4
    assert (found["kv_bits_nominal"], found["kv_bits_stored"]) == (32, 32)


class Author(Writer):
    """Writes whole answers by itself, and says how."""

    said: ClassVar[dict] = {"tokens_per_step": 2.0, "draft_acceptance": None}

    def write(self, ids, new):
        return torch.full((len(ids), new), 7)

    def written(self):
        return self.said


def test_a_module_that_writes_whole_answers_is_the_request_and_says_how():
    subject = subject_of(Author)
    parts, _ = parts_of("generate", subject, batch=2, context=6, new_tokens=4)
    assert parts["request"].call().tolist() == [[7] * 4] * 2
    facts = facts_of("generate", subject, batch=2, context=6, new_tokens=4)
    found = values(facts)
    assert found["tokens_per_step"] == 2
    assert found["draft_acceptance"] is None
    assert found["cache_bytes_per_token"] == 8  # prefill and decode stay the module's plain ones
    assert "tokens_scored" not in found


def test_what_a_writer_says_has_known_names():
    subject = subject_of(Author)
    subject.module.said = {"happiness": 1.0}
    with pytest.raises(UsageError, match="happiness"):
        facts_of("generate", subject, context=6, new_tokens=4)


class Routed(Writer):
    """Sends every token to the expert of its number and to the first of four."""

    def __init__(self, clock=None):
        super().__init__(clock)
        self.gate = Gate()

    def prefill(self, ids):
        self.gate(ids.flatten() % 4)
        return super().prefill(ids)

    def decode(self, ids, cache):
        self.gate(ids.flatten() % 4)
        return super().decode(ids, cache)


class Gate(nn.Module):
    experts = SimpleNamespace(count=4)

    def forward(self, numbers):
        return torch.stack([numbers, torch.zeros_like(numbers)], dim=1), None


def test_a_mixture_tells_which_experts_a_prompt_and_a_step_hit():
    subject = subject_of(Routed, torch.tensor([[1, 2, 1, 5, 0, 9]]))
    found = {(item.metric, item.part): item.value for item in facts_of("generate", subject, context=6).readings}
    assert found["experts_hit", "prefill"] == 3  # 0, 1 and 2
    assert found["expert_imbalance", "prefill"] == 7 / (12 / 4)  # six tokens twice: seven of them to the first
    assert found["experts_hit", "decode"] in (1, 2)
    assert ("experts_hit", "prefill") not in {
        (item.metric, item.part) for item in facts_of("generate", subject_of(Writer), context=6).readings
    }


def test_times_between_tokens_are_those_of_the_steps_and_a_far_percentile_needs_its_samples():
    facts = facts_of("generate", subject_of(Writer), context=6, new_tokens=5)
    found = values(facts)
    assert found["inter_token_p50_ms"] == pytest.approx(2)
    assert found["inter_token_p95_ms"] is None
    (curve,) = facts.curves
    assert list(curve.at) == [7, 8, 9, 10] and curve.values == pytest.approx([2, 2, 2, 2])
    many = values(facts_of("generate", subject_of(Writer), context=6, new_tokens=50))
    assert many["inter_token_p95_ms"] == pytest.approx(2)


def test_one_new_token_has_no_time_between_tokens():
    facts = facts_of("generate", subject_of(Writer), context=6, new_tokens=1)
    missing = {item.metric: item.method_note for item in facts.readings if item.value is None}
    assert "one new token" in missing["inter_token_p50_ms"]


def test_what_reads_no_known_ids_says_how_to_name_them():
    subject = subject_of(Writer)
    subject.module.vocabulary = None
    with pytest.raises(UsageError, match="example_ids"):
        parts_of("generate", subject)


def test_a_prompt_is_cut_from_the_inputs_where_they_are_ids():
    ids = torch.arange(40).reshape(4, 10) % 11
    subject = FakeBuilt(Writer(), (ids,))
    assert torch.equal(module_of("generate").prompt_of(subject, {"batch": 2, "context": 3}), ids[:2, :3])


def test_a_decoder_of_shapes_only_is_counted_and_not_timed():
    with torch.device("meta"):
        module = Writer().eval()
    subject = FakeBuilt(module, device="meta")
    found = facts_of("generate", subject, context=6, new_tokens=4)
    assert values(found)["cache_bytes"] == 9 * 8 and values(found)["inter_token_p50_ms"] is None
    parts, _ = parts_of("generate", subject, context=6, new_tokens=4)
    from bench.workloads.counting import count_part

    assert count_part(module, parts["request"], macs.count).executed_macs == 4 * 22


# ---------------------------------------------------------------- sample
def test_a_sampler_tells_its_plan_and_what_lives_between_its_steps():
    facts = facts_of("sample", subject_of(Denoiser), steps=4, batch=2)
    found = values(facts)
    assert found["sampler_steps"] == 4 and found["network_evaluations"] == 1 + 2 + 1 + 2
    assert found["cache_bytes"] == 2 * 4 * 4 * 2  # the kept evaluation and the encoded condition, but not x
    curves = {curve.metric: curve.values for curve in facts.curves}
    assert curves == {"cache_bytes": [64] * 4, "latency_ms": pytest.approx([1, 2, 3, 4])}
    known = Denoiser.plan
    subject = subject_of(Denoiser)
    subject.module.plan = lambda shape: [{**step, "params": 16} for step in known(subject.module, shape)]
    told = [curve.values for curve in facts_of("sample", subject, steps=4).curves if curve.metric == "params"]
    assert told == [[16] * 4]


def test_macs_of_a_sampler_are_counted_step_by_step_with_conditioner_and_decoder_apart():
    facts = counts_of("sample", subject_of(Denoiser), steps=4, batch=2)
    assert values(facts) == {"macs_conditioner": 12, "macs_decoder": 20}
    assert list(facts.curves[0].values) == [16, 32, 16, 32]
    assert not facts.flags


def test_a_plan_that_promises_other_macs_than_are_run_is_flagged():
    subject = subject_of(Denoiser)
    plan = subject.module.plan
    subject.module.plan = lambda shape: [{**step, "macs": 16} for step in plan(shape)]
    (flag,) = counts_of("sample", subject, steps=4, batch=2).flags
    assert flag["code"] == "plan_disagrees" and "2 steps" in flag["text"]


# ---------------------------------------------------------------- stream
def test_a_stream_agrees_with_its_clip_and_says_when_it_first_answers():
    facts = facts_of("stream", subject_of(Causal), batch=3)
    found = values(facts)
    assert found["delay_steps"] == 2 and found["period_steps"] == 2
    assert found["state_bytes"] == 3 * 3 * 2 * 4
    assert found["offline_error"] < 1e-6
    times = next(curve for curve in facts.curves if curve.metric == "latency_ms")
    assert times.values == pytest.approx([1, 3])


def test_a_stream_that_drifts_from_its_clip_shows_the_error_at_its_step():
    subject = subject_of(Causal)
    step = subject.module.step

    def drifting(x, state):
        output, state = step(x, state)
        return (None if output is None else output + (0.5 if state["count"] == 4 else 0.0)), state

    subject.module.step = drifting
    facts = facts_of("stream", subject, batch=1)
    curve = next(curve for curve in facts.curves if curve.metric == "offline_error")
    assert list(curve.at) == [3, 5] and curve.values[0] > 0.05 > curve.values[1]
    assert values(facts)["offline_error"] == pytest.approx(curve.values[0])


def test_macs_of_a_stream_are_the_mean_over_a_period():
    facts = counts_of("stream", subject_of(Causal), batch=3)
    assert values(facts)["macs_per_step"] == 12 and list(facts.curves[0].values) == [0, 24]


def test_a_run_of_a_stream_is_whole_periods():
    with pytest.raises(UsageError, match="whole periods of 2"):
        parts_of("stream", subject_of(Causal), steps=3)
    parts, _ = parts_of("stream", subject_of(Causal), steps=4, batch=3)
    assert parts["step"].units == 12


def test_a_stream_is_fed_the_next_inputs_each_run_and_begins_anew_at_the_end_of_its_clip():
    parts, _ = parts_of("stream", subject_of(Causal), batch=1)
    with torch.no_grad():
        outputs = [parts["step"].run()[1] for _ in range(16)]
    assert all(not torch.equal(a, b) for a, b in pairwise(outputs))
    assert all(torch.equal(a, b) for a, b in zip(outputs[:8], outputs[8:], strict=True))


# ---------------------------------------------------------------- training
def test_bytes_of_a_training_step_are_those_of_its_tensors():
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    found = values(facts_of("training_step", FakeBuilt(module, (torch.randn(8, 4),)), batch=8))
    parameters = 4 * 6 + 6 + 6 * 3 + 3
    assert found["gradient_bytes"] == 4 * parameters
    assert found["optimizer_bytes"] == 2 * 4 * parameters + 4 * 4  # two moments, and a step count of 4 bytes per tensor
    # tanh keeps its output, which the second layer keeps as well; cross-entropy its log-probabilities and its total
    # weight
    assert found["saved_activation_bytes"] == 8 * 6 * 4 + 8 * 3 * 4 + 4


def test_frozen_weights_have_no_gradient_and_no_optimizer_state():
    module = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    module[0].requires_grad_(False)
    found = values(facts_of("training_step", FakeBuilt(module, (torch.randn(8, 4),)), batch=8))
    assert found["gradient_bytes"] == 4 * (18 + 3)
    assert values(counts_of("training_step", FakeBuilt(module, (torch.randn(8, 4),)), batch=8))["macs_backward"] == 18


def test_plain_descent_keeps_one_number_per_parameter():
    subject = subject_of(Learner, torch.randn(8, 4), optimizer="sgd")
    found = values(facts_of("training_step", subject, batch=8))
    assert found["optimizer_bytes"] == found["gradient_bytes"]


def test_recomputed_work_is_told_from_the_backward_s_own():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)

        def forward(self, x):
            return checkpoint(nn.Sequential(self.first, self.second), x, use_reentrant=False)

    found = values(counts_of("training_step", FakeBuilt(Checkpointed(), (torch.randn(8, 4),)), batch=8))
    assert found["macs_recomputed"] == 24  # the last product's inputs are what was wanted: it is not computed again
    assert found["macs_backward"] == 24 + 24 + 18 + 18


def test_a_step_learns_and_everything_is_put_back():
    subject = subject_of(Learner, torch.randn(8, 4))
    parts, _ = parts_of("training_step", subject, batch=8)
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    generator = torch.get_rng_state()
    parts["step"].prepare()
    parts["step"].call()
    changed = [name for name, value in subject.module.state_dict().items() if not torch.equal(before[name], value)]
    assert {"first.weight", "norm.running_mean", "second.bias"} <= set(changed)
    parts["step"].reset()
    assert all(torch.equal(before[name], value) for name, value in subject.module.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())


def test_the_optimizer_s_state_is_that_of_a_later_step_and_put_back():
    subject = subject_of(Learner, torch.randn(8, 4))
    parts, _ = parts_of("training_step", subject, batch=8)
    parts["step"].run()
    assert {float(entry["step"]) for entry in parts["step"].held().optimizer} == {1.0}


def test_what_cannot_be_trained_says_so():
    frozen = nn.Linear(4, 3).requires_grad_(False)
    parts, _ = parts_of("training_step", FakeBuilt(frozen, (torch.randn(8, 4),)), batch=8)
    with pytest.raises(UsageError, match="nothing to train"):
        parts["step"].run()
    subject = subject_of(Learner, torch.randn(8, 4), optimizer="adam")
    parts, _ = parts_of("training_step", subject, batch=8)
    with pytest.raises(UsageError, match='did you mean "adamw"'):
        parts["step"].run()


# ---------------------------------------------------------------- pipeline
def test_shares_of_a_pipeline_are_ratios_of_sums():
    facts = facts_of("pipeline", subject_of(Chain))
    shares = {item.part: item.value for item in facts.readings if item.metric == "stage_share"}
    assert shares == pytest.approx({"decode": 100 / 7, "infer": 400 / 7, "post": 200 / 7})
    found = values(facts)
    assert found["untimed_share"] == pytest.approx(0) and found["nonnetwork_share"] == pytest.approx(300 / 7)
    assert not facts.flags


def test_time_that_no_stage_explains_is_flagged():
    subject = subject_of(Chain)
    module = module_of("pipeline")
    clock = subject.clock
    stages = subject.module.stages

    class Late(list):
        def __iter__(self):
            clock.pass_ms(1)  # between requests' clock and their first stage
            return super().__iter__()

    subject.module.stages = stages
    chain = module.Chain(subject)
    chain.stages = Late(chain.stages)
    spent, whole, _ = module._sums(chain, subject)
    assert whole - sum(spent.values()) > 0


def test_arrivals_at_a_rate_are_served_one_after_another_and_replayed():
    facts = facts_of("pipeline", subject_of(Chain), rate=40.0, seconds=20)
    found = values(facts)
    assert found["offered_rate"] == 40 and found["achieved_rate"] == pytest.approx(40, rel=0.1)
    assert found["sojourn_mean_ms"] > 7 and found["sojourn_p90_ms"] >= found["sojourn_p50_ms"] > 6.99
    runs = facts.details["open_loop"]["runs"]
    assert [run["requests"] for run in runs] == [800] * 5 and not facts.flags
    by_name = {item.metric: item for item in facts.readings}
    assert by_name["sojourn_mean_ms"].n == 5 and by_name["sojourn_mean_ms"].ci_low < found["sojourn_mean_ms"]
    assert found["sojourn_mean_ms"] == pytest.approx(found["waiting_mean_ms"] + 7, rel=0.01)  # of means over runs
    assert found["sojourn_in_services"] == pytest.approx(found["sojourn_mean_ms"] / 7)  # every service takes 7 ms
    assert found["sojourn_p99_in_services"] == pytest.approx(found["sojourn_p99_ms"] / 7)
    assert found["outside_service_ms"] == pytest.approx(0, abs=1e-6)  # Lindley's recursion gives the same queue
    assert (
        found["utilisation"] == pytest.approx(0.7 * found["achieved_rate"])
        and len({run["replayed_mean_ms"] for run in runs}) == 5
    )


def test_a_saturated_chain_answers_one_request_per_service_and_the_network_alone_more():
    facts = facts_of("pipeline", subject_of(Chain), rate=40.0)
    found = values(facts)
    assert found["saturated_rate"] == pytest.approx(1000 / 7)
    assert found["serving_efficiency"] == pytest.approx(100 * 4 / 7)
    assert found["offered_load"] == pytest.approx(100 * 40 * 7 / 1000)
    of_stages = ("stage_share", "stage_utilisation")
    assert all(item.part == "request" for item in facts.readings if item.metric not in of_stages)
    busy = {item.part: item.value for item in facts.readings if item.metric == "stage_utilisation"}
    assert busy == pytest.approx({"decode": 100 / 7, "infer": 400 / 7, "post": 200 / 7})  # the utilisation law
    assert facts.details["bottleneck"] == "infer" and found["network_rate"] == pytest.approx(250)


def test_what_is_kept_of_the_first_run_holds_lindley_s_and_little_s_laws():
    told = facts_of("pipeline", subject_of(Chain), rate=80.0, seconds=10).details["open_loop"]
    due, begun, ended = (told["first_run"][f"{name}_ms"] for name in ("scheduled", "started", "finished"))
    services = [b - a for a, b in zip(begun, ended, strict=True)]
    wait, waits = 0.0, []
    for index, service in enumerate(services):
        waits.append(wait)
        gap = due[index + 1] - due[index] if index + 1 < len(due) else 0.0
        wait = max(0.0, wait + service - gap)
    sojourn = sum(b - a for a, b in zip(due, ended, strict=True)) / len(due)
    assert sum(w + s for w, s in zip(waits, services, strict=True)) / len(due) == pytest.approx(sojourn, rel=1e-4)
    run = told["runs"][0]
    assert run["mean_sojourn_ms"] == pytest.approx(sojourn, rel=1e-4)
    assert run["mean_in_system"] == pytest.approx(run["completed_rate"] * run["mean_sojourn_ms"] / 1e3)


def test_arrivals_that_a_free_server_takes_late_contaminate_the_row():
    subject = subject_of(Chain)
    subject.wait_until = lambda moment, clock: setattr(clock, "now", max(clock.now, moment + 2_000_000))
    flags = {each["code"]: each for each in facts_of("pipeline", subject, rate=40.0, seconds=20).flags}
    assert "taken 2 ms late" in flags[LATE_ARRIVALS]["text"] and flags[LATE_ARRIVALS]["code"] in DISTURBANCES


def test_rising_loads_end_with_the_first_that_is_unstable():
    facts = facts_of("pipeline", subject_of(Chain), rising=1, seconds=20)
    points = facts.details["rising"]
    assert [point["load"] for point in points] == [0.3, 0.5, 0.7, 0.8, 0.9, 1.1] and not facts.flags
    assert [point["stable"] for point in points] == [True] * 5 + [False] and "were waiting" in points[-1]["reason"]
    low, high = points[0]["times"]["sojourn_mean_ms"], points[4]["times"]["sojourn_mean_ms"]
    assert 7 < low[0] < high[0] and high[1] < high[0] < high[2]
    curves = {curve.metric: curve for curve in facts.curves}
    assert curves["sojourn_p50_ms"].at == [point["rate"] for point in points]
    assert curves["sojourn_p50_ms"].values[-1] is None
    assert curves["achieved_rate"].values[-1] == pytest.approx(1000 / 7, rel=0.02)
    with pytest.raises(UsageError, match="load and rising each say"):
        facts_of("pipeline", subject_of(Chain), rising=1, load=0.5)


def test_evenly_spaced_arrivals_never_wait_for_equal_services_and_bursts_wait_longest():
    shapes = [{"rate": 100.0, "seconds": 10, "arrivals": kind} for kind in range(3)]
    even, poisson, bursts = (values(facts_of("pipeline", subject_of(Chain), **shape)) for shape in shapes)
    assert even["sojourn_in_services"] == pytest.approx(1)
    assert even["sojourn_mean_ms"] < poisson["sojourn_mean_ms"] < bursts["sojourn_mean_ms"]


def test_a_load_is_a_share_of_the_row_s_own_saturated_rate():
    found = values(facts_of("pipeline", subject_of(Chain), load=0.5, seconds=20))
    assert found["offered_rate"] == pytest.approx(0.5 * 1000 / 7) and found["offered_load"] == pytest.approx(50)


def test_what_is_answered_within_a_limit_is_goodput_and_what_is_not_answered_timed_out():
    found = values(facts_of("pipeline", subject_of(Chain), rate=40.0, seconds=20, limit_ms=7.5))
    assert 0 < found["goodput"] < found["achieved_rate"]
    assert found["timed_out_share"] == 0 and found["most_in_system"] >= 1 and found["lateness_p99_ms"] <= 1e-6


def test_shares_of_several_processes_have_intervals_of_their_logits():
    from bench.workloads import pipeline

    times = [(20.0, 70.0), (30.0, 60.0), (25.0, 70.0)]
    spans = [{"decode": [decode - 5, 5.0], "infer": [40.0, infer - 40]} for decode, infer in times]
    told = pipeline.spanned(spans, [[60.0, 40.0]] * 3, {"network": "infer"})
    found = {(item.metric, item.part): item for item in told}
    outside, decode = found["nonnetwork_share", "request"], found["stage_share", "decode"]
    assert outside.n == 3 and 0 < outside.ci_low < 30 < outside.value < 40 < outside.ci_high < 100
    assert decode.value == pytest.approx(25)  # of the sums: shares of one whole add up
    alone = {item.metric: item for item in pipeline.spanned(spans[:1], [[60.0, 40.0]], {})}
    assert alone["untimed_share"].value == pytest.approx(10) and alone["nonnetwork_share"].ci_low is None


def test_without_a_rate_there_is_no_open_loop_and_its_metrics_are_not_there():
    found = values(facts_of("pipeline", subject_of(Chain)))
    assert "saturated_rate" in found and not {"offered_rate", "sojourn_mean_ms", "utilisation"} & set(found)


def test_a_chain_without_a_network_has_no_efficiency_and_says_why():
    subject = subject_of(Chain)
    subject.module.network_stage = "model"
    missing = {item.metric: item.method_note for item in facts_of("pipeline", subject).readings if item.value is None}
    why = "no stage is called model"
    assert missing == dict.fromkeys(("serving_efficiency", "network_rate", "nonnetwork_share"), why)


@pytest.mark.parametrize(
    ("device", "servers", "why"),
    [("cuda", 2, "a fork cannot use cuda"), ("cpu", 1024, "each server needs its own")],
)
def test_servers_that_have_no_place_are_refused_before_anything_runs(device, servers, why):
    subject = subject_of(Chain)
    subject.device = device
    with pytest.raises(NotImplementedError, match=why):
        facts_of("pipeline", subject, servers=servers)


def test_a_pipeline_that_falls_behind_its_arrivals_is_unstable():
    facts = facts_of("pipeline", subject_of(Chain), rate=200.0, seconds=5)
    (flag,) = facts.flags
    found = values(facts)
    assert flag["code"] == "unstable" and flag["severity"] == "invalid"
    assert all(
        found[name] is None for name in ("sojourn_p50_ms", "sojourn_mean_ms", "waiting_mean_ms", "mean_in_system")
    )
    assert found["achieved_rate"] == pytest.approx(1000 / 7, rel=0.01) and found["offered_load"] == pytest.approx(140)
    assert len(facts.details["open_loop"]["runs"]) == 1  # the others would be unstable as well


def test_stages_need_names_of_their_own():
    subject = subject_of(Chain)
    subject.module.stages = lambda: [("a", str), ("a", str)]
    with pytest.raises(UsageError, match="a more than once"):
        parts_of("pipeline", subject)


# ---------------------------------------------------------------- split
def test_payloads_are_those_that_are_really_encoded():
    subject = subject_of(Halves, torch.randn(2, 4))
    subject.module.payload_inputs = lambda: [torch.randn(1, 4), torch.randn(3, 4)]
    facts = facts_of("split", subject, batch=2)
    found = values(facts)
    assert found["payload_bytes"] == (4 + 2 + 4 + 6) / 2
    assert (found["payload_min_bytes"], found["payload_max_bytes"]) == (6, 10)
    assert found["answer_bytes"] == 2 * 3 * 4
    assert facts.details["payload_bytes"] == [6, 10]


def test_only_bytes_have_a_size_on_the_wire():
    subject = subject_of(Halves, torch.randn(2, 4))
    subject.module.encode = lambda hidden: hidden
    with pytest.raises(UsageError, match="only bytes"):
        facts_of("split", subject)


# ---------------------------------------------------------------- operator
def test_an_operator_agrees_with_its_reference():
    facts = facts_of("operator", subject_of(Doubling))
    found = values(facts)
    assert 0 < found["reference_error"] < 1e-6 and not facts.flags
    assert found["io_bytes"] == 4 * (4 * 3 + 3 * 5 + 4 * 5)


def test_an_operator_that_is_wrong_is_invalid_and_says_by_how_much():
    facts = facts_of("operator", subject_of(Doubling, error=0.02))
    (flag,) = facts.flags
    assert flag["severity"] == "invalid" and "0.01 from the reference" in flag["text"]
    assert values(facts)["reference_error"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("found", "expected", "reason"),
    [
        (torch.ones(2), torch.ones(3), "another shape"),
        (torch.tensor([float("nan")]), torch.ones(1), "not finite"),
        (3.0, 3.0, "without a tensor"),
    ],
)
def test_what_cannot_be_compared_has_no_distance(found, expected, reason):
    relative, largest, wrong = module_of("operator").errors(found, expected)
    assert relative == largest == float("inf") and reason in wrong


def test_infinities_that_agree_are_no_distance():
    both = torch.tensor([float("-inf"), 3.0])
    assert module_of("operator").errors(both, both.double()) == (0.0, 0.0, None)


def test_a_call_whose_memory_is_not_there_is_refused_before_it_is_made():
    subject = subject_of(Doubling)
    subject.module.required_bytes = lambda *args: 2**60
    with pytest.raises(NotImplementedError, match="take a smaller shape"):
        parts_of("operator", subject)


def test_what_lacks_a_call_names_it_and_where_to_read():
    for name in ("generate", "sample", "stream", "pipeline", "split"):
        with pytest.raises(UsageError, match=rf"bench/workloads/{name}.py"):
            parts_of(name, FakeBuilt(nn.Linear(2, 2), (torch.ones(1, 2),)))


class Telling(Doubling):
    """Says what it keeps: half as many elements as its input, and no number of steps."""

    def declares(self, left, right):
        return {"workspace_elements": left.numel() / 2, "iterations": "it does not iterate"}


def test_what_an_operator_declares_is_a_reading_with_its_bytes_or_the_reason_why_there_is_none():
    facts = {item.metric: item for item in facts_of("operator", subject_of(Telling)).readings}
    size = facts["workspace_elements"].value
    assert size > 0 and facts["buffer_bytes"].value == 4 * size
    assert facts["iterations"].value is None and facts["iterations"].method_note == "it does not iterate"


def test_an_operator_that_declares_what_nobody_knows_is_refused():
    subject = subject_of(Doubling)
    subject.module.declares = lambda left, right: {"workspace_element": 1}
    with pytest.raises(UsageError, match="workspace_elements"):
        facts_of("operator", subject)


def test_what_stands_before_a_stage_is_made_once_for_each_request_and_copied_for_every_run():
    module = Chain()
    made, read = [], module.read
    module.read = lambda request: made.append(request[0]) or read(request)
    parts, _ = parts_of("pipeline", FakeBuilt(module))
    seen = []
    for _ in range(7):
        parts["infer"].prepare()
        seen.append(parts["infer"].call())  # it changes its input in place
        parts["infer"].reset()
    assert made == [0, 1, 2] and all(torch.equal(seen[i], seen[i - 3]) for i in range(3, 7))
