"""Every form of the scan gives what the definition gives, step by step, and what it is counted for."""

import math

import pytest
import torch

from bench.errors import UsageError
from bench.meters import macs
from suites.common.scan_forms import FORMS, Scan, Selective, parse_form
from suites.common.torchvision_remedy import import_beside_torchvision
from suites.ssm.mamba import MambaMixer


def inputs(scans=2, batch=3, length=13, inner=4, state=5):
    generator = torch.Generator().manual_seed(0)
    x, raw = (torch.randn(scans, batch, length, inner, generator=generator, dtype=torch.float64) for _ in range(2))
    b, c = (torch.randn(scans, batch, length, state, generator=generator, dtype=torch.float64) for _ in range(2))
    a = -torch.rand(scans, inner, state, generator=generator, dtype=torch.float64) - 0.1
    return x, torch.nn.functional.softplus(raw), a, b, c


def by_definition(x, delta, a, b, c):
    y = torch.zeros_like(x)
    for k in range(x.shape[0]):
        for n in range(x.shape[1]):
            h = torch.zeros(x.shape[3], a.shape[2], dtype=x.dtype)
            for t in range(x.shape[2]):
                for d in range(x.shape[3]):
                    for s in range(a.shape[2]):
                        h[d, s] = math.exp(delta[k, n, t, d] * a[k, d, s]) * h[d, s]
                        h[d, s] += delta[k, n, t, d] * b[k, n, t, s] * x[k, n, t, d]
                    y[k, n, t, d] = sum(c[k, n, t, s] * h[d, s] for s in range(a.shape[2]))
    return y


def test_the_sequential_form_is_the_definition():
    given = inputs(scans=2, batch=1, length=5, inner=2, state=3)
    assert torch.allclose(Scan("sequential")(*given)[0], by_definition(*given), atol=1e-12)


@pytest.mark.parametrize("form", ["parallel", "chunk=1", "chunk=4", "chunk=5", "chunk=13", "chunk=20", "chunk"])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_all_forms_agree_at_every_step_and_in_the_state_that_they_leave(form, length):
    given = inputs(length=length)
    wanted, state = Scan("sequential")(*given)
    found, kept = Scan(form)(*given)
    assert torch.allclose(found, wanted, atol=1e-12) and torch.allclose(kept, state, atol=1e-12)


@pytest.mark.parametrize("form", ["sequential", "parallel", "chunk=4"])
def test_a_sequence_in_two_parts_is_the_whole_one_where_the_state_is_carried(form):
    x, delta, a, b, c = inputs()
    first, state = Scan(form)(x[:, :, :5], delta[:, :, :5], a, b[:, :, :5], c[:, :, :5])
    second, _ = Scan(form)(x[:, :, 5:], delta[:, :, 5:], a, b[:, :, 5:], c[:, :, 5:], state)
    assert torch.allclose(torch.cat([first, second], 2), Scan("sequential")(x, delta, a, b, c)[0], atol=1e-12)


def test_gradients_agree_and_chunks_compute_theirs_again():
    gradients = []
    for form in ("sequential", "parallel", "chunk=5"):
        given = [value.clone().requires_grad_() for value in inputs()]
        scan = Scan(form).train()
        scan(*given)[0].square().sum().backward()
        gradients.append([value.grad for value in given])
    for found in gradients[1:]:
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, gradients[0], strict=True))


