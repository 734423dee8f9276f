"""A report cites the papers of what it shows, from the suite's own references, and nothing that is not known."""

import re

import pytest
import yaml

from bench.config import catalogue
from bench.config.paths import suite_folders
from bench.errors import UsageError
from reports.bibliography import entries_for, load
from reports.site import build
from tests.synthetic import store

SUITES = [folder for folder in suite_folders() if (folder / "references.bib").is_file()]
SUITE = next(folder for folder in suite_folders() if folder.name == "vit_tokens")


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_the_references_of_every_suite_can_be_read_and_belong_to_what_it_has(folder):
    known = catalogue.load()
    for reference in load(folder):
        of = {name for name in reference.of if name.partition(":")[0] not in known.prefixes}
        names = of - set(known.models) - set(known.methods)
        assert not names, (reference.key, names)


PASTED = r"""
@InProceedings{a2020b, title={{ViT} \& more}, author = {Jane Doe and Roe, Richard},
  booktitle = "Some
               Conference", pages = {1--2}, year = 2020, of = {tome, deit_tiny}}
@article{c2021d, title = {T}, author = {Doe, Jane}, journal = {arXiv preprint arXiv:2101.00001}, year = {2021},
  eprint = {2101.00001}, of = {evit}}
"""


def test_an_entry_is_cited_as_it_was_pasted_without_our_own_field(tmp_path):
    (tmp_path / "references.bib").write_text(PASTED)
    paper, preprint = load(tmp_path)
    assert paper.of == ("tome", "deit_tiny") and preprint.of == ("evit",)
    assert paper.bibtex == (
        "@inproceedings{a2020b,\n  title = {{ViT} \\& more},\n  author = {Doe, Jane and Roe, Richard},\n"
        "  booktitle = {Some Conference},\n  pages = {1--2},\n  year = {2020},\n}"
    )
    assert "eprint = {2101.00001}" in preprint.bibtex and "evit" not in preprint.bibtex


def test_every_method_and_vision_transformer_of_the_suite_has_a_reference():
    catalogue = yaml.safe_load((SUITE / "catalogue.yaml").read_text())
    cited = {name for item in load(SUITE) for name in item.of}
    assert set(catalogue["methods"]) <= cited
    assert {"deit_tiny", "deit_small", "deit_base", "vit_huge"} <= cited


def test_references_are_whole_and_named_by_their_first_author_and_year():
    references = load(SUITE)
    assert len(references) > 10
    for item in references:
        first = re.search(r"author = {([^,]+), ", item.bibtex)[1]
        year = re.search(r"year = {(\d{4})}", item.bibtex)[1]
        assert item.key.startswith(first.lower()) and year in item.key
        assert re.search(r"eprint = {\d{4}\.\d{5}}", item.bibtex)
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
        (("title = {T}, ", ""), "k: needs title"),
        (("author = {Doe, Jane}, ", ""), "k: needs author"),
        (("of = {tome}", "of = {}"), "k: needs of, names of the catalogue"),
        (("booktitle = {V}, ", ""), "k: needs a venue"),
        (("year = {2020}", "year = {2020"), "is no valid BibTeX"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, change, message):
    entry = "@inproceedings{k, title = {T}, author = {Doe, Jane}, booktitle = {V}, year = {2020}, of = {tome}}"
    (tmp_path / "references.bib").write_text(entry)
    assert [item.key for item in load(tmp_path)] == ["k"]
    (tmp_path / "references.bib").write_text(entry.replace(*change))
    with pytest.raises(UsageError, match=message) as error:
        load(tmp_path)
    assert "references.bib" in str(error.value)


def test_a_file_of_the_former_kind_is_not_passed_over(tmp_path):
    (tmp_path / "references.yaml").write_text("references: []")
    with pytest.raises(UsageError, match="is not read any more"):
        load(tmp_path)
