"""Dense, non-zero and nominal counts on layers whose numbers are on paper; the cost of a method; inputs one by one."""

import pytest
import torch
from torch import nn

from bench import costs
from bench.errors import UsageError
from bench.labels import labels_of
from bench.meters import macs, method_cost, nominal, over_inputs, stated, stated_work, three_counts
from bench.workloads.spread import percentile


class Two(nn.Module):
    """8 -> 4 -> 2 on batches of 3: 32 + 8 = 40 MACs a sample."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 4, bias=False)
        self.second = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            self.second.weight.fill_(1.0)

    def forward(self, x):
        return self.second(self.first(x))


X = torch.ones(3, 8)


def counted(module, x=X):
    return macs.count(module, (x,), second_count=False)


def values(readings):
    return {item.metric: item.value for item in readings}


def three(module, kernel, x=X, **rest):
    return values(three_counts.readings(counted(module, x), module, kernel, "forward", len(x), **rest))


# ------------------------------------------------------------------------------------------------ three counts


def test_masked_zeros_are_executed_in_full_and_only_the_nonzero_count_falls():
    module = Two()
    with torch.no_grad():
        module.first.weight[:, 2:] = 0.0  # 8 of 32 weights stay
    assert counted(module).macs == 3 * 40
    assert three(module, "mask") == {"macs_dense": 40, "macs_nonzero": 8 + 8}


def test_a_slim_network_has_the_same_count_three_times():
    assert three(Two(), "slim") == {"macs_dense": 40, "macs_nonzero": 40}


class Backward(nn.Module):
    """A 2 -> 4 layer on 3 samples and its whole backward: 8 MACs a sample forwards, for the input, and for the weight.

    A convolution's backward is one operator that makes both gradients; a linear layer's are two products.
    """

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        with torch.no_grad():
            layer.weight.fill_(1.0)
            layer.weight[:1] = 0.0  # a quarter

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.layer(x).square().sum(), [x, self.layer.weight])


@pytest.mark.parametrize(
    ("layer", "x"),
    [(nn.Linear(2, 4, bias=False), torch.ones(3, 2)), (nn.Conv2d(2, 4, 1, bias=False), torch.ones(3, 2, 1, 1))],
)
def test_the_gradient_of_a_weight_multiplies_no_weight_whose_zeros_could_be_seen(layer, x):
    assert three(Backward(layer), "mask", x) == {"macs_dense": 24, "macs_nonzero": 6 + 6 + 8}


class Stored(nn.Module):
    """A 4 x 8 weight in CSR with 6 stored values."""

    def __init__(self):
        super().__init__()
        dense = torch.zeros(4, 8)
        dense[0, :4] = 1.0
        dense[3, 6:] = 1.0
        self.register_buffer("weight", dense.to_sparse_csr())

    def forward(self, x):
        return (self.weight @ x.T).T


def test_a_csr_product_executes_what_it_stores_and_is_shown_beside_its_dense_size():
    module = Stored()
    assert counted(module).macs == 3 * 6
    assert three(module, "csr") == {"macs_dense": 32, "macs_nonzero": 6}


def test_the_products_of_a_method_are_in_neither_count():
    module = Two()
    module.first.charged_to = "method"
    assert three(module, "mask") == {"macs_dense": 8, "macs_nonzero": 8}


def test_without_kernel_and_declaration_there_are_no_such_counts():
    assert three(Two(), None) == {}


@pytest.mark.parametrize("kernel", ["gather", "runtime", None])
def test_what_the_trace_cannot_see_is_declared_or_unavailable_with_the_reason(kernel):
    module = Two()
    module.macs_nonzero = {"forward": 11}
    dense, nonzero = three_counts.readings(counted(module), module, kernel, "forward", 3)
    assert (nonzero.value, nonzero.method_note) == (11, "declared by the subject")
    assert dense.value is None and "module.macs_dense" in dense.method_note


def test_zeros_cannot_be_seen_on_the_meta_device_and_the_reason_says_so():
    with torch.device("meta"):
        module = Two()
    found = three_counts.readings(counted(module, X.to("meta")), module, "mask", "forward", 3)
    assert found[0].value == 40 and found[1].value is None and "meta" in found[1].method_note


# ------------------------------------------------------------------------------------------------ nominal bits


def test_nominal_bits_are_the_mean_over_parameters_and_the_rest_counts_as_stored():
    module = Two()
    module.first.nominal_bits = 4
    (found,) = nominal.bits(module)
    assert found.value == pytest.approx((32 * 4 + 8 * 32) / 40)


def test_a_declaration_holds_for_the_modules_inside():
    module = Two()
    module.nominal_bits, module.second.nominal_bits = 8, 2
    assert nominal.bits(module)[0].value == pytest.approx((32 * 8 + 8 * 2) / 40)
    assert nominal.bits(Two()) == []


def test_nominal_bit_operations_multiply_declared_bits_and_leave_undeclared_sides_as_executed():
    module = Two()
    module.first.nominal_bits, module.first.nominal_activation_bits = 4, 8
    module.second.nominal_bits = 2
    found = counted(module)
    assert found.bit_operations == 3 * 40 * 32 * 32
    (nominally,) = nominal.operations(found, module, "forward", 3)
    assert nominally.value == 32 * 4 * 8 + 8 * 2 * 32


class Scores(nn.Module):
    """x x^T: 3 x 3 x 8 products of activations with each other."""

    def forward(self, x):
        return x @ x.T


def test_products_without_a_weight_have_activation_bits_on_both_sides():
    module = Scores()
    module.nominal_bits, module.nominal_activation_bits = 4, 8
    (found,) = nominal.operations(counted(module), module, "forward", 1)
    assert found.value == 72 * 8 * 8


def test_declared_bit_operations_win():
    module = Two()
    module.nominal_bit_operations = 123.0
    assert values(nominal.operations(counted(module), module, "forward", 3)) == {"nominal_bit_operations": 123.0}
    assert nominal.operations(counted(Two()), Two(), "forward", 3) == []


# ------------------------------------------------------------------------------------------------ cost of the method


def test_passes_samples_and_seconds_of_a_method_are_added_up_over_its_blocks():
    module = Two()
    with costs.recorded(module) as cost:
        for _ in range(3):
            module(X).sum().backward()
            cost.samples += len(X)
    with costs.recorded(module, cost), torch.no_grad():
        module(X)
    module(X)  # outside: not the method's
    told = cost.as_dict()
    assert (told["forwards"], told["backwards"], told["samples"]) == (4, 3, 9)
    assert told["seconds"] > 0 and not module._forward_hooks


def test_the_peak_of_a_method_is_the_growth_of_the_resident_size():
    module, size = Two(), 64 * 2**20
    with costs.recorded(module) as cost:
        held = torch.ones(size // 4)
        del held
    if cost.peak_bytes is None:
        pytest.skip("the kernel does not let a process set its peak back")
    assert 0.9 * size < cost.peak_bytes < 1.5 * size


def test_an_error_in_the_method_leaves_no_hook():
    module = Two()
    with pytest.raises(ZeroDivisionError), costs.recorded(module):
        raise ZeroDivisionError
    assert not module._forward_hooks


def test_the_cost_becomes_readings_and_what_is_not_told_is_unavailable():
    module = Two()
    assert method_cost.readings(module) == []
    module.method_cost = {"seconds": 2.5, "forwards": 7, "samples": 21}
    found = {item.metric: item for item in method_cost.readings(module)}
    assert found["method_seconds"].value == 2.5 and found["method_forwards"].value == 7
    assert found["method_samples"].value == 21 and found["method_backwards"].value is None
    assert found["method_peak_bytes"].method_note == method_cost.NOT_TOLD
    assert "method_macs_run" not in found
    module.method_cost = {"seconds": 2.5, "macs": 12.0}
    assert {item.metric: item.value for item in method_cost.readings(module)}["method_macs_run"] == 12.0


@pytest.mark.parametrize(
    ("cost", "words"),
    [({"second": 1.0}, "seconds"), ({"seconds": -1.0}, "from 0 on"), ({"forwards": True}, "from 0 on")],
)
def test_a_cost_that_is_none_is_refused(cost, words):
    module = Two()
    module.method_cost = cost
    with pytest.raises(UsageError, match=words):
        method_cost.readings(module)


# ------------------------------------------------------------------------------------------------ inputs one by one


class Gated(nn.Module):
    """Leaves after the first layer (32 MACs) where the input's mean is below 1, else goes on (40)."""

    def __init__(self):
        super().__init__()
        self.net = Two()

    def forward(self, x):
        hidden = self.net.first(x)
        return hidden if float(x.mean()) < 1 else self.net.second(hidden)


