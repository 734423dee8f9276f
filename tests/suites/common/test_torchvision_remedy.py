"""What imports torchvision can be imported beside one built for another torch; a whole one is left alone."""

import json

import pytest

from bench.errors import UsageError
from suites.common import torchvision_remedy


def test_a_whole_torchvision_is_left_alone(monkeypatch):
    monkeypatch.setattr(torchvision_remedy, "operators_load", lambda: True)
    monkeypatch.setattr(torchvision_remedy, "_schemas", [])
    assert torchvision_remedy.import_beside_torchvision("json") is json
    assert torchvision_remedy._schemas == []


def test_after_the_remedy_torchvision_can_be_imported():
    pytest.importorskip(
        "torchvision", exc_type=(ImportError, RuntimeError)
    ) if torchvision_remedy.operators_load() else None
    assert torchvision_remedy.import_beside_torchvision("torchvision").__name__ == "torchvision"
    assert torchvision_remedy.operators_load()


def test_a_package_that_is_missing_says_how_to_get_it():
    with pytest.raises(UsageError, match="python -m pip install no_such_package"):
        torchvision_remedy.import_beside_torchvision("no_such_package.models")
