"""What documents and `job=list` say of systems is what the cards say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.app import generate_docs, listing
from bench.app.jobs import run_job
from bench.config import cards, catalogue
from bench.config.cards import Card
from bench.config.paths import suite_folders
from bench.config.schema import validate
from bench.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_no_document_is_stale():
    stale = [
        str(file.relative_to(ROOT)) for file, text in generate_docs.documents().items() if file.read_text() != text
    ]
    assert not stale, f"run python -m bench.app.generate_docs: {stale}"


def test_every_suite_with_cards_has_its_table_and_the_index_has_every_system():
    index = (ROOT / "docs" / "systems.md").read_text()
    for card in cards.load().values():
        assert f"| {card.name} |" in index and card.title in index
    assert "<!-- systems: begin -->" in (ROOT / "suites" / "vit_tokens" / "README.md").read_text()


def test_every_key_of_a_card_is_documented():
    text = (ROOT / "docs" / "testing_your_own.md").read_text()
    for key in set(Card.model_fields) - {"name", "suite"}:
        assert f"`{key}`" in text


@pytest.mark.parametrize(
    "text",
    [
        "no marks",
        "<!-- x: end -->\n<!-- x: begin -->",
        "<!-- x: begin -->",
        "<!-- x: begin --><!-- x: begin --><!-- x: end -->",
    ],
)
def test_a_document_without_its_marks_is_refused(text):
    with pytest.raises(UsageError, match=r"README.md: needs a line <!-- x: begin -->"):
        generate_docs.between(text, "x", "content", Path("README.md"))


def test_what_stands_around_the_marks_stays():
    text = "before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter"
    assert (
        generate_docs.between(text, "x", "new", Path("f")) == "before\n<!-- x: begin -->\nnew\n<!-- x: end -->\nafter"
    )


def test_a_cell_keeps_its_bars():
    assert listing.row_line("a|b", "c") == "| a\\|b | c |"


def rows(word=""):
    return listing.fitting(listing.everything(cards.load(), catalogue.load(), suite_folders()), word)


def test_everything_that_can_be_named_is_listed_once():
    known = catalogue.load()
    names = [(row.kind, row.name) for row in rows()]
    assert len(set(names)) == len(names)
    for kind in ("models", "methods", "tasks"):
        assert {name for k, name in names if k == kind} - {f"{prefix}:NAME" for prefix in known.prefixes} == set(
            getattr(known, kind)
        )
    assert ("suites", "vit_tokens") in names and {
        name for kind, name in names if kind in ("systems", "networks")
    } == set(cards.load())


@pytest.mark.parametrize(
    "word, found, missed",
    [
        ("merg", "tome", "evit"),
        ("Bidirectional", "vim_tiny", "deit_tiny"),
        ("2305.17997", "diffrate", "tome"),
        ("reconstruction", "eet", "tome"),
    ],
)
def test_a_word_finds_by_name_title_number_and_knowledge(word, found, missed):
    names = {row.name for row in rows(word)}
    assert found in names and missed not in names


def config(word):
    tree = {"job": "list", "word": word, "suite": {"name": "s", "grids": {"default": []}}, "protocol": {}}
    return validate(tree)


def test_the_job_prints_what_fits_and_refuses_a_word_that_occurs_nowhere(capsys):
    assert run_job(config("merg")) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^systems \(\d\)", printed, re.M) and "tome" in printed and "spatten" not in printed
    with pytest.raises(UsageError, match=r'word="tomme" occurs nowhere; did you mean "tome"'):
        run_job(config("tomme"))


def test_listing_imports_no_torch():
    program = "import sys; from bench.app.jobs import list; list.everything; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_the_example_of_the_guide_runs(tmp_path):
    guide = (ROOT / "docs" / "testing_your_own.md").read_text()
    (tmp_path / "test_half.py").write_text(re.search(r"```python\n(.*?)```", guide, re.S)[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_half.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "12 passed" in done.stdout
