"""A card is whole or refused, with the file, the system and the key; and it fits the catalogue."""

import subprocess
import sys

import pytest
import yaml

from bench.config import cards, catalogue
from bench.errors import UsageError

WHOLE = {
    "title": "A Paper",
    "arxiv": "2101.00001",
    "year": 2021,
    "summary": "does a thing",
    "methods": ["tome"],
    "settings": {"r": "how many"},
    "tiny": {"model": "deit_tiny", "method": "tome(r=3)"},
    "identity": "tome(r=0)",
    "knowledge": "exact",
    "refuses": ["tome(r=-1)"],
}


def written(folder, systems, **more):
    folder = folder / "some_suite"
    folder.mkdir(exist_ok=True)
    (folder / "systems.yaml").write_text(yaml.safe_dump({"systems": systems, **more}))
    return folder


def one(folder, **changes):
    card = {key: value for key, value in {**WHOLE, **changes}.items() if value is not None}
    return cards.read(written(folder, {"it": card}))[0]


def test_a_whole_card_is_read_with_its_name_and_suite(tmp_path):
    card = one(tmp_path)
    assert (card.name, card.suite, card.kind, card.against, card.workload) == (
        "it",
        "some_suite",
        "system",
        "none",
        "forward",
    )
    assert card.tiny[0].method == "tome(r=3)" and card.names == ("tome",)


def test_defaults_of_a_file_hold_where_a_card_says_nothing_else(tmp_path):
    other = {**WHOLE, "dtypes": ["fp64"]}
    first, second = cards.read(
        written(tmp_path, {"one": WHOLE, "other": other}, defaults={"dtypes": ["bf16"], "trains": True})
    )
    assert (first.dtypes, second.dtypes, second.trains) == (("bf16",), ("fp64",), True)


UNFILLED = [
    ({"title": None}, 'the key "title" is missing'),
    ({"arxiv": None}, "needs an arXiv number or a venue"),
    ({"arxiv": "21.1"}, "arxiv: String should match"),
    ({"tittle": "x"}, 'unknown key "tittle"; did you mean "title"'),
    ({"tiny": {"model": "a", "metod": "b"}}, 'unknown key "metod"; did you mean "method"'),
    ({"needs": {"extras": "x"}}, 'unknown key "extras"; did you mean "extra"'),
    ({"needs": {"extra": "timm"}}, "needs the modules"),
    ({"tiny": None}, "needs a tiny setting"),
    ({"identity": None}, "no_identity why there is none"),
    ({"no_identity": "x"}, "no_identity why there is none"),
    ({"refuses": None}, "needs settings that are refused"),
    ({"knowledge": "reconstruction"}, "say of what"),
    ({"knowledge": "rumour"}, "knowledge: Input should be"),
    ({"knowledge": "published only", "of": "kernels"}, "there is no row"),
    ({"methods": []}, "models or methods that make its rows"),
    ({"library": "timm"}, "library and licence go together"),
    ({"dtypes": ["fp31"]}, 'did you mean "fp32"'),
    ({"counts_on_meta": "no"}, "a sentence that says why not"),
    ({"counts_on_meta": False}, "counts_on_meta"),
    ({"kind": "network"}, "it has no methods"),
    ({"year": 20210}, "year"),
    ({"against": {"modle": "x"}}, "unknown key"),
    ({"name": "x"}, "follows from where the card stands"),
]


@pytest.mark.parametrize("changes, words", UNFILLED, ids=[words[:40] for _, words in UNFILLED])
def test_an_unfilled_card_is_refused_with_file_system_and_key(tmp_path, changes, words):
    with pytest.raises(UsageError) as error:
        one(tmp_path, **changes)
    assert words in str(error.value) and "some_suite/systems.yaml: system it: " in str(error.value)


def test_a_system_without_a_row_says_why(tmp_path):
    card = one(
        tmp_path,
        knowledge="published only",
        of="its kernel is not public",
        methods=[],
        tiny=None,
        identity=None,
        refuses=None,
    )
    assert card.tiny == () and card.of == "its kernel is not public"


@pytest.mark.parametrize(
    "text, words",
    [
        ("systems: [a]", "mapping of names to cards"),
        ("system: {}", 'unknown key "system"; did you mean "systems"'),
        ("systems: {a: 3}", "system a: must be a mapping"),
        ("systems: {a: {}, a: {}}", "stands there twice"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, text, words):
    (tmp_path / "systems.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"systems\.yaml") as error:
        cards.read(tmp_path)
    assert words in str(error.value)


def test_two_systems_of_one_name_are_refused_with_both_suites(tmp_path):
    (tmp_path / "a").mkdir()
    first, second = written(tmp_path, {"it": WHOLE}), written(tmp_path / "a", {"it": WHOLE})
    with pytest.raises(UsageError, match=r'system "it" is already defined in suite some_suite'):
        cards.load([first, second])


MISFITS = [
    ({"methods": ["tomme"]}, 'method "tomme" is not in the catalogue; did you mean "tome"'),
    ({"models": ["no_such"]}, 'model "no_such" is not in the catalogue'),
    ({"settings": {"rr": "x"}}, 'takes the setting "rr"; did you mean "r"'),
    ({"tiny": {"model": "deit_tny", "method": "tome(r=3)"}}, 'tiny: model "deit_tny" is not in the catalogue'),
    ({"tiny": {"model": "deit_tiny", "method": "tome(r=-3)"}}, 'tiny: method "tome": setting r=-3'),
    ({"tiny": {"model": "deit_tiny"}}, 'method "tome" has no tiny setting'),
    ({"identity": "tome(q=0)"}, 'identity: method "tome" has no setting "q"'),
    ({"refuses": ["evit(keep_rate=0)"]}, 'refuses: "evit" is none of its models and methods'),
    ({"against": {"model": "deit_smal"}}, 'against: model "deit_smal" is not in the catalogue'),
    ({"closed_form": "suites.vit_tokens.closed_forms:tomme"}, "closed_form: "),
    ({"step_form": "suites.training.costs:forward_mac"}, "step_form: "),
]


@pytest.mark.parametrize("changes, words", MISFITS, ids=[words[:40] for _, words in MISFITS])
def test_a_card_that_names_what_is_not_there_is_told(tmp_path, changes, words):
    found = cards.problems({"it": one(tmp_path, **changes)}, catalogue.load())
    assert any(line.startswith("some_suite: system it: ") and words in line for line in found)


def test_what_has_no_card_is_told(tmp_path):
    found = cards.problems({"it": one(tmp_path)}, catalogue.load())
    assert 'vit_tokens: method "evit" of the catalogue has no card in vit_tokens/systems.yaml' in found
    assert 'common: model "deit_small" of the catalogue has no card in common/systems.yaml' in found
    assert not any('"tome"' in line for line in found)


def test_a_network_needs_a_tiny_setting_for_each_of_its_builders(tmp_path):
    plain = {"kind": "network", "methods": [], "settings": {}, "identity": None, "refuses": None}
    card = one(tmp_path, **plain, models=["deit_tiny", "vim_tiny"], tiny={"model": "deit_tiny"})
    found = cards.problems({"it": card}, catalogue.load())
    assert any(
        'model "vim_tiny" is built by suites.common.scan:vision_scan, which no tiny setting uses' in line
        for line in found
    )


def test_cards_are_read_without_torch_and_without_importing_a_suite():
    program = (
        "import sys; from bench.config import cards, catalogue; cards.problems(cards.load(), catalogue.load()); assert "
        "not {'torch', 'hydra'} & set(sys.modules); assert not [m for m in sys.modules if m.startswith('suites.') and "
        "m.count('.') > 1]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
