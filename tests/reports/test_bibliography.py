"""A report cites the papers of what it shows, from the suite's own references, and nothing that is not known."""

import pytest
import yaml

from bench.config.paths import suite_folders
from bench.errors import UsageError
from reports.bibliography import Reference, entries_for, load
from reports.site import build
from tests.synthetic import store

SUITE = next(folder for folder in suite_folders() if folder.name == "vit_tokens")


def test_an_entry_has_the_fields_that_are_known_and_no_others():
    paper = Reference(
        "a2020b", "{ViT} & more", ("Doe, Jane", "Roe, Richard"), 2020, venue="Some Conference", pages="1--2"
    )
    assert paper.bibtex == (
        "@inproceedings{a2020b,\n  title = {{ViT} \\& more},\n  author = {Doe, Jane and Roe, Richard},\n"
        "  booktitle = {Some Conference},\n  pages = {1--2},\n  year = {2020},\n}"
    )
    preprint = Reference("a", "T", ("Doe, Jane",), 2021, arxiv="2101.00001").bibtex
    assert preprint.startswith("@article{a,") and "journal = {arXiv preprint arXiv:2101.00001}" in preprint
    assert "eprint = {2101.00001}" in preprint and "booktitle" not in preprint


def test_every_method_and_vision_transformer_of_the_suite_has_a_reference():
    catalogue = yaml.safe_load((SUITE / "catalogue.yaml").read_text())
    cited = {name for item in load(SUITE) for name in item.of}
    assert set(catalogue["methods"]) <= cited
    assert {"deit_tiny", "deit_small", "deit_base", "vit_huge"} <= cited


def test_references_are_whole_and_named_once():
    references = load(SUITE)
    keys = [item.key for item in references]
    assert len(set(keys)) == len(keys)
    for item in references:
        assert item.arxiv and len(item.arxiv.split(".")[0]) == 4
        assert all(", " in author for author in item.authors)
        assert item.key.startswith(item.authors[0].split(",")[0].lower()) and str(item.year) in item.key
        assert item.bibtex.count("{") == item.bibtex.count("}")


def test_only_papers_of_what_is_shown_are_cited():
    found = "\n".join(entries_for(["tome", "deit_tiny"], load(SUITE)))
    assert "bolya2023tome" in found and "touvron2021deit" in found and "dosovitskiy2021vit" in found
    assert "liang2022evit" not in found
    assert "lavin2024efficiency" in found and "williams2009roofline" in found and "@software{waterline" in found


def test_the_methods_page_cites_from_the_suites_folder(tmp_path):
    store(tmp_path / "results", with_samples=False)
    build(tmp_path / "results", tmp_path / "site", claims=[SUITE])
    text = (tmp_path / "site" / "methods.html").read_text()
    assert "bolya2023tome" in text and "chen2023diffrate" in text and "koner2024lookupvit" not in text
    build(tmp_path / "results", tmp_path / "bare")
    assert "bolya2023tome" not in (tmp_path / "bare" / "methods.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, 'unknown field "titel"'),
        ({"title": ""}, "needs title"),
        ({"of": "tome"}, "of must be a list"),
        ({"venue": None}, "needs a venue or an arXiv number"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, change, message):
    entry = {"key": "k", "of": ["tome"], "title": "T", "authors": ["Doe, Jane"], "venue": "V", "year": 2020, **change}
    (tmp_path / "references.yaml").write_text(yaml.safe_dump({"references": [entry]}))
    with pytest.raises(UsageError, match=message) as error:
        load(tmp_path)
    assert "reference 1" in str(error.value)