class Clock:
    """Ten milliseconds per sum of the last input, in nanoseconds."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


def test_macs_and_times_over_inputs_have_the_hand_made_mean_percentiles_and_curves():
    clock, gated = Clock(), Gated()
    inputs = [(torch.full((1, 8), 0.5 if place < 3 else 2.0),) for place in range(4)]

    def timed(x):
        clock.now += 1_000_000 * (1 if float(x.mean()) < 1 else 3)

    found = over_inputs.measure(gated, inputs, timed=timed, repeats=3, clock=clock)
    got = values(found.readings)
    assert got["macs_mean"] == (3 * 32 + 40) / 4
    assert (got["macs_p50"], got["macs_p90"], got["macs_p95"], got["macs_min"], got["macs_max"]) == (32, 40, 40, 32, 40)
    assert got["input_ms"] == pytest.approx(1.5)
    assert (got["input_p50_ms"], got["input_p90_ms"]) == (1.0, 3.0)
    by_metric = {curve.metric: curve for curve in found.curves}
    assert list(by_metric["macs_mean"].values) == [32, 32, 32, 40]
    assert list(by_metric["input_ms"].values) == [1.0, 1.0, 1.0, 3.0]
    assert by_metric["input_ms"].index == "input"


def test_a_path_is_traced_once_where_products_follow_from_it(monkeypatch):
    class ByPath(Gated):
        costs_by_path = True

        def forward(self, x):
            self.paths = (x.mean(dim=1) >= 1).long()
            return super().forward(x)

    traced = []
    count = macs.count_over
    monkeypatch.setattr(macs, "count_over", lambda *given, **how: traced.append(1) or count(*given, **how))
    inputs = [(torch.full((1, 8), value),) for value in (0.5, 2.0, 0.5, 2.0, 0.5)]
    found = values(over_inputs.measure(ByPath(), inputs, repeats=1).readings)
    assert found["macs_mean"] == (3 * 32 + 2 * 40) / 5 and len(traced) == 2


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.25, 1), (0.9, 4), (0.75, 3), (1.0, 4)])
def test_a_percentile_is_the_smallest_value_that_this_share_does_not_exceed(share, value):
    assert percentile([4, 2, 3, 1], share) == value


# ------------------------------------------------------------------------------------------------ labels


def test_labels_have_defaults_and_an_unknown_one_is_refused_with_the_nearest():
    module = Two()
    assert labels_of(module) == {"execution": "real", "kernel": None}
    module.execution, module.kernel = "simulated", "mask"
    assert labels_of(module) == {"execution": "simulated", "kernel": "mask"}
    module.kernel = "masks"
    with pytest.raises(UsageError, match='did you mean "mask"'):
        labels_of(module)


def test_numbers_that_a_subject_states_keep_their_convention():
    module = Two()
    assert stated.readings(module) == []
    module.engine_peak_bytes, module.kept_bytes = 1024.5, 7
    found = {item.metric: item for item in stated.readings(module)}
    assert (found["engine_peak_bytes"].value, found["engine_peak_bytes"].provenance) == (1024.5, "modelled")
    assert (found["kept_bytes"].value, found["kept_bytes"].provenance) == (7, "counted")
    module.weight_sqnr_db, module.activation_sqnr_db = float("inf"), -3.5  # without noise there is no ratio to it
    found = {item.metric: item for item in stated.readings(module)}
    assert "weight_sqnr_db" not in found and found["activation_sqnr_db"].value == -3.5


@pytest.mark.parametrize("value", [-1, True, float("nan"), float("inf"), "3"])
def test_stated_bytes_that_are_none_are_refused(value):
    module = Two()
    module.kept_bytes = value
    with pytest.raises(UsageError, match="not a number of B from 0 on"):
        stated.readings(module)


def test_stated_operations_have_the_energy_that_the_table_makes_of_them():
    module = Two()
    assert stated_work.readings(module) == []
    module.stated_work = {"multiplications": 1_000_000, "additions": 2_000_000, "note": "by hand"}
    found = {item.metric: item for item in stated_work.readings(module)}
    assert (found["multiplications"].value, found["multiplications"].provenance) == (1e6, "counted")
    assert found["modelled_energy_j"].value == pytest.approx(3.7e-6 + 1.8e-6)  # 3.7 and 0.9 pJ each
    assert found["modelled_energy_j"].provenance == "modelled" and "45 nm" in found["modelled_energy_j"].method_note
    for wrong in ({"multiplications": 3}, {"multiplications": 1, "additions": -1}, {"products": 1}):
        module.stated_work = wrong
        with pytest.raises(UsageError, match="stated_work"):
            stated_work.readings(module)
