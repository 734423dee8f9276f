"""What a process draws anew is told from what else does, level by level, on samples whose components are known."""

import json
import math
import random

import numpy as np
import pytest
import torch

from perf import redraws
from perf.redrawn import PAGE, REDRAWS, Memory, Order, stretches
from perf.redraws import PROCESS, STRETCHES, TREATMENTS, Found, Treatment
from perf.scatter import Components

NOTHING = Treatment("nothing", "inside")
BUILD = Treatment("build", "inside")


def sampler(stretch, group, iteration=0.003, wander=0.002, host=0.0, seed=1):
    """Groups whose stretches and groups differ by these standard deviations, by treatment; the product has the host."""
    rng = np.random.default_rng(seed)

    def sample(treatment, network, _seed):
        level, found = rng.normal(0, group[treatment.name]), []
        for _ in range(STRETCHES):
            shared, own = rng.normal(0, host), rng.normal(0, stretch[treatment.name])
            slow = np.repeat(rng.normal(0, wander, 4), 10)
            forward = level + own + shared + slow + rng.normal(0, iteration, 40)
            product = shared + rng.normal(0, iteration, 40)
            found.append(
                {
                    "forward_ms": list(9 * np.exp(forward)),
                    "product_ms": list(3 * np.exp(product)),
                    "cores": [0, 0],
                    "preempted": 0,
                    "frames_moved": None,
                    "in_huge_pages": None,
                    "address": 0 if treatment.how == "inside" else len(found),
                }
            )
        return found

    return sample


def groups_of(sample, treatments, rounds, tmp_path):
    """The lines of a file to which a clock of one second a group gave so many rounds."""
    file, clock = tmp_path / "samples.jsonl", iter(np.arange(0, 1e6, 0.5))
    redraws.run(file, ["net"], treatments, rounds * len(treatments), sample, lambda: next(clock))
    return redraws.read(file)


def test_each_level_comes_back_where_it_was_put(tmp_path):
    """Iteration 0.3 %, wander 0.2 %, stretches 1 or 5 %, groups 20 or 0 %: no two are alike, none can be mixed up."""
    sample = sampler({"nothing": 0.01, "process": 0.05}, {"nothing": 0.2, "process": 0.0})
    groups = groups_of(sample, (NOTHING, PROCESS), 60, tmp_path)
    nothing, process = redraws.taken_apart(groups, "time")
    assert [nothing.name, process.name] == ["nothing", "process"]
    assert nothing.parts.iteration == pytest.approx(0.003, rel=0.1)
    assert nothing.parts.wander == pytest.approx(0.002, rel=0.2)
    assert nothing.parts.process == pytest.approx(0.01, rel=0.1) and nothing.apart == pytest.approx(0.2, rel=0.2)
    assert process.parts.process == pytest.approx(0.05, rel=0.1) and process.apart < 0.02
    assert nothing.share[0] == pytest.approx(0.04, rel=0.3) and nothing.says == "less than a process"
    assert process.says == "the measure" and process.share is None
    assert (nothing.elsewhere, process.elsewhere) == (0, 1)


@pytest.mark.parametrize(
    ("sd", "free", "says"),
    [(0.05, 900, "as good as a process"), (0.05, 9, "not known yet"), (0.03, 900, "less than a process")],
)
def test_what_draws_as_much_as_a_process_is_as_good_and_too_few_say_nothing(sd, free, says):
    process, parts = (Components(0.003, 0.002, level, math.hypot(level, 0.001), 0.001, free) for level in (0.05, sd))
    share = redraws.share_of(parts, process)
    assert share[0] == pytest.approx((sd / 0.05) ** 2) and share[1] < share[0] < share[2]
    found = Found("build", 3, parts, *redraws.component_interval(parts), share, math.nan, 1.0)
    assert found.says == says


def test_where_processes_do_not_differ_nothing_is_as_good_as_one(tmp_path):
    sample = sampler({"build": 0.05, "process": 0.0}, {"build": 0.0, "process": 0.0})
    build = redraws.taken_apart(groups_of(sample, (BUILD, PROCESS), 8, tmp_path), "time")[0]
    assert build.share is None and build.says.startswith("not known: processes do not differ")


