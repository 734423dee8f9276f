"""A process that counts ends early where counts take long, with what it has found, and never with nothing."""

import pytest

from bench.testing import Subject
from bench.worker import count


class Silent:
    """A phase that tells nobody."""

    name = "start"

    def enter(self, name, case=None):
        self.name = name


@pytest.mark.parametrize(("enough", "counted"), [(0.0, 1), (600.0, 2)])
def test_a_process_begins_no_count_after_enough_seconds(monkeypatch, enough, counted):
    monkeypatch.setattr(count, "ENOUGH_S", enough)
    widths = [{"model": "digits_mlp", "method": f"tests.worker.test_told:told(width={width})"} for width in (4, 5)]
    recipes = [Subject("told", workload="forward", **words).recipe() for words in widths]
    found = count.run({"recipes": [item.as_dict() for item in recipes], "protocol": {}}, Silent())
    assert list(found["cases"]) == [item.case.key for item in recipes][:counted]
    assert all(case["status"] == "ok" for case in found["cases"].values())
