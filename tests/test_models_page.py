"""The examples of docs/models.md: every prefix builds what the page says, from files that the page makes."""

import re
from pathlib import Path

import pytest
import torch

import bench
from bench.api.building import build
from suites.common.onnx_bridge import onnx_model
from suites.common.torchvision_remedy import mend_torchvision

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
MODELS = re.findall(r"^python -m bench model=(\S+)$", PAGE, re.M)
NEEDS = {"timm": "timm", "torchvision": "torchvision", "hf": "transformers", "diffusers": "diffusers", "onnx": "onnx"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the page's Python has been run."""
    place = tmp_path_factory.mktemp("models")
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
    mend_torchvision()  # torch's exporter looks at torchvision, which need not fit the installed torch
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        exec(compile(code, "docs/models.md", "exec"), {})
    return place


def test_every_prefix_of_the_catalogue_has_an_example():
    from bench.config import catalogue

    prefixes = set(catalogue.load().prefixes)
    assert {model.partition(":")[0] for model in MODELS} == prefixes
    assert all(f"`{prefix}:" in PAGE for prefix in prefixes)


@pytest.mark.parametrize("model", MODELS)
def test_an_example_builds_and_runs(model, folder, monkeypatch):
    needed = NEEDS.get(model.partition(":")[0])
    if needed:
        pytest.importorskip(needed)
    monkeypatch.chdir(folder)
    resolution = None if model.startswith(("hf:", "diffusers:", "export:", "onnx:")) else 64
    if model.startswith("onnx:"):  # a graph for a runtime, which the library counts and torch does not run
        module = onnx_model(name=model.partition(":")[2])
        inputs = module.example_inputs(1)
    else:
        module, inputs = build(model, resolution=resolution)
    counted = bench.measure(module, inputs, ["macs", "params"]).set_index("metric")["value"]
    assert counted["macs"] > 0 and counted["params"] > 0
    if model == "export:net.pt2":
        assert counted["macs"] == 15 * 15 * 8 * 27 + 8 * 15 * 15 * 10 and torch.is_tensor(inputs[0])
