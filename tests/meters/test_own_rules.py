"""Rules of users' own operators: counted, held to their example, and found in other processes."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import bench
from bench.errors import UsageError
from bench.meters import macs, operator_rules, own_rules

LIBRARY = torch.library.Library("waterline_rules", "DEF")
for _name in ("scores", "twice"):
    LIBRARY.define(f"{_name}(Tensor a, Tensor b) -> Tensor")
    LIBRARY.impl(_name, lambda a, b: (a[:, None] * b).sum(-1), "CompositeExplicitAutograd")


@pytest.fixture(autouse=True)
def _own_rules_only(monkeypatch):
    """Each test registers its own; none is left behind."""
    monkeypatch.setattr(own_rules, "_RULES", {})
    monkeypatch.setattr(own_rules, "_tried", set())
    before = dict(operator_rules._custom)
    yield
    operator_rules._custom.clear()
    operator_rules._custom.update(before)
    operator_rules.rule_of.cache_clear()


class Scores(nn.Module):
    def forward(self, a, b):
        return torch.ops.waterline_rules.scores(a, b)


def example():
    return torch.ones(2, 3), torch.ones(5, 3)


def products(a, b):
    return a.shape[0] * b.shape[0] * a.shape[1]


def test_a_rule_counts_and_its_example_is_held_to_the_expected_macs():
    bench.counting_rule("waterline_rules::scores", example=example, expected=30)(products)
    found = macs.count(Scores(), (torch.ones(4, 3), torch.ones(7, 3)), second_count=False)
    assert found.macs == 4 * 7 * 3 and not found.at_least


def test_an_example_that_counts_otherwise_stops_every_count():
    bench.counting_rule("waterline_rules::scores", example=example, expected=31)(products)
    with pytest.raises(macs.MiscountError, match="30 MACs, and 31 MACs are expected"):
        macs.count(nn.Linear(2, 2), (torch.ones(1, 2),))


def test_a_rule_of_an_operator_that_its_example_never_calls_is_found_out(monkeypatch):
    bench.counting_rule("waterline_rules::scores", example=example, expected=30)(products)
    rule = own_rules.registered()[0]
    monkeypatch.setattr(own_rules, "_RULES", {"x": own_rules.OwnRule("aten::mm", products, example, 30)})
    own_rules._tried.add(rule)
    with pytest.raises((macs.MiscountError, RuntimeError)):
        macs.self_test()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "scores"}, "namespace"),
        ({"name": "a::b", "example": example}, "expected"),
        ({"name": "a::b", "expected": 3}, "example"),
    ],
)
def test_half_a_rule_is_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        bench.counting_rule(**arguments)


def test_rules_travel_with_a_module_that_is_handed_over(tmp_path):
    from bench.meters import handed_over

    bench.counting_rule("waterline_rules::twice", example=example, expected=30)(products)
    path = tmp_path / "module.pickle"
    handed_over.write(path, nn.Linear(2, 2), (torch.ones(1, 2),), {})
    code = (
        "from bench.meters import handed_over, own_rules\n"
        f"handed_over.apply_settings({str(path)!r})\n"
        "print([rule.name for rule in own_rules.registered()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "waterline_rules::twice" in done.stdout


def test_installed_packages_bring_theirs(monkeypatch):
    class Entry:
        module, dist = "tests.faults.models", None

    monkeypatch.setattr(own_rules, "entry_points", lambda group: [Entry] if group == "waterline.operators" else [])
    own_rules.load_installed.__wrapped__()
    Entry.module = "no_such_module_here"
    with pytest.raises(UsageError, match=r"no_such_module_here cannot be loaded \(ModuleNotFoundError"):
        own_rules.load_installed.__wrapped__()
