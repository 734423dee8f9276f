"""The roofline of a case: dots of layers and blocks, and names of the slowest layers where they are asked for."""

import pytest

from reports.figures import roofline
from tests.reports.figures.gallery import layers
from tests.reports.figures.specs import check
from tests.synthetic import record


def test_the_slowest_layer_of_each_kind_has_its_name_in_a_view_of_its_own():
    rows = layers(13)
    made = check(roofline.figure({**record(), "layers": rows}))
    assert list(made.views) == ["layers", "blocks", "layers with names"]
    names = made.views["layers with names"]["data"][-1]
    assert sorted(names["text"]) == ["attn.proj", "attn.qkv", "mlp.fc1", "mlp.fc2"]
    slowest = max((row for row in rows if row["name"].endswith("mlp.fc1")), key=lambda row: row["time_ms"])
    speed = names["y"][names["text"].index("mlp.fc1")]  # GFLOP/s, two operations for a product
    assert speed == pytest.approx(2e-6 * slowest["macs"] / slowest["time_ms"], rel=1e-3)
