"""Whatever a user types or a suite file holds is understood or refused with a message; nothing ends in a traceback."""

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.app.jobs.compare import side_at
from bench.canonical import parse_settings, settings_text
from bench.config.catalogue import Catalogue, load, parse_spec
from bench.config.schema import Config, all_keys, validate
from bench.config.signatures import split_path
from bench.config.yaml_file import read_yaml
from bench.errors import UsageError
from bench.store.journal import Journal
from tests.sweeping import HEALTHY, QUICK

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.binary(max_size=4)
    | st.sampled_from(["a" * 5000, "\x00", "\ud800", "~/x", "1e999", "-1", "auto", "cuda:99999999999999999999"])
)
KEYS = st.sampled_from(sorted({part for key in all_keys() for part in key.split(".")})) | st.text(max_size=6)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=10
)
GOOD = {
    "suite": {"name": "tiny", "grids": {"default": [{"models": [HEALTHY], "methods": ["none"]}]}},
    "protocol": QUICK,
    "paths": {"results": "r", "site": "s", "cache": "c"},
}


def answered(tree):
    """The configuration, or None after a message of printable length."""
    try:
        made = validate(tree)
    except UsageError as error:
        assert str(error).strip() and len(str(error)) < 20_000
        return None
    assert isinstance(made, Config)
    return made


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=st.dictionaries(KEYS, TREES, max_size=5))
def test_any_tree_is_a_configuration_or_a_usage_error(tree):
    answered(tree)


