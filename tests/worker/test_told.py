"""A method with a parameter `workload` is told what one run is, and nobody else may set it."""

import pytest
from torch import nn

from bench.config.catalogue import Entry, check_method
from bench.errors import UsageError
from bench.testing import Subject
from bench.testing.trial import on_meta, trial_of
from bench.worker import count
from bench.worker import subject as worker


def told(model: nn.Module, *, width: int = 3, workload: str = "forward") -> nn.Module:
    """The model with a note of what it was told."""
    model.told = (width, workload)  # type: ignore[assignment]
    return model.eval()


def recipe(workload: str):
    return Subject(
        "told", model="digits_mlp", method="tests.worker.test_told:told(width=4)", workload=workload
    ).recipe()


@pytest.mark.parametrize("workload", ["forward", "training_step"])
def test_every_way_to_build_tells_it(workload):
    subject = Subject("told", model="digits_mlp", method="tests.worker.test_told:told(width=4)", workload=workload)
    assert worker.build(recipe(workload)).module.told == (4, workload)
    assert count.on_meta(recipe(workload)).module.told == (4, workload)
    assert on_meta(trial_of(subject)).module.told == (4, workload)


def test_as_a_setting_it_is_refused_with_what_to_do():
    entry = Entry("told", "tests.worker.test_told:told")
    check_method(entry, {"width": 5})
    with pytest.raises(UsageError, match="clashes with the workload of the case"):
        check_method(entry, {"workload": "forward"})
