"""What a case runs on when nobody gives inputs: images, for a forward and for a step of training alike."""

import torch

from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import rehearse
from bench.worker.parts import parts_of
from bench.worker.subject import build
from tests.worker.test_prepare import Phases, Toy

NETWORK = "tests.faults.models:healthy"


def recipe(workload, path=NETWORK, settings=None, **changes):
    case = Case(suite="s", model="m", workload=workload, batch=3, resolution=16, **changes)
    return Recipe(case, path, settings or {})


def test_a_step_of_training_of_a_network_without_inputs_of_its_own_is_on_the_images_of_a_forward():
    step, forward = (build(recipe(workload)) for workload in ("training_step", "forward"))
    assert [tuple(value.shape) for value in step.args] == [(3, 3, 16, 16)]
    assert torch.equal(step.args[0], forward.args[0])
    assert torch.isfinite(parts_of(step)[0].run())


def test_a_plan_can_count_and_try_such_a_step():
    item = recipe("training_step")
    assert rehearse.run({"recipes": [item.as_dict()]}, Phases())["faults"] == {item.case.key: None}


def test_under_a_task_it_is_on_the_first_batch_of_the_task(tmp_path):
    case = Case(suite="s", model="m", workload="training_step", task="toy", batch=3, resolution=16)
    subject = build(Recipe(case, NETWORK, task_path=f"{Toy.__module__}:Toy", cache=str(tmp_path)))
    images, _ = next(Toy(tmp_path, 0).batches(3))
    assert torch.equal(subject.args[0], images)
