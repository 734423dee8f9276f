"""Words that are no overrides are answered at once: help on a screen, the version, and what was probably meant."""

import shlex

import pytest

from bench.app import front_door
from bench.app.hydra_errors import explain_hydra
from bench.canonical import parse_settings
from bench.config.verbs import JOBS
from bench.errors import UsageError
from bench.version import __version__

SUITES = ["vit_tokens", "ops"]


def test_a_line_without_words_asks_what_to_measure_and_names_every_verb_and_suite_on_one_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # where there is no terminal it is taken for one of 80
    said = front_door.answer([], SUITES)
    assert said.startswith("Say what to measure")
    assert all(f"\n  {verb} " in said for verb in JOBS) and all(suite in said for suite in SUITES)
    lines = said.splitlines()
    assert len(lines) <= 42 and max(map(len, lines)) <= 100
    assert "Say what to measure" not in front_door.answer(["--help"], SUITES)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["suite=ops", "--help"]])
def test_help_is_ours_and_not_the_composed_configuration(words):
    assert "Verbs (job=...)" in front_door.answer(words, SUITES)


@pytest.mark.parametrize("words", [["--version"], ["version"]])
def test_the_version_is_the_instruments(words):
    assert front_door.answer(words, SUITES) == f"Waterline {__version__}"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("plan", "did you mean job=plan?"),
        ("vit_tokens", "did you mean suite=vit_tokens?"),
        ("plam", 'did you mean "plan"?'),
        ("--suite", "suite=..."),
        ("--suite=ops", "here suite=ops"),
    ],
)
def test_a_word_that_is_no_override_is_told_with_what_was_meant(word, told):
    with pytest.raises(UsageError) as raised:
        front_door.answer([word], SUITES)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        "suite=ops",
        "-m suite=ops,vit_tokens",
        "--cfg job suite=ops",
        "-cd folder suite=ops",
        "--info plugins",
        "-sc install=bash",
        "~suite.models +x=1",
        "--multirun device.threads=1,2",
    ],
)
def test_overrides_and_options_of_hydra_pass(line):
    assert front_door.answer(shlex.split(line), SUITES) is None


def test_a_model_with_settings_that_stands_in_one_pair_of_quotes_is_shown_in_two():
    error = ValueError("mismatched input '(' expecting <EOF>\nSee https://hydra.cc")
    said = explain_hydra(error, SUITES, ["job=plan", "model=nets:Net(width=4)"])
    assert """'model="nets:Net(width=4)"'""" in said and "hydra.cc" not in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("r=abc", 'r=abc is no number, text, list or truth value; a text is written r="abc"'),
        ("r=2 ** 3", "r=2 ** 3 is no number"),
        ("r=[a, 1]", "r=[a, 1] is no number"),
    ],
)
def test_a_setting_that_is_no_literal_is_named_as_it_was_written(text, told):
    with pytest.raises(ValueError, match="of the form name=value") as raised:
        parse_settings(text)
    assert told in str(raised.value) and "object at 0x" not in str(raised.value)
