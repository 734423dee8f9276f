"""ONNX Runtime against sessions written by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import backends
from bench.backends.backend import Conditions, ConversionFailed
from bench.backends.check import require_agreement
from tests.backends import networks
from tests.backends.runtimes import bytes_on_disk, make, threads_of_this_process, weight_bytes

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

SMALL = {"linear": networks.linear, "convnet": networks.convnet, "vit": networks.small_vit}
WHOLE = [
    pytest.param(networks.resnet18, marks=pytest.mark.slow),
    pytest.param(networks.timm_vit, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    cache = {}

    def of(name):
        if name not in cache:
            cache[name] = make("onnxruntime", SMALL[name], tmp_path_factory.mktemp("ort") / name)
        return cache[name]

    return of


def by_hand(file, args):
    """The plain loop that a user would write: a session, NumPy in, NumPy out."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feed = {item.name: value.numpy() for item, value in zip(session.get_inputs(), args, strict=True)}
    return session.run(None, feed)


def exported_by_hand(module, args, file):
    torch.onnx.export(module, args, dynamo=True, verbose=False).save(str(file))
    return by_hand(file, args)


@pytest.mark.parametrize("name", SMALL)
def test_answers_are_those_of_a_session_by_hand_and_agree_with_eager(made, name):
    found = made(name)
    (file,) = found.files.iterdir()
    assert np.array_equal(found.through().numpy(), by_hand(file, found.args)[0])
    require_agreement("onnxruntime", found.eager(), found.through(), "fp32")


@pytest.mark.parametrize("network", [networks.convnet, *WHOLE])
def test_answers_are_those_of_an_export_and_a_session_by_hand(network, tmp_path):
    found = make("onnxruntime", network, tmp_path / "ours")
    theirs = exported_by_hand(found.module, found.args, tmp_path / "theirs.onnx")[0]
    require_agreement("by hand", torch.from_numpy(theirs), found.through(), "fp32")
    ours_and_theirs = found.converted.artefact_bytes - (tmp_path / "theirs.onnx").stat().st_size
    assert abs(ours_and_theirs) < 0.01 * weight_bytes(found.module) + 4096  # names of the graph's values differ
    require_agreement("onnxruntime", found.eager(), found.through(), "fp32")


@pytest.mark.parametrize("name", SMALL)
def test_the_artefact_is_as_large_as_the_file_and_holds_the_weights(made, name):
    found = made(name)
    assert found.converted.artefact_bytes == bytes_on_disk(found.files) > weight_bytes(found.module)
    assert found.converted.details["files"] == {"model.onnx": found.converted.artefact_bytes}


def test_the_record_says_providers_operators_versions_and_type(made):
    said = made("convnet").converted
    assert said.details["providers"] == ["CPUExecutionProvider"] and said.details["operators"]["Conv"] == 1
    assert said.versions["onnxruntime"] == ort.__version__ and said.precision == "fp32"
    assert (said.details["inter_op_threads"], said.details["execution_mode"]) == (1, "sequential")


def test_the_session_has_the_cases_threads_in_the_system_too(made):
    found = made("convnet")
    conditions = Conditions(threads=2, folder=found.files.parent)
    before = threads_of_this_process()
    held = backends.module_of("onnxruntime").convert(found.module, found.args, {}, conditions)
    assert threads_of_this_process() == before + 1  # the calling thread is one of the two
    assert held.threads == held.details["intra_op_threads"] == 2


def test_quality_runs_at_its_own_batch_size(made):
    from bench.meters import quality
    from tests.meters.test_quality import Given

    found = made("convnet")
    torch.manual_seed(1)
    images = torch.randn(7, 3, 16, 16)
    labels = found.module(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5
    batches = [(images[:5], labels[:5]), (images[5:], labels[5:])]
    assert quality.measure(found.converted.module, Given(batches)).per_sample == "0111111"


def test_double_precision_is_double_precision(tmp_path):
    def wide():
        module, args = networks.linear()
        return module.double(), tuple(value.double() for value in args)

    found = make("onnxruntime", wide, tmp_path / "a", dtype="fp64")
    assert found.converted.precision == "fp64" and found.through().dtype == torch.float64
    assert require_agreement("onnxruntime", found.eager(), found.through(), "fp64").relative_error < 1e-14


def test_an_operator_without_an_onnx_form_is_named():
    with pytest.raises(
        ConversionFailed, match=r"operator waterline_tests\.odd; conversion said .*No ONNX function found"
    ):
        backends.module_of("onnxruntime").convert(networks.Odd().eval(), (torch.ones(3),), {}, Conditions())


def test_an_operator_without_a_kernel_in_the_type_is_named():
    def wide():
        module, args = networks.convnet()
        return module.double(), tuple(value.double() for value in args)

    module, args = wide()
    with pytest.raises(ConversionFailed, match=r"operator Conv; loading said"):
        backends.module_of("onnxruntime").convert(module, args, {}, Conditions(dtype="fp64"))


def test_bound_tensors_give_what_the_plain_call_gives(made):
    """The way of a GPU, on the CPU's provider: the same calls with another word for the device."""
    from bench.backends.onnxruntime import on_device

    found = made("vit")
    session = ort.InferenceSession(str(next(found.files.iterdir())), providers=["CPUExecutionProvider"])
    first = on_device(session, "cpu", 0)(found.args)[0]
    second = on_device(session, "cpu", 0)([value + 1 for value in found.args])[0]
    assert torch.allclose(first, found.through(), atol=1e-6) and not torch.allclose(first, second)


class Gpu:
    """As much of ONNX Runtime as a session on a GPU shows; it notes what it was asked for."""

    def __init__(self, monkeypatch, providers):
        self.asked, self.entries = None, {}
        monkeypatch.setattr(ort, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])
        monkeypatch.setattr(ort, "InferenceSession", self.session)
        monkeypatch.setattr(torch, "device", lambda *_: "meta")

    def session(self, file, options, providers):
        self.asked = providers
        item = SimpleNamespace(name="x", type="tensor(float)", shape=[1, 2])
        name, own = providers[0]
        return SimpleNamespace(
            get_providers=lambda: [name, "CPUExecutionProvider"],
            get_session_options=lambda: options,
            get_inputs=lambda: [item],
            get_outputs=lambda: [item],
            get_provider_options=lambda: {name: own},
        )


@pytest.mark.parametrize(("dtype", "tf32"), [("fp32", "0"), ("tf32", "1")])
def test_on_a_gpu_tf32_is_taken_where_the_case_asks_for_it_and_nowhere_else(monkeypatch, dtype, tf32):
    from bench.backends.onnxruntime import load

    gpu = Gpu(monkeypatch, ["CUDAExecutionProvider"])
    program = load(Path("nowhere"), [], Conditions(device="cuda:1", dtype=dtype))
    assert gpu.asked == [("CUDAExecutionProvider", {"device_id": 1, "use_tf32": tf32})]
    assert program.precision == dtype and program.threads is None


def test_a_build_without_the_gpus_provider_says_which_package_has_it():
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this build has it")
    assert "pip install onnxruntime-gpu" in backends.why_not("onnxruntime", "cuda", "fp32")
