"""Cohorts: each entry in a span of its own, warm or cold, in a seeded order; stages hold what they say."""

from contextlib import contextmanager

import pytest
import torch

from suites.predict import cohort, cohorts, networks
from suites.predict.cohorts import dense_networks, fbnet_rows, mobile_rows


def spans_of(module, batch=1):
    seen = []

    @contextmanager
    def span(name):
        seen.append(name)
        yield

    given = module.example_inputs(batch)
    with torch.inference_mode():
        answer, whole = module.call_in_spans(span, *given), module(*given)
    assert torch.equal(answer, whole[-1]) and len(whole) == len(given)
    return seen


def test_every_entry_runs_once_in_a_span_of_its_name():
    module = dense_networks(exemplars=True)
    assert spans_of(module) == list(module.entries) and set(module.entries) == set(networks.EXEMPLARS)
    assert list(module.entries) != sorted(module.entries)


def test_warm_rows_run_twice_and_cold_ones_after_the_caches_are_written_over(monkeypatch):
    monkeypatch.setattr(cohort, "last_cache_bytes", lambda: 4096)
    cohort._buffer.cache_clear()
    for inputs, calls in (("warm", 2), ("cold", 1)):
        module = dense_networks(count=2, inputs=inputs)
        runs, written = [], float(cohort._buffer()[0])
        for entry in module.entries.values():
            entry.register_forward_hook(lambda *_, seen=runs: seen.append(1))
        module.call_in_spans(cohort_span, *module.example_inputs(1))
        assert len(runs) == 2 * calls
        assert float(cohort._buffer()[0]) - written == (2 if inputs == "cold" else 0)
    cohort._buffer.cache_clear()


@contextmanager
def cohort_span(name):
    yield


def test_the_last_cache_is_as_large_as_the_kernel_says(tmp_path):
    file = tmp_path / "size"
    file.write_text("32768K\n")
    assert cohort.last_cache_bytes(file) == 32 * 2**20
    file.write_text("odd")
    assert cohort.last_cache_bytes(file) == cohort.last_cache_bytes(tmp_path / "none") == cohort.UNKNOWN_CACHE


def test_stages_hold_all_of_the_table_between_them():
    rows = {key for stage in range(1, 9) for key in cohorts.fbnet_modules(stage, 64)}
    assert rows == {row.key for row in networks.table_rows(64).values() if row is not None}
    assert set(fbnet_rows(stage=0, resolution=64).entries) == {
        row.key for plan in "abc" for row in networks.fbnet_network(f"fbnet_{plan}", 64).rows[:: len(
            networks.fbnet_network(f"fbnet_{plan}", 64).rows) - 1]
    }  # fmt: skip
    assert set(mobile_rows(width=50, resolution=64).entries) == {row.key for row in networks.mobilenetv2(50, 64).rows}


def test_rows_one_after_the_other_are_their_network():
    network = cohorts._fbnet("fbnet_a", 64)
    x = torch.randn(1, 3, 64, 64)
    described = networks.fbnet_network("fbnet_a", 64).rows
    with torch.inference_mode():
        assert len(network) - 1 == len(described)  # the head is two modules
        y = x
        for row, module in zip(described, network, strict=False):
            if row.key.startswith("head"):
                break
            inputs, side = (3, 64) if row.key.startswith("stem") else map(int, row.key.split("_")[0::3][:2])
            assert y.shape[1] == inputs and y.shape[-1] == side
            y = module(y)


def test_folded_rows_give_the_same_with_fewer_operators():
    plain, folded = (fbnet_rows(stage=7, resolution=64, form=form) for form in ("plain", "folded"))
    name = next(iter(plain.entries))
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in each.entries[name].modules()) for each in (plain, folded)]
    assert norms[0] > 0 and norms[1] == 0
    given = plain.example_inputs(1)
    with torch.inference_mode():
        assert plain(*given)[0].shape == folded(*given)[0].shape


def test_rows_with_channels_last_get_and_give_maps_of_that_layout_and_the_same_values():
    plain, last = (fbnet_rows(stage=7, resolution=64, form=form) for form in ("plain", "channels_last"))
    last.load_state_dict(plain.state_dict())
    given = last.example_inputs(1)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in given)
    with torch.inference_mode():
        for a, b in zip(plain(*(x.contiguous() for x in given)), last(*given), strict=True):
            assert b.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_settings_that_make_no_cohort_are_refused():
    for build in (
        lambda: fbnet_rows(stage=9),
        lambda: dense_networks(count=0),
        lambda: cohorts.mobile_networks(widths=[]),
    ):
        with pytest.raises(ValueError):
            build()
