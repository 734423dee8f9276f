"""ExecuTorch with XNNPACK against its own runtime called by hand; where it is installed."""

import pytest
import torch

from bench import backends
from bench.backends.backend import Conditions, ConversionFailed
from bench.backends.check import require_agreement
from tests.backends import networks
from tests.backends.runtimes import bytes_on_disk, make, weight_bytes

pytest.importorskip("executorch")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make("executorch", networks.convnet, tmp_path_factory.mktemp("et") / "convnet")


def test_answers_are_those_of_the_runtime_by_hand_and_agree_with_eager(made):
    from executorch.runtime import Runtime

    (file,) = made.files.iterdir()
    by_hand = Runtime.get().load_program(file).load_method("forward").execute(list(made.args))[0]
    assert torch.equal(made.through(), by_hand)
    require_agreement("executorch", made.eager(), made.through(), "fp32")


def test_the_artefact_is_as_large_as_the_program_and_holds_the_weights(made):
    assert made.converted.artefact_bytes == bytes_on_disk(made.files) > 0.9 * weight_bytes(made.module)


def test_the_pool_has_the_cases_threads(made):
    from executorch.extension.pybindings import portable_lib

    for threads in (2, 1):
        conditions = Conditions(threads=threads, folder=made.files.parent)
        held = backends.module_of("executorch").convert(made.module, made.args, {}, conditions)
        assert held.threads == portable_lib._threadpool_get_thread_count() == threads


def test_the_record_says_what_runs_in_xnnpack_and_what_does_not(made):
    class Summing(torch.nn.Module):
        def forward(self, x):
            return torch.cumsum(torch.relu(x), 1)

    assert made.converted.details["parts_in_xnnpack"] == 1 and made.converted.details["operators_outside"] == {}
    other = backends.module_of("executorch").convert(Summing().eval(), (torch.ones(2, 3),), {}, Conditions())
    assert other.details["operators_outside"] == {"aten.cumsum": 1}


def test_an_operator_without_a_kernel_is_named():
    with pytest.raises(ConversionFailed, match="operator waterline_tests::odd"):
        backends.module_of("executorch").convert(networks.Odd().eval(), (torch.ones(3),), {}, Conditions())


@pytest.mark.slow
def test_a_convolutional_network_and_a_transformer_run_end_to_end_beside_eager(tmp_path):
    from bench.store.record_parts import reading_of
    from tests.sweeping import QUICK, configuration, sweep

    block = {
        "models": ["tests.backends.networks:convnet", "tests.backends.networks:small_vit"], "batches": [2],
        "backends": ["eager", "executorch"], "against": {"backend": "eager"},
    }  # fmt: skip
    suite = {"name": "runtimes", "grids": {"default": [block]}}
    done = sweep(configuration(tmp_path, [], suite=suite, protocol=QUICK))
    rows = {(row["case"]["model"].partition(":")[2], row["case"]["backend"]): row for row in done.records}
    assert len(rows) == 4 and not done.failed, [row["error"] for row in done.failed]
    for model in ("convnet", "small_vit"):
        eager, own = rows[model, "eager"], rows[model, "executorch"]
        assert reading_of(own, "latency_ms")["value"] > 0 and reading_of(own, "speedup")["value"] > 0
        assert reading_of(own, "macs")["value"] == reading_of(eager, "macs")["value"]
        assert reading_of(own, "artefact_bytes")["value"] > 0.9 * reading_of(eager, "size_bytes")["value"]
        assert reading_of(own, "conversion_ms")["value"] > 0
        assert own["conversion"]["parts_in_xnnpack"] >= 1 and own["conversion"]["agreement"]["relative_error"] < 1e-4
