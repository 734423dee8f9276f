"""Every model and method of every suite passes the battery: one named test for each pair of subject and check."""

import re

import pytest
import torch

from bench.config import cards, catalogue
from bench.testing import CHECKS, Skipped, checks_for, run_check, subjects_of_suites

SUBJECTS = subjects_of_suites()
#: What a further tiny setting of a card may change; the rest holds for all settings or none, so that one is enough.
OF_EVERY_SETTING = {"builds", "identity", "closed_form", "step_form", "batches"}


def _pair(subject, check):
    further = re.search(r"-(\d+)$", str(subject))
    slow = further is not None and int(further[1]) > 1 and check not in OF_EVERY_SETTING
    return pytest.param(subject, check, id=f"{subject}-{check}", marks=[pytest.mark.slow] if slow else [])


PAIRS = [(subject, check) for subject in SUBJECTS for check in checks_for(subject)]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("subject, check", [_pair(*pair) for pair in PAIRS])
def test_battery(subject, check):
    try:
        run_check(check, subject)
    except Skipped as reason:
        pytest.skip(str(reason))


def test_cards_and_catalogue_name_the_same_things():
    assert cards.problems(cards.load(), catalogue.load()) == []


def test_no_check_is_there_that_no_subject_is_held_to():
    assert {check for _, check in PAIRS} == set(CHECKS)


def test_names_of_subjects_are_unique():
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)
