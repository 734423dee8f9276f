"""Every model and method of every suite passes the battery: a test for each, whose failure names the checks."""

import re

import pytest
import torch

from bench.config import cards, catalogue
from bench.testing import CHECKS, checks_for, run_all, subjects_of_suites

SUBJECTS = subjects_of_suites()
#: What a further tiny setting of a card may change; the rest holds for all settings or none, so that one is enough.
OF_EVERY_SETTING = {"builds", "identity", "closed_form", "step_form", "batches"}


def _is_further(subject):
    number = re.search(r"-(\d+)$", str(subject))
    return number is not None and int(number[1]) > 1


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _hold(subject, names):
    outcomes = run_all(subject, names)
    here = [outcomes[name] for name in checks_for(subject) if name in names]
    if here and all(outcome.startswith("left out") for outcome in here):
        pytest.skip(here[0])


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_battery(subject):
    _hold(subject, OF_EVERY_SETTING if _is_further(subject) else list(CHECKS))


@pytest.mark.slow
@pytest.mark.parametrize("subject", filter(_is_further, SUBJECTS), ids=str)
def test_the_rest_of_the_battery_for_further_settings(subject):
    _hold(subject, set(CHECKS) - OF_EVERY_SETTING)


def test_cards_and_catalogue_name_the_same_things():
    assert cards.problems(cards.load(), catalogue.load()) == []


def test_no_check_is_there_that_no_subject_is_held_to():
    assert {check for subject in SUBJECTS for check in checks_for(subject)} == set(CHECKS)


def test_names_of_subjects_are_unique():
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)
