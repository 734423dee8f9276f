import pytest

from tests.workers import Sharing


@pytest.fixture(autouse=True)
def _forecasts_share_a_server_with_sweeps(monkeypatch):
    monkeypatch.setattr("bench.app.forecast.Workers", Sharing)
