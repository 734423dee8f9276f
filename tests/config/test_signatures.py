"""Settings are known from source alone, and wrong ones are refused with the right name."""

import importlib
import sys
import textwrap
from typing import Any

import pytest

from bench.config import catalogue
from bench.config.catalogue import Entry, parse_spec
from bench.config.signatures import check_settings, signature, source_digest, split_path
from bench.errors import UsageError

SOURCE = """
import a_module_that_does_not_exist
from bench.config.settings import KeepRate

def method(
    model, *, keep_rate: KeepRate = 0.7, at: list[int] = [4, 7], mode: Literal["a", "b"] = "a", other: Foo = None
):
    return model

def needs(model, *, amount: int):
    return model

def open_ended(model, **rest):
    return model

class Net:
    def __init__(self, width: int = 8, resolution: int = 32):
        pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "sigmod.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    yield "sigmod"
    sys.modules.pop("sigmod", None)


def refusal(path, **settings):
    with pytest.raises(UsageError) as error:
        check_settings('method "m"', path, settings)
    return str(error.value)


def test_settings_are_read_without_importing_the_module(module):
    known = signature(f"{module}:method")
    assert set(known.settings) == {"keep_rate", "at", "mode", "other"}
    assert known.settings["at"][1] == [4, 7]
    assert "sigmod" not in sys.modules  # it could not even be imported


def test_good_settings_pass(module):
    check_settings("m", f"{module}:method", {"keep_rate": 0.5, "at": [1], "mode": "b", "other": object()})


def test_misspelt_setting_names_the_nearest(module):
    assert 'no setting "keep_rat"; did you mean "keep_rate"?' in refusal(f"{module}:method", keep_rat=0.5)


@pytest.mark.parametrize("bad", [{"keep_rate": 1.5}, {"keep_rate": "much"}, {"at": 3}, {"mode": "c"}])
def test_wrong_type_or_range_is_refused_with_the_value(module, bad):
    (name, value), *_ = bad.items()
    assert f"setting {name}={value!r} is not valid" in refusal(f"{module}:method", **bad)


def test_missing_setting_is_named(module):
    assert 'needs the setting "amount"' in refusal(f"{module}:needs")


def test_any_keyword_is_let_through_where_the_callable_takes_any(module):
    check_settings("m", f"{module}:open_ended", {"anything": 1})


def test_a_class_has_the_settings_of_its_constructor(module):
    assert set(signature(f"{module}:Net").settings) == {"width", "resolution"}


def test_missing_name_suggests_one_that_the_module_defines(module):
    with pytest.raises(UsageError, match=r'has no "metod"; did you mean "method"'):
        signature(f"{module}:metod")


def test_missing_module_is_named():
    with pytest.raises(UsageError, match=r"no_such_package_here"):
        signature("no_such_package_here.net:f")


@pytest.mark.parametrize("text", ["", "a", "a:", ":b", "a b:c", "a:b;c", "1a:b"])
def test_malformed_paths_are_refused(text):
    with pytest.raises(UsageError, match=r"package.module:Callable"):
        split_path(text)


def test_digest_follows_the_source_and_what_it_imports(tmp_path, monkeypatch):
    package = tmp_path / "digpkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from digpkg.b import g\ndef f(): ...\n")
    (package / "b.py").write_text("def g(): ...\n")
    (package / "c.py").write_text("def h(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    from bench.config import signatures

    def digest():
        signatures.source_tree.cache_clear()
        return source_digest("digpkg.a:f")

    first = digest()
    (package / "c.py").write_text("changed = 1\n")
    assert digest() == first
    (package / "b.py").write_text("def g(): return 1\n")
    assert digest() != first


def test_specs_read_names_and_literals():
    assert parse_spec("none") == ("none", {})
    assert parse_spec("tome(r=(13, -1.0), on=True)") == ("tome", {"r": (13, -1.0), "on": True})


@pytest.mark.parametrize("text", ["tome(r=13", "tome(13)", "tome(r=open('x'))", "tome(**{})"])
def test_specs_that_are_no_literals_are_refused(text):
    with pytest.raises(UsageError):
        parse_spec(text)


def test_two_catalogues_with_one_name_are_refused(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "catalogue.yaml").write_text('models: {same: "a.b:c"}\n')
    with pytest.raises(UsageError, match=r'model "same" is already defined in .*one'):
        catalogue.load([tmp_path / "one", tmp_path / "two"])


def test_misspelt_catalogue_key_names_the_nearest(tmp_path):
    (tmp_path / "catalogue.yaml").write_text("modles: {}\n")
    with pytest.raises(UsageError, match=r'did you mean "models"'):
        catalogue.load([tmp_path])


def test_digest_of_a_package_that_is_imported_runs_none_of_the_packages_below_it(tmp_path, monkeypatch):
    package = tmp_path / "runpkg"
    (package / "heavy").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "heavy" / "__init__.py").write_text("KIND = 1\nraise RuntimeError('it ran')\n")
    (package / "heavy" / "part.py").write_text("def g():\n    return 1\n")
    (package / "a.py").write_text(
        "from runpkg.heavy import KIND\nfrom runpkg.heavy.part import g\n\n\ndef f():\n    g()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("runpkg")
    from bench.config import signatures

    def digest():
        for cached in (signatures.source_tree, signatures._is_package, signatures.is_users_code):
            cached.cache_clear()
        return source_digest("runpkg.a:f")

    found = [digest()]
    for file, text in (("part.py", "def g():\n    return 2\n"), ("__init__.py", "KIND = 2\nraise RuntimeError\n")):
        (package / "heavy" / file).write_text(text)
        found.append(digest())
    assert len(set(found)) == 3


def test_preset_settings_change_the_digest(module):
    assert Entry("a", f"{module}:Net").digest != Entry("a", f"{module}:Net", {"width": 9}).digest


def test_every_bundled_name_resolves_to_a_callable_with_valid_presets():
    loaded = catalogue.load()
    for entry in loaded.models.values():
        catalogue.check_model(entry, {})
    for entry in loaded.methods.values():
        signature(entry.path)
    assert {"deit_tiny", "deit_small", "deit_base", "vit_base", "vit_large", "vit_huge"} <= set(loaded.models)
    assert {"tome", "evit", "diffrate"} <= set(loaded.methods)


CREEPING = [
    "int.__class__", "Literal.__class__.__mro__", "list[int].__origin__",
    "Annotated[int, Field(default_factory=int.__call__)]", '"__import__(\'os\').mkdir(MARK)"',
    'list["__import__(\'os\').mkdir(MARK)"]', 'Annotated["__import__(\'os\').mkdir(MARK)", 1]', "(lambda: int)()",
    "[int for _ in ()]", "Annotated[int, Field(ge=9**9**9)]", "int if 1 else str", "__import__('os')",
    "Field(**{'default': 1})", "unknown", "f'{int}'", "int[str]",
]  # fmt: skip


@pytest.mark.parametrize("annotation", CREEPING)
def test_an_annotation_is_put_together_from_our_vocabulary_or_not_evaluated_at_all(annotation, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    (tmp_path / "creeping.py").write_text(
        f"def method(model, *, x: {annotation.replace('MARK', repr(str(mark)))} = 1): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from bench.config import signatures

    signatures.source_tree.cache_clear()
    signature.cache_clear()
    assert signature("creeping:method").settings["x"][0] is Any
    check_settings("m", "creeping:method", {"x": object()})
    assert not mark.exists() and "creeping" not in sys.modules


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("Annotated[int, Field(ge=-1, le=3)]", -1, -2),
        ('Literal["a", "b"] | None', "a", "c"),
        ("Rate | None", None, 2),
        ("tuple[int, ...]", (1, 2), "x"),
        ('dict[str, Literal["a"]]', {"x": "a"}, {"x": "b"}),
        ("Union[int, None]", None, "x"),
        ('Annotated[str, Field(pattern="^a$")]', "a", "b"),
    ],
)
def test_plain_annotations_are_still_checked(annotation, good, bad, tmp_path, monkeypatch):
    (tmp_path / "plainly.py").write_text(f"def method(model, *, x: {annotation} = None): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    from bench.config import signatures

    signatures.source_tree.cache_clear()
    signature.cache_clear()
    check_settings("m", "plainly:method", {"x": good})
    with pytest.raises(UsageError, match="is not valid"):
        check_settings("m", "plainly:method", {"x": bad})


@pytest.mark.parametrize(
    ("path", "metric"),
    [
        ("suites.common.tasks.digits:Digits", "accuracy"),
        ("suites.common.tasks.textfile:TextFile", "bits_per_byte"),  # of a base in another file
        ("suites.common.tasks.digits:no_such_class", None),
    ],
)
def test_the_score_of_a_task_is_read_without_importing_it(path, metric):
    from bench.config.signatures import class_constant

    assert class_constant(path, "metric") == metric


def test_an_installed_package_is_told_by_its_version_and_its_names_without_an_import():
    import sys

    from bench.config import signatures

    assert signatures.installed_version("torch").startswith("torch 2.")
    assert signatures.installed_version("suites") is None and signatures.installed_version("bench") is None
    with pytest.raises(UsageError, match=r'"torch\.nn" has no "Lin"'):
        signature("torch.nn:Lin")
    signature("torch.nn:Linear")  # it comes through `from torch.nn.modules import *`
    assert source_digest("torch.nn:Linear") != source_digest("torch.nn:Conv2d")
    assert "torch" in sys.modules or not any(name.startswith("torch.") for name in sys.modules)
