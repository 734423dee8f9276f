"""What a card states of its rows reaches them: execution, kernel, nominal bits; what a module says itself holds."""

import pytest
import torch
import yaml
from torch import nn

from bench.config import cards
from bench.errors import UsageError
from bench.store.record_parts import reading_of
from bench.worker.subject import say
from tests.sweeping import QUICK, configuration, sweep

CARD = {
    "title": "Rounded weights", "summary": "weights on a grid", "venue": "a test", "year": 2024, "workload": "forward",
    "knowledge": "exact", "methods": ["rounded_bits"], "no_identity": "a grid changes every weight",
    "tiny": {"model": "plain_net", "method": "rounded_bits(bits=4)"}, "refuses": ["rounded_bits(bits=0)"],
    "execution": "simulated", "nominal_bits": "bits", "nominal_activation_bits": 8,
}  # fmt: skip


def plain_net():
    """A builder, as suites name it."""
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False))
    net.example_inputs = lambda batch: torch.ones(batch, 8)
    return net


def rounded_bits(model: nn.Module, bits: int = 8) -> nn.Module:
    """A method, as suites name it; it says nothing of itself."""
    return model


def real_bits(model: nn.Module, bits: int = 8) -> nn.Module:
    """A method that knows that it runs for real."""
    model.execution = "real"
    return model


def suite(folder, **changes):
    """A suite of one's own: a model, a method, and the method's card."""
    (folder / "catalogue.yaml").write_text(yaml.safe_dump({
        "models": {"plain_net": f"{__name__}:plain_net"},
        "methods": {"rounded_bits": f"{__name__}:{changes.pop('build', 'rounded_bits')}"},
    }))  # fmt: skip
    (folder / "systems.yaml").write_text(yaml.safe_dump({"systems": {"rounded": {**CARD, **changes}}}))
    cards.of_rows.cache_clear()
    return folder


def records_of(folder, monkeypatch, method="rounded_bits(bits=4)", **changes):
    own = folder / "own"
    own.mkdir()
    monkeypatch.setenv("BENCH_SUITES", str(suite(own, **changes)))
    config = configuration(folder, ["plain_net"], [method], protocol={**QUICK, "timed": False})
    return {record["case"]["method"]: record for record in sweep(config).records}


def test_what_a_card_states_reaches_its_rows_and_those_of_the_plain_model_not(tmp_path, monkeypatch):
    rows = records_of(tmp_path, monkeypatch)
    assert rows["rounded_bits"]["labels"] == {"execution": "simulated", "kernel": None}
    assert reading_of(rows["rounded_bits"], "nominal_bits")["value"] == 4
    assert reading_of(rows["rounded_bits"], "nominal_bit_operations")["value"] == 96 * 4 * 8
    assert rows["none"]["labels"]["execution"] == "real" and reading_of(rows["none"], "nominal_bits") is None


def test_the_default_of_a_setting_that_gives_the_bits_is_known_as_well(tmp_path, monkeypatch):
    rows = records_of(tmp_path, monkeypatch, method="rounded_bits")
    assert reading_of(rows["rounded_bits"], "nominal_bits")["value"] == 8


def test_what_a_module_says_itself_holds(tmp_path, monkeypatch):
    rows = records_of(tmp_path, monkeypatch, method="rounded_bits", build="real_bits")
    assert rows["rounded_bits"]["labels"]["execution"] == "real"


def test_an_attribute_that_a_module_has_is_left_and_one_that_it_lacks_is_set():
    module = nn.Linear(2, 2)
    module.nominal_bits = 2
    say(module, {"nominal_bits": 4, "execution": "modelled"})
    assert (module.nominal_bits, module.execution) == (2, "modelled")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"execution": "simulate"}, 'execution "simulate" does not exist; did you mean "simulated"'),
     ({"kernel": "bsp"}, 'kernel "bsp" does not exist')],
)  # fmt: skip
def test_a_label_that_does_not_exist_is_refused(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        cards.read(suite(tmp_path, **change))


def test_bits_that_no_setting_gives_are_told(tmp_path):
    from bench.config import catalogue

    folder = suite(tmp_path, nominal_bits="width")
    found = cards.problems({card.name: card for card in cards.read(folder)}, catalogue.load([folder]))
    assert any('takes the setting "width"' in problem for problem in found)
