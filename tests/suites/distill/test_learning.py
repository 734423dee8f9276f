"""How students are learned: anew from seed 0, watched, counted, kept; the control and the recipes by the same loop."""

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from suites.common.digits_cnn import digits_cnn
from suites.common.tasks.digits import Digits, Training
from suites.common.vit import vit
from suites.distill.digits_hybrid import digits_hybrid
from suites.distill.rtdetrv4 import rtdetrv4
from suites.distill.scalekd import scalekd
from suites.distill.teaching import GOALS, Tap, alone, started_anew, steps_to


def on_task(model, folder):
    """The model as one that was loaded by a task whose trainings are of sixteen steps."""
    task = Digits(folder, 0, training=Training(steps=12, grown_steps=4, batch=16))
    task.fits(model, "model")
    model.task = task
    return model


def test_a_network_starts_anew_from_seed_zero_and_the_given_one_stays():
    torch.manual_seed(7)
    net = on_task(digits_cnn(width=8, resolution=16), "/nowhere")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    one, other = started_anew(net), started_anew(net)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert not torch.equal(one.stem[0].weight, net.stem[0].weight)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.task is not None and one.task is None


def test_a_parameter_that_nobody_draws_is_told():
    with pytest.raises(UsageError, match="reset_parameters"):
        started_anew(vit(width=16, heads=2, depth=1, patch=8, resolution=16, classes=10))


def test_steps_are_counted_to_the_first_time_that_a_goal_is_met():
    found = steps_to([0.0, 10.0, 20.0, 30.0], [10.0, 72.0, 60.0, 91.0])
    assert found == {"50": 10.0, "70": 10.0, "80": 30.0, "90": 30.0, "95": None}
    assert list(found) == [str(goal) for goal in GOALS]


def test_a_tap_gives_what_it_saw_once():
    layer = nn.Linear(2, 2)
    tap, x = Tap(layer), torch.ones(1, 2)
    assert torch.equal(tap.take(), layer(x)) if layer(x) is not None else False
    with pytest.raises(AssertionError):
        tap.take(), tap.take()


def test_the_control_is_learned_watched_and_kept(tmp_path):
    net = on_task(digits_cnn(width=8, resolution=16), tmp_path)
    with pytest.raises(ValueError, match="task"):
        alone(digits_cnn(width=8), training_steps=3)
    assert alone(net) is net
    found = alone(net, training_steps=11)
    assert found.learned["step"] == [0.0, 10.0, 11.0]
    assert len(found.learned["accuracy"]) == 3 and set(found.learned["steps_to"]) == {str(goal) for goal in GOALS}
    cost = found.method_cost
    assert (cost["samples"], cost["forwards"], cost["backwards"]) == (11 * 32, 11, 11)
    again = alone(on_task(digits_cnn(width=8, resolution=16), tmp_path), training_steps=11)
    assert again.method_cost == cost  # read, not learned a second time
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), again.state_dict().values(), strict=True))


def test_products_of_learning_alone_are_steps_of_the_plain_network(tmp_path):
    from bench.meters.macs import count_training

    net = on_task(digits_cnn(width=8, resolution=16), tmp_path)
    images, labels = next(net.task.training_batches(32, 1, 0))
    one = count_training(
        net.train(), (images,), loss=lambda said: nn.functional.cross_entropy(said, labels)
    ).executed_macs
    assert alone(net.eval(), training_steps=3).method_cost["macs"] == 3 * one


@pytest.mark.parametrize(
    ("method", "build"),
    [(scalekd, lambda: digits_cnn(width=8, resolution=16)), (rtdetrv4, lambda: digits_hybrid(width=8, resolution=16))],
)
def test_a_recipe_gives_the_student_back_with_its_course_and_a_larger_cost(method, build, tmp_path):
    plain = alone(on_task(build(), tmp_path), training_steps=2)
    found = method(on_task(build(), tmp_path), training_steps=2)
    assert list(found.state_dict()) == list(plain.state_dict())
    assert found.method_cost["macs"] > 1.2 * plain.method_cost["macs"]
    assert found.learned["teacher_seconds"][0] > 0
    assert 0 <= found.learned["teacher_accuracy"][0] <= 100
    assert not any(
        torch.equal(a, b) for a, b in zip(found.parameters(), plain.parameters(), strict=True) if a.dim() == 4
    )
    assert type(found) is type(build())
