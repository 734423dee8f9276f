"""The tables beside the code: catalogue, grids and claims say what exists and nothing else."""

from pathlib import Path

import pytest
import torch
import yaml

from bench.config import catalogue as catalogues
from bench.metrics import METRICS
from bench.worker.subject import find
from tests.suites.vit_tokens import published

SUITE = Path(__file__).parents[3] / "suites" / "vit_tokens"
CATALOGUE = catalogues.load()
GRIDS = yaml.safe_load((SUITE / "suite.yaml").read_text())["grids"]
CLAIMS = yaml.safe_load((SUITE / "claims.yaml").read_text())["claims"]


def entries(kind):
    return [e for e in getattr(CATALOGUE, kind).values() if e.path.startswith("suites.")]


def test_every_name_of_the_catalogue_can_be_imported():
    missing = [e.name for kind in ("models", "methods", "tasks") for e in entries(kind) if not callable(find(e.path))]
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize(
    "entry", [e for e in entries("models") if e.path.startswith("suites.common")], ids=lambda e: e.name
)
def test_every_model_of_the_catalogue_can_be_built(entry):
    with torch.device("meta"):
        model = find(entry.path)(**entry.settings)
    assert not model.training


@pytest.mark.parametrize("grid", GRIDS)
def test_every_row_of_every_grid_is_a_method_with_valid_settings(grid):
    for block in GRIDS[grid]:
        for model in block["models"]:
            assert model in CATALOGUE.models
        for spec in block["methods"]:
            name, settings = catalogues.parse_spec(spec)
            catalogues.check_method(CATALOGUE.method(name), settings)


def test_the_methods_grid_has_every_method():
    named = {catalogues.parse_spec(spec)[0] for block in GRIDS["methods"] for spec in block["methods"]}
    assert named == {e.name for e in entries("methods") if e.path.startswith("suites.vit_tokens")}


@pytest.mark.parametrize("grid", ["default", "methods"])
def test_every_case_of_the_small_grids_fits_its_model(grid):
    """On the meta device nothing is computed, but schedules meet the depth of their model."""
    for block in GRIDS[grid]:
        for model in block["models"]:
            entry = CATALOGUE.models[model]
            for spec in block["methods"]:
                name, settings = catalogues.parse_spec(spec)
                if "training_steps" in settings or "target_gmacs" in settings:
                    continue  # these need the task's trained weights
                with torch.device("meta"):
                    find(CATALOGUE.method(name).path)(find(entry.path)(**entry.settings), **settings)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: f"{c['method']}-{c['metric']}-{c['model']}")
def test_every_claim_is_complete_and_of_a_known_method_and_metric(claim):
    fields = {
        "method", "metric", "value", "unit", "relative_to_baseline", "model", "setting", "mode", "hardware",
        "convention", "tolerance", "comparable_when", "source", "note",
    }  # fmt: skip
    assert fields <= set(claim) <= fields | {"printed", "resolution", "plain"}
    assert claim["method"] in CATALOGUE.methods
    assert claim["metric"] in METRICS
    assert claim["model"] is None or claim["model"] in CATALOGUE.models
    assert claim["mode"] in ("off-the-shelf", "trained")
    assert claim["source"] and claim["comparable_when"]
    assert claim["relative_to_baseline"] or claim["unit"] == METRICS[claim["metric"]].unit
    if claim["setting"]:
        settings = catalogues.parse_spec(f"{claim['method']}({claim['setting']})")[1]
        catalogues.check_method(CATALOGUE.method(claim["method"]), settings)


def test_every_paper_with_a_claim_has_one_row_at_least():
    assert {c["method"] for c in CLAIMS} == {
        "diffrate",
        "dynamicvit",
        "token_transforming",
        "stvit",
        "lookupvit",
        "eet",
        "spatten",
        "topvim",
        "tome",
        "evit",
    }


def test_the_image_folder_takes_what_the_command_line_hands_to_a_task():
    """`data.root` and `checkpoint` reach a task only if it has parameters of these names."""
    assert all(CATALOGUE.task("imagefolder").accepts(name) for name in ("root", "checkpoint"))
    assert not CATALOGUE.task("digits").accepts("checkpoint")


#: Whose rates a model of the catalogue has, as the tables of released schedules name them.
OF_WEIGHTS = {
    "deit_tiny": "ViT-T (DeiT)",
    "deit_small": "ViT-S (DeiT)",
    "deit_base": "ViT-B (DeiT)",
    "vit_base": "ViT-B (MAE)",
    "vit_large": "ViT-L (MAE)",
    "vit_huge": "ViT-H (MAE)",
}


@pytest.mark.parametrize("grid", GRIDS)
def test_diffrate_runs_the_schedule_released_for_its_model_at_its_resolution(grid):
    released = {**published.DIFFRATE, **published.DIFFRATE_BUDGETS}
    for block in GRIDS[grid]:
        specs = [catalogues.parse_spec(spec) for spec in block["methods"]]
        for settings in [chosen for name, chosen in specs if name == "diffrate" and "prune" in chosen]:
            for model in set(block["models"]) - {"digits_tiny", "digits_small"}:
                own = [rates[2:4] for name, rates in released.items() if name.startswith(OF_WEIGHTS[model])]
                assert (settings["prune"], settings["merge"]) in own
                assert block["resolutions"] == [224]
