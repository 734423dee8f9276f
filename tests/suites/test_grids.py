"""The tables of suites: grids name what exists, claims can be read, every method has a row."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from bench.analysis import claims
from bench.config import cards
from bench.config import catalogue as catalogues
from bench.config.schema import Suite

SUITES = Path(__file__).parents[2] / "suites"
CATALOGUE = catalogues.load()
NAMES = (
    "attention", "convnets", "decode", "diffusion", "distill", "dynamic", "lowrank", "ops", "predict", "pruning",
    "quantization", "scaling", "serving", "ssm", "streaming", "tiny_memory", "training", "vlm_tokens",
)  # fmt: skip


def suite_of(name):
    return Suite(**yaml.safe_load((SUITES / name / "suite.yaml").read_text()))


def others(block):
    """The model of a block's other side, where it names one."""
    return [block.against.model] if block.against and block.against.model else []


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_every_grid_exists_with_valid_settings(name):
    for blocks in suite_of(name).grids.values():
        for block in blocks:
            for spec in [*block.models, *others(block)]:
                model, settings = catalogues.parse_spec(spec)
                catalogues.check_model(CATALOGUE.model(model), settings)
            for spec in block.methods:
                method, settings = catalogues.parse_spec(spec)
                if method != "none":
                    catalogues.check_method(CATALOGUE.method(method), settings)


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_is_of_something_that_there_is(name):
    found = claims.load(SUITES / name)
    assert len(found) > 20
    for claim in found:
        assert claim.method == "none" or claim.method in CATALOGUE.methods
        if claim.model is not None:
            model, settings = catalogues.parse_spec(claim.model)
            catalogues.check_model(CATALOGUE.model(model), settings)


@pytest.mark.parametrize("name", NAMES)
def test_a_block_that_names_a_task_has_a_model_that_is_made_for_it(name):
    for blocks in suite_of(name).grids.values():
        for block in blocks:
            if block.task not in (None, "none"):
                made_for = {CATALOGUE.model(catalogues.parse_spec(spec)[0]).task for spec in block.models}
                assert block.task in made_for and CATALOGUE.task(block.task)


@pytest.mark.parametrize("name", [*NAMES, "vit_tokens"])
def test_what_learns_has_a_task_to_learn_from_in_every_grid_as_it_stands(name):
    """A method that asks for steps of training fails where its model is loaded without the task that it is made for."""
    suite, without = suite_of(name), []
    for grid, blocks in suite.grids.items():
        for block in blocks:
            tasks = {CATALOGUE.model(catalogues.parse_spec(spec)[0]).task for spec in block.models}
            if (block.task or suite.task) not in tasks - {None}:
                without += [(grid, method) for method in block.methods if training_steps(method)]
    assert without == []


def training_steps(spec):
    """Steps that a method asks for, given or by its own default; 0 where it knows no such setting."""
    name, settings = catalogues.parse_spec(spec)
    if name == "none":
        return 0
    module, _, function = CATALOGUE.method(name).path.partition(":")
    own = inspect.signature(getattr(import_module(module), function)).parameters.get("training_steps")
    return 0 if own is None else settings.get("training_steps", own.default)


@pytest.mark.parametrize("name", ["decode", "attention"])
def test_every_system_has_a_row_in_the_default_grid(name):
    """Papers found later may stand in the grid beside it; what others could do without, in a named grid alone."""
    elsewhere = {
        "plain_caches",
        "speculative",
        "transformers_rows",
        "nat",
        "slab_swin",
        "digits_attention",
        "folded_digits",
        "attention_backend",
        "vir_stream",
    }
    grids = suite_of(name).grids
    blocks = [*grids["default"], *grids.get("additions", [])]
    rows = {catalogues.parse_spec(spec)[0] for block in blocks for spec in [*block.models, *block.methods]}
    systems = [
        card
        for card in cards.load().values()
        if card.suite == name and card.kind == "system" and card.name not in elsewhere
    ]
    assert [card.name for card in systems if not rows & {*card.models, *card.methods}] == []


@pytest.mark.parametrize("name", ["decode", "attention", "convnets"])
def test_every_model_of_its_own_has_a_row_in_some_grid(name):
    rows = {catalogues.parse_spec(spec)[0] for blocks in suite_of(name).grids.values() for block in blocks
            for spec in [*block.models, *others(block)]}  # fmt: skip
    own = {entry.name for entry in CATALOGUE.models.values() if entry.path.startswith(f"suites.{name}.")}
    assert own - rows == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_a_row_in_a_grid_that_is_run_by_default_or_with_its_task(name):
    grids = suite_of(name).grids
    named = ("digits", "trained", "search_class", "variants", "additions", "elastic", "inputs", "finding", "steps",
             "helpers", "new_digits", "transfer", "real_weights", "ablations", "rest", "full", "cuts",
             "wide")  # fmt: skip
    blocks = [*grids["default"], *(block for grid in named for block in grids.get(grid, []))]
    rows = {catalogues.parse_spec(spec)[0] for block in blocks for spec in block.methods}
    own = {entry.name for entry in CATALOGUE.methods.values() if entry.path.startswith(f"suites.{name}.")}
    assert own - rows == set()


def test_every_task_of_the_catalogue_can_be_asked_for_by_name():
    """A file of conf/task says more than a name; every other task of a catalogue needs none."""
    files = {file.stem for file in (SUITES.parent / "conf" / "task").glob("*.yaml")}
    assert files - set(CATALOGUE.tasks) == {"none", "suite"}
    assert set(CATALOGUE.tasks) - set(catalogues.task_names()) == set()


@pytest.mark.parametrize("name", sorted(folder.parent.name for folder in SUITES.glob("*/suite.yaml")))
def test_every_command_in_a_page_of_a_suite_names_a_grid_and_a_task_that_there_are(name):
    pages = [
        SUITES / name / "README.md",
        SUITES / name / "suite.yaml",
        SUITES.parent / "docs" / "findings" / f"{name}.md",
    ]
    grids, tasks = suite_of(name).grids, {*CATALOGUE.tasks, "none", "suite"}
    for page in (page for page in pages if page.is_file()):
        for line in page.read_text().splitlines():
            if f"python -m bench suite={name}" in line:
                words = dict(word.split("=", 1) for word in line.split() if word.count("=") == 1)
                assert words.get("grid", "default").strip(",`:") in grids, line
                assert words.get("task", "none").strip(",`:") in tasks, line
