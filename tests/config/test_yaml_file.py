"""A YAML file of a suite: read quickly, each key once, and never a crash of the reader in C."""

import pytest
import yaml

from bench.config.paths import suite_folders
from bench.config.yaml_file import MOST_NESTED, first_text, names_under, read_yaml
from bench.errors import UsageError


@pytest.fixture
def written(tmp_path):
    def write(text):
        file = tmp_path / "some.yaml"
        file.write_text(text)
        return file

    return write


@pytest.mark.parametrize(
    "file", sorted(f for folder in suite_folders() for f in folder.glob("*.yaml")), ids=lambda f: f.name
)
def test_our_own_files_hold_what_the_plain_reader_finds(file):
    assert read_yaml(file) == yaml.load(file.read_text(), yaml.SafeLoader)


@pytest.mark.parametrize(
    "text, line",
    [("a: 1\nb: 2\na: 3\n", 3), ("a:\n  x: 1\n  y: {z: 1, z: 2}\n", 3), ("a:\n- {b: 1}\n- b: 1\n  c: 2\n  b: 3\n", 5)],
)
def test_a_key_given_twice_is_refused_with_file_and_line(written, text, line):
    with pytest.raises(UsageError, match=rf"some.yaml, line {line}: .*stands there twice, first in line \d"):
        read_yaml(written(text))


def test_a_merged_mapping_may_be_overridden_as_yaml_means_it(written):
    text = "base: &base {x: 1, y: 2}\nmore: &more {<<: *base, y: 3}\nmost: {<<: *more, x: 4}\nagain: *more\n"
    found = read_yaml(written(text))
    assert found["more"] == found["again"] == {"x": 1, "y": 3} and found["most"] == {"x": 4, "y": 3}


def test_keys_of_different_kinds_are_different_keys(written):
    assert read_yaml(written("a: {1: x, '1': y}")) == {"a": {1: "x", "1": "y"}}


@pytest.mark.parametrize("piece", ["[", "- ", "{a: ", "? "])
def test_nesting_without_end_is_refused_instead_of_overflowing_the_stack_of_the_c_reader(written, piece):
    with pytest.raises(UsageError, match=r"nested more than \d+ deep|not valid YAML"):
        read_yaml(written("x:\n  " + piece * 100_000))


def test_what_people_nest_is_read(written):
    depth = MOST_NESTED - 1
    assert read_yaml(written("x: " + "[" * depth + "]" * depth))["x"]


@pytest.mark.parametrize(
    "text, found",
    [
        ("name: a\nrest: [", "a"),
        ("x: {name: b}\nname: a", "a"),
        ("name: [a]", None),
        ("x: name\nname: a", "a"),
        ("? [name, x]\n: y\nname: a", "a"),
        ("a: &n name\nb: *n\nname: c", "c"),
        ("- name\n- a", None),
        ("", None),
        ("name: '", None),
        ("*x : 1\nname: a", "a"),
    ],
)
def test_the_first_text_of_a_key_is_found_without_reading_on(written, text, found):
    assert first_text(written(text), "name") == found


def test_there_is_no_first_text_of_a_file_that_is_not_there(tmp_path):
    assert first_text(tmp_path / "none.yaml", "name") is None


@pytest.mark.parametrize(
    "text, found",
    [
        ("x: {a: 1}\nmodels: {a: b, c: {d: e}, f: [g, {h: i}]}\ny: [", ["a", "c", "f"]),
        ("models:\n  a: &k {d: e}\n  b: {<<: *k}\n  <<: {c: 1}\n", ["a", "b"]),
        ("x: models\ny: {models: {a: 1}}\nmodels: {b: 1}", ["b"]),
        ("models: [a]\nother: {b: 1}", []),
        ("models: a\nb: {c: 1}", []),
        ("- models\n- {a: 1}", []),
        ("", []),
    ],
)
def test_the_names_under_a_key_are_found_without_reading_on(written, text, found):
    assert names_under(written(text), "models") == found