def test_what_the_product_shares_is_gone_from_ratios(tmp_path):
    sample = sampler({"process": 0.01}, {"process": 0.0}, host=0.1)
    groups = groups_of(sample, (PROCESS,), 40, tmp_path)
    (time,), (ratio,) = (redraws.taken_apart(groups, side) for side in redraws.SIDES)
    assert time.parts.process == pytest.approx(0.1, rel=0.2) and ratio.parts.process == pytest.approx(0.01, rel=0.2)
    assert "slope 0.99, 1% of the variance" in redraws.remarks(groups)


def test_intervals_of_a_component_hold_it_and_end_at_zero_where_it_may_be_nothing():
    held, seen = 0, []
    for seed in range(60):
        sample = sampler({"process": 0.01}, {"process": 0.3}, iteration=0.003, seed=seed)
        groups = [{"stretches": sample(PROCESS, "net", 0)} for _ in range(6)]
        parts = redraws.pooled([redraws.logs(group, "time") for group in groups])
        low, high = redraws.component_interval(parts)
        held += low <= 0.01 <= high
        seen.append(parts.process)
    assert held >= 52 and np.mean(seen) == pytest.approx(0.01, rel=0.1)
    flat = sampler({"process": 0.0}, {"process": 0.0}, iteration=0.05)
    parts = redraws.pooled([redraws.logs({"stretches": flat(PROCESS, "net", 0)}, "time")])
    assert redraws.component_interval(parts)[0] == 0


def test_it_ends_in_time_and_goes_on_where_it_was_stopped(tmp_path):
    sample = sampler({"nothing": 0.01, "process": 0.05}, {"nothing": 0.0, "process": 0.0})
    first = groups_of(sample, (NOTHING, PROCESS), 3, tmp_path)
    file = tmp_path / "samples.jsonl"
    with file.open("a") as out:
        out.write('{"round": 1, "cut o')
    again = groups_of(sample, (NOTHING, PROCESS), 2, tmp_path)
    assert again[: len(first)] == first and 2 < len(first) < len(again)
    keys = [(group["round"], group["network"], group["treatment"]) for group in again]
    assert len(set(keys)) == len(keys) and keys == [
        (number, network, treatment.name)
        for (number, network, treatment), _ in zip(redraws.plan(["net"], (NOTHING, PROCESS)), keys, strict=False)
    ]


def test_samples_of_another_machine_are_refused(tmp_path, capsys):
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps({"machine": {"processor": "another"}}) + "\n")
    assert redraws.main([str(file), "--minutes", "1"]) == 2
    assert "another machine" in capsys.readouterr().err


def test_a_process_times_forward_and_product_and_gives_weights_other_pages():
    (one, two) = stretches(Order("distances and bilinear", "pages", 2, rounds=2, warm_up_s=0.0, shifted=False))
    for stretch in (one, two):
        assert len(stretch["forward_ms"]) == len(stretch["product_ms"]) == 2 and stretch["warm_up_ms"]
    assert one["address"] == two["address"] and one["address"] % PAGE == 0
    assert one["frames_moved"] is None and two["frames_moved"] in (None, pytest.approx(1.0, abs=0.5))


def test_weights_stay_what_they_are_when_their_pages_change():
    module = torch.nn.Sequential(torch.nn.Linear(30, 50), torch.nn.BatchNorm1d(50)).eval()
    x = torch.randn(3, 30)
    with torch.no_grad():
        before = module(x)
        memory = Memory(module, huge=False)
        moved = module(x)
        memory.give_other_pages(random.Random(0))
        assert memory.in_huge_pages() in (None, 0.0)  # not asked for
        assert torch.equal(before, moved) and torch.equal(before, module(x))


def test_every_treatment_has_its_own_name_and_says_how():
    assert len({item.name for item in TREATMENTS}) == len(TREATMENTS)
    assert {item.name for item in TREATMENTS if item.how == "inside"} == set(REDRAWS)
