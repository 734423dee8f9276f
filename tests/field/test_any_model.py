"""Models that people have: torchvision by name, programs that torch.export saved. Known parameters and products."""

import io
import zipfile
from pathlib import Path

import pytest
import torch

from bench.config import catalogue
from bench.errors import UsageError
from bench.meters import macs
from suites.common.exported import exported_model
from suites.common.torchvision_models import torchvision_model

#: Parameters and GMACs as torchvision's documentation of its weights prints them (`num_params`, `_ops`).
PRINTED = {
    "resnet18": (11_689_512, 1.814),
    "mobilenet_v2": (3_504_872, 0.301),
    "squeezenet1_1": (1_235_496, 0.349),
    "densenet121": (7_978_856, 2.834),
    "vit_b_16": (86_567_656, 17.564),
}


@pytest.fixture(scope="module", autouse=True)
def installed():
    from suites.common.torchvision_remedy import NotInstalled

    try:
        with torch.device("meta"):
            torchvision_model(name="alexnet")
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", PRINTED)
def test_a_network_of_torchvision_counts_as_its_documentation_prints(name):
    with torch.device("meta"):
        module, inputs = torchvision_model(name=name)
    params, gmacs = PRINTED[name]
    assert sum(p.numel() for p in module.parameters()) == params
    assert macs.count(module, inputs, {}).macs / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_clips_and_batches_are_inputs_of_their_own():
    with torch.device("meta"):
        _, (clip,) = torchvision_model(name="r3d_18", batch=2)
        _, (image,) = torchvision_model(name="inception_v3", resolution=320, batch=3)
        _, (plain,) = torchvision_model(name="inception_v3")
    assert clip.shape == (2, 3, 16, 112, 112) and image.shape == (3, 3, 320, 320) and plain.shape[-1] == 299


def test_names_are_answered_with_the_nearest_before_anything_is_imported():
    with pytest.raises(UsageError, match='torchvision has no model "resnet19"; did you mean "resnet1'):
        catalogue.load().model("torchvision:resnet19")
    assert catalogue.load().model("torchvision:resnet18").settings == {"name": "resnet18"}
    assert "torchvision:regnet_y_400mf" in catalogue.load().matching("torchvision:regnet_y_4*")


def test_a_segmentation_network_downloads_no_backbone():
    with torch.device("meta"):
        module, _ = torchvision_model(name="lraspp_mobilenet_v3_large")
    assert sum(p.numel() for p in module.parameters()) == 3_221_538  # as printed


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 4)

    def forward(self, x, *, scale):
        return self.layer(x) * scale


def test_a_saved_program_is_measured_with_the_inputs_of_its_trace(tmp_path):
    torch.manual_seed(0)
    net, x = Two().eval(), torch.randn(3, 8)
    file = tmp_path / "two.pt2"
    torch.export.save(torch.export.export(net, (x,), {"scale": torch.tensor(2.0)}), file)
    module, inputs = exported_model(name=str(file))
    assert torch.equal(inputs[0], x)
    torch.testing.assert_close(module.eval()(*inputs), net(x, scale=2.0))
    assert macs.count(module, inputs, {}).macs == 3 * 8 * 4
    assert catalogue.load().model(str(file)).path.endswith("exported_model")


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_program_whose_inputs_would_run_code_is_refused(tmp_path):
    net, x = Two().eval(), torch.randn(3, 8)
    file, bad, mark = tmp_path / "two.pt2", tmp_path / "bad.pt2", tmp_path / "mark"
    torch.export.save(torch.export.export(net, (x,), {"scale": torch.tensor(2.0)}), file)
    hostile = io.BytesIO()
    torch.save(Hostile(mark), hostile)
    with zipfile.ZipFile(file) as good, zipfile.ZipFile(bad, "w") as made:
        named = [name for name in good.namelist() if "sample_inputs" in name]
        assert named
        for name in good.namelist():
            made.writestr(name, hostile.getvalue() if name in named else good.read(name))
    with pytest.raises(UsageError, match="cannot be read as a program"):
        exported_model(name=str(bad))
    assert not mark.exists()


def test_a_file_that_is_no_program_is_told_with_how_to_save_one(tmp_path):
    file = tmp_path / "net.pt2"
    file.write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"torch\.export\.save"):
        exported_model(name=str(file))