def with_value(tree, dotted, value):
    """A copy of the tree with one dotted key set."""
    head, _, rest = dotted.partition(".")
    inner = tree.get(head)
    return {**tree, head: with_value(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(key=st.sampled_from(all_keys()), value=TREES)
@example(key="checkpoint", value="a" * 5000)
@example(key="checkpoint", value="\x00")
@example(key="row", value="\ud800")
@example(key="suite.grids", value={"default": [{"models": [], "methods": ["none"]}]})
def test_any_value_of_any_key_is_taken_or_refused(key, value):
    answered(with_value(GOOD, key, value))


@pytest.mark.parametrize("job", ["verify", "reproduce"])
def test_a_path_longer_than_the_system_takes_is_refused(job):
    assert answered({**GOOD, "job": job, "row": "x" * 10_000}) is None or job == "reproduce"


@pytest.mark.parametrize("name", ["x" * 10_000, "a\x00b", "nowhere"])
def test_sides_of_a_comparison_that_cannot_be_there_are_refused_in_a_line(name):
    with pytest.raises(UsageError, match="is not there: name a results folder") as told:
        side_at([Path(name)])
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("tree", [None, 3, "suite", [], [["suite", {}]]])
def test_what_is_no_tree_is_refused(tree):
    assert answered(tree) is None


# -- suite files and catalogues ---------------------------------------------------------------------------------

YAML_BITS = st.sampled_from([
    "models", "methods", "tasks", "prefixes", ": ", ":", "\n", "  ", "- ", "{", "}", "[", "]", ",", "build", "settings",
    "a.b:c", "&x ", "*x", "!!int ", "!!python/object:os.system ", "2001-99-99", "~", "'", '"', "#", "<<", "|", "? ",
    "%", "3",
])  # fmt: skip
YAML_TEXT = st.lists(YAML_BITS | st.text(max_size=3), max_size=25).map("".join)


def read_both(folder, text):
    """Read one text as a suite file and as a catalogue."""
    file = folder / "catalogue.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    for reading in (lambda: read_yaml(file), lambda: load([folder])):
        try:
            found = reading()
        except UsageError as error:
            assert "catalogue.yaml" in str(error) or "package.module:Callable" in str(error)
        else:
            assert isinstance(found, dict | Catalogue)


@settings(max_examples=400, deadline=None)
@given(text=YAML_TEXT | st.binary(max_size=60))
def test_any_suite_file_is_read_or_refused(text, tmp_path_factory):
    read_both(tmp_path_factory.mktemp("yaml"), text)


ROWS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["a.b:c", "x:y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["build", "settings", "task"]) | st.text(max_size=4) | st.integers(), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(content=st.dictionaries(st.sampled_from(["models", "methods", "tasks", "prefixes", "model"]), ROWS, max_size=3))
def test_any_catalogue_is_a_catalogue_or_a_usage_error(content, tmp_path_factory):
    read_both(tmp_path_factory.mktemp("catalogue"), yaml.safe_dump(content))


@pytest.mark.parametrize(
    "text",
    [
        "models: [1]", "models: 3", "models: {3: 'a.b:c'}", "models: {a: {build: 3}}", "models: {a: 'no path'}",
        "models: {a: {build: 'a.b:c', settings: 3}}", "models: {a: {build: 'a.b:c', settings: {1: 2}}}",
        "models: {a: {build: 'a.b:c', task: [x]}}", "models: {a: {build: 'a.b:c', 3: 1}}", "x: 2001-99-99",
        "x: !!int abc", "x: !!timestamp abc", "a: &a [*a]", "x: " + "[" * 5000, "3: x", "? [a]\n: b",
        "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]",
    ],
)  # fmt: skip
def test_what_fuzzing_found_in_catalogues_stays_refused(text, tmp_path):
    file = tmp_path / "catalogue.yaml"
    file.write_text(text)
    with pytest.raises(UsageError):
        load([tmp_path])


def test_a_suite_file_runs_nothing_by_being_read(tmp_path):
    file, mark = tmp_path / "catalogue.yaml", tmp_path / "mark"
    file.write_text(f"models: !!python/object/apply:os.system ['touch {mark}']")
    with pytest.raises(UsageError, match="not valid YAML"):
        load([tmp_path])
    assert not mark.exists()


# -- specs ------------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(text=st.text(alphabet=string.printable, max_size=30) | st.text(max_size=12).map(lambda inner: f"m({inner})"))
@example(text="m(b=" + "-" * 100_000 + "1)")
@example(text="m(b=" + "(" * 5000 + ")")
@example(text="m(b=0x" + "f" * 5000 + ")")
@example(text="m(x=1)(y=2)")
def test_any_spec_is_name_and_settings_or_a_usage_error(text):
    try:
        name, given_settings = parse_spec(text)
    except UsageError:
        return
    assert isinstance(name, str)
    assert parse_settings(settings_text(given_settings)) == given_settings


@pytest.mark.parametrize(
    "text",
    [
        "m(a=1)(b=2)", "m(a=1, a=2)", "m(a=1)#)", "m(a=1e999)", "m(a=b'x')", "m(a=...)", "m(a=1j)", "m(a={1, 2})",
        "m(a='\\ud800')", "m(a=0x" + "f" * 5000 + ")", "m(**{'a': 1})", "m(*a)", "m(1)", "m(a=__import__('os'))",
        "m(a=[x for x in y])", "m(a=b)",
    ],
)  # fmt: skip
def test_specs_that_would_lose_or_run_something_are_refused(text):
    with pytest.raises(UsageError):
        parse_spec(text)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(values=st.dictionaries(st.sampled_from(["r", "keep_rate", "at", "x"]), PLAIN, max_size=3))
def test_settings_survive_being_written_and_read(values):
    assert parse_settings(settings_text(values)) == values


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=20))
def test_any_dotted_path_is_split_or_refused(text):
    try:
        module, name = split_path(text)
    except UsageError:
        return
    assert f"{module}:{name}" == text


# -- journals ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(before=st.binary(max_size=80), case=st.text(max_size=10))
def test_what_is_appended_after_any_damage_is_read_back_last(before, case, tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    path.write_bytes(before)
    journal = Journal(path)
    made = journal.append("recorded", case=case)
    contents = journal.read()
    assert contents.entries[-1] == made
    assert not contents.torn
    assert path.read_bytes().startswith(before)