def test_chunks_keep_less_for_the_backward_than_the_whole_sequence():
    def saved(form):
        total = 0

        def keep(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        given = [value.clone().requires_grad_() for value in inputs(length=64)]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            Scan(form).train()(*given)
        return total

    assert saved("chunk=8") < saved("parallel") / 4


def test_a_constant_input_gives_a_geometric_series():
    decay, drive, length = 0.9, 0.3, 20
    one = torch.ones(1, 1, length, 1, dtype=torch.float64)
    # delta = 1, A = log a, B = drive, C = 1: h_t = drive (1 - a^t) / (1 - a)
    a = torch.full((1, 1, 1), math.log(decay), dtype=torch.float64)
    wanted = drive * (1 - decay ** torch.arange(1, length + 1, dtype=torch.float64)) / (1 - decay)
    for form in ("sequential", "parallel", "chunk=7"):
        found = Scan(form)(one, one, a, drive * one, one)[0]
        assert torch.allclose(found.flatten(), wanted, atol=1e-12)


def test_each_state_is_one_product_in_every_form_and_none_where_the_recurrence_is_taken_away():
    given = tuple(value.to("meta") for value in inputs(scans=2, batch=1, length=13, inner=4, state=5))
    counts = {form: macs.count(Scan(form), given, {}, second_count=False).macs for form in
              ("sequential", "parallel", "chunk=4", "identity")}  # fmt: skip
    assert counts == {"sequential": 520, "parallel": 520, "chunk=4": 520, "identity": 0}
    assert 520 == 2 * 13 * 4 * 5


def test_the_control_keeps_the_projections_and_gives_its_input_back():
    module, x = Selective(6, 3, 2, scans=4, form="identity"), torch.randn(4, 1, 7, 6)
    assert torch.equal(module(x), x)
    counted = macs.count(module, (x,), {}, second_count=False)
    assert counted.macs == 4 * 7 * 6 * (2 + 2 * 3 + 2)


def test_half_precision_scans_in_single():
    module = Selective(6, 3, 2, scans=1)
    kept = []
    module.scan.register_forward_hook(lambda _, __, output: kept.append(output[0].dtype))
    assert module.to(torch.bfloat16)(torch.randn(1, 2, 9, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert kept == [torch.float32]


def test_steps_start_between_a_thousandth_and_a_tenth_and_rates_at_one_to_n():
    module = Selective(64, 4, 4, scans=2)
    started = torch.nn.functional.softplus(module.dt_bias)
    assert 0.00099 < started.min() < 0.003 and 0.05 < started.max() < 0.1001
    assert torch.allclose(-torch.exp(module.A_log)[1, 7], -torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert module.dt_proj.abs().max() <= 4**-0.5 and torch.equal(module.skip, torch.ones(2, 64))


@pytest.mark.parametrize("scan", ["fused", "chunk=0", "chunk=-1", "chunk=x", "parallel=3", ""])
def test_forms_that_do_not_exist_are_refused(scan):
    with pytest.raises(UsageError):
        parse_form(scan)


def test_forms_have_the_names_that_people_type():
    assert FORMS == ("sequential", "parallel", "chunk", "mamba_ssm", "identity")
    assert parse_form("chunk=7") == ("chunk", 7) and parse_form("parallel") == ("parallel", 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_the_fused_kernel_is_unsupported_without_a_gpu():
    with pytest.raises(NotImplementedError, match="no GPU"):
        Scan("mamba_ssm")


@pytest.mark.slow
def test_the_mixer_of_transformers_is_a_second_opinion():
    pytest.importorskip("transformers")
    modeling = import_beside_torchvision("transformers.models.mamba.modeling_mamba")
    configuration = modeling.MambaConfig(
        hidden_size=32, state_size=4, conv_kernel=4, expand=2, time_step_rank=2, use_conv_bias=True, use_bias=False,
        num_hidden_layers=1, vocab_size=8, use_mambapy=False,
    )  # fmt: skip
    ours, theirs = MambaMixer(32, 4, "parallel", 4), modeling.MambaMixer(configuration, 0)
    with torch.no_grad():
        theirs.in_proj.weight.copy_(ours.enter.weight)
        theirs.conv1d.load_state_dict(ours.filter.state_dict())
        theirs.x_proj.weight.copy_(ours.selective.x_proj[0])
        theirs.dt_proj.weight.copy_(ours.selective.dt_proj[0])
        theirs.dt_proj.bias.copy_(ours.selective.dt_bias[0])
        theirs.A_log.copy_(ours.selective.A_log[0])
        theirs.D.copy_(ours.selective.skip[0])
        theirs.out_proj.weight.copy_(ours.leave.weight)
        x = torch.randn(2, 11, 32)
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
