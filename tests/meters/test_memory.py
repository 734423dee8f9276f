"""Every view of memory shows what a module is known to allocate."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.meters import memory
from bench.meters.allocator import AllocatorConflict
from bench.meters.memory import ForwardError, activation_peak_meta, measure, profiled_growth

MIB = 2**20


def chain(channels: list[int], size: int) -> tuple[nn.Sequential, torch.Tensor]:
    """Convolutions of 3x3 without bias that keep the image's size, and an input."""
    layers = [nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in pairwise(channels)]
    return nn.Sequential(*layers).eval(), torch.randn(1, channels[0], size, size)


def chain_peak(channels: list[int], size: int) -> tuple[int, int]:
    """Weights and largest live activations by hand: the input stays, a layer's input until its output is there."""
    maps = [4 * c * size * size for c in channels]
    weights = sum(4 * 9 * i * o for i, o in pairwise(channels))
    pairs = [(maps[i] if i else 0) + maps[i + 1] for i in range(len(maps) - 1)]
    return weights, maps[0] + max(pairs)


def test_a_chain_of_convolutions_peaks_at_the_closed_form():
    net, x = chain([3, 16, 48, 8], 32)
    found = measure(net, (x,))
    weights = 4 * 9 * (3 * 16 + 16 * 48 + 48 * 8)
    assert found.split == {
        "weights": weights,
        "buffers": 0,
        "inputs": 4 * 3 * 1024,
        "activations": 4 * (16 + 48) * 1024,
        "temporaries": 0,
    }
    assert found.peak_bytes == weights + 4 * (3 + 16 + 48) * 1024
    assert found.peak_activation_bytes == 4 * (3 + 16 + 48) * 1024
    assert found.peak_at == ("aten.convolution.default", "1")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 24), min_size=2, max_size=6), st.integers(1, 20))
def test_random_chains_peak_at_the_closed_form_on_any_device(channels, size):
    net, x = chain(channels, size)
    weights, rest = chain_peak(channels, size)
    with torch.no_grad():
        resident, known = memory.resident_by_category(memory.inventory(net), (x,))
        assert memory.live.record(net, (x,), {}, known).peak(resident).total == weights + rest
    with torch.device("meta"):
        absent = chain(channels, size)[0]
    assert activation_peak_meta(absent, (x,)).peak_bytes == weights + rest


def test_the_peak_is_the_same_every_time_and_in_inference_mode():
    net = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    x = torch.randn(2, 16, 32)
    first = measure(net, (x,))
    assert first.peak_bytes == measure(net, (x,)).peak_bytes
    with torch.inference_mode():
        assert measure(net, (x,)).peak_bytes == first.peak_bytes


class Hungry(nn.Module):
    """Holds a buffer of 1 MiB, keeps 4 MiB inside and gives 2 MiB back."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(MIB // 4))

    def forward(self, x):
        scratch = torch.zeros(MIB)
        result = torch.zeros(MIB // 2)
        return result + scratch.sum() + x


def test_temporaries_stay_inside_and_activations_leave():
    found = measure(Hungry(), (torch.zeros(1),))
    assert found.split["buffers"] == MIB
    assert found.split["inputs"] == 4
    # scratch, result and one of the two sums of results are alive together; the last sum leaves the module
    assert found.split["temporaries"] == pytest.approx(8 * MIB, rel=1e-4)
    assert found.split["activations"] == 2 * MIB


def test_views_and_in_place_work_take_no_memory():
    class Views(nn.Module):
        def forward(self, x):
            return x.view(-1)[2:].transpose(0, 0).add_(1).relu_()

    assert measure(Views(), (torch.zeros(4, 4),)).peak_bytes == 64


def test_grown_storages_are_followed():
    class Grows(nn.Module):
        def forward(self, x):
            y = torch.empty(10)
            y.resize_(1000)
            return y

    assert measure(Grows(), (torch.zeros(1),)).peak_bytes == 4004


def test_shared_and_packed_weights_count_once():
    net = nn.Linear(256, 256, bias=False)
    twice = nn.Sequential(net, net)
    x = torch.zeros(1, 256)
    assert measure(twice, (x,)).split["weights"] == 4 * 256 * 256
    packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(256, 256, bias=False)))
    assert measure(packed, (x,)).split["weights"] == 256 * 256


def test_quantised_subclasses_show_what_they_unpack():
    torchao = pytest.importorskip("torchao.quantization")
    net = nn.Sequential(nn.Linear(256, 256, bias=False))
    torchao.quantize_(net, torchao.Int8WeightOnlyConfig())
    found = measure(net, (torch.zeros(1, 256),))
    assert 256 * 256 < found.split["weights"] < 1.1 * 256 * 256
    assert found.peak_activation_bytes >= 4 * 256 * 256  # the weights as they are multiplied


def test_keyword_inputs_and_compiled_modules_are_followed():
    net, x = chain([3, 8], 8)
    compiled: Any = torch.compile(net, backend="eager")
    found = measure(compiled, (), {"input": x})
    assert found.peak_bytes == sum(chain_peak([3, 8], 8))
    assert "eager graph" in found.method_note


def test_scripted_modules_are_followed():
    net, x = chain([3, 16, 8], 16)
    scripted: Any = torch.jit.script(net)
    frozen: Any = torch.jit.freeze(scripted)
    assert measure(scripted, (x,)).split["weights"] == chain_peak([3, 16, 8], 16)[0]
    assert measure(frozen, (x,)).split["weights"] == chain_peak([3, 16, 8], 16)[0]


def test_bytes_inside_kernels_are_flagged():
    plain = measure(*_tiny())
    inside = replace(plain, allocator_bytes=2 * plain.peak_bytes)
    assert [flag["code"] for flag in inside.flags] == ["kernel_buffers"]
    assert "100 % more" in inside.as_dict()["flags"][0]["text"]
    assert replace(plain, allocator_bytes=None).flags == []


def test_following_a_forward_leaves_no_trace():
    call, net = nn.Module.__call__, nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        measure(net, (torch.zeros(1, 3),))
    assert nn.Module.__call__ is call
    assert not net._forward_hooks


# --- the allocator and the process ---------------------------------------------------------------------------------


def test_the_profiler_sees_a_known_allocation():
    def run():
        keep = torch.zeros(5 * MIB // 4)
        return keep.sum()

    assert profiled_growth(run) == pytest.approx(5 * MIB, abs=4096)


def test_the_allocators_peak_is_at_least_that_of_the_tensors():
    net, x = chain([3, 32, 32], 64)
    found = measure(net, (x,))
    assert found.allocator_bytes is not None
    assert found.peak_bytes <= found.allocator_bytes < 10 * found.peak_bytes


def test_without_pinned_thresholds_the_resident_peak_is_unavailable():
    rows = {row.metric: row for row in measure(*_tiny()).readings()}
    assert rows["peak_resident_bytes"].provenance == "unavailable"
    assert "pin" in rows["peak_resident_bytes"].method_note
    assert rows["peak_reserved_bytes"].value is None
    assert rows["peak_memory_bytes"].provenance == "measured"


def _tiny() -> tuple[nn.Module, tuple[torch.Tensor]]:
    return nn.Linear(4, 4), (torch.zeros(1, 4),)


RESIDENT = """
import json, torch
from bench.meters import memory
state = memory.pin_allocator_for_memory()
size = 64 * 2**20
found = memory.resident_peak(lambda: torch.ones(size // 4).sum())
print(json.dumps({"in_force": state.in_force, "reason": state.reason, "growth": found.growth_bytes if found else None,
                  "how": found.how if found else ""}))
"""


def test_the_process_grows_by_a_known_allocation():
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["in_force"] or found["growth"] is None or "reset" not in found["how"]:
        pytest.skip(f"this system cannot pin or read resident sizes: {found}")
    assert found["growth"] == pytest.approx(64 * MIB, rel=0.03)


CONFLICT = """
from bench.meters import allocator
first = allocator.pin_allocator_for_timing()
assert allocator.pin_allocator_for_timing() == first
try:
    allocator.pin_allocator_for_memory()
    print("no conflict" if first.in_force else "not in force")
except allocator.AllocatorConflict as error:
    print("conflict", error)
"""


def test_a_timed_process_refuses_to_be_pinned_for_memory():
    done = subprocess.run([sys.executable, "-c", CONFLICT], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(("conflict this process is pinned for timing", "not in force"))
    assert issubclass(AllocatorConflict, RuntimeError)


FAULTS = """
import json, resource, torch
from bench.meters import allocator
def faults():
    run = lambda: [torch.ones(2**20) for _ in range(3)]
    for _ in range(30):
        run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10
first = allocator.pin_allocator_for_memory()
loose = faults()
second = allocator.pin_allocator_for_timing()
print(json.dumps({"in_force": first.in_force and second.in_force, "memory": loose, "timing": faults()}))
"""


def test_a_process_may_be_pinned_for_timing_after_memory_and_then_takes_no_page_faults():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["in_force"]:
        pytest.skip("this C library cannot be pinned")
    assert found["memory"] > found["timing"]
    assert found["timing"] < 10


# --- without memory ------------------------------------------------------------------------------------------------


class Decoder(nn.Module):
    """A plain decoder-only language model: pre-norm blocks, causal attention, gated feed-forward."""

    def __init__(self, width: int, heads: int, depth: int, hidden: int, vocabulary: int):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, hidden) for _ in range(depth))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class DecoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        batch, length, width = x.shape
        query, key, value = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        y = self.norm2(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


def decoder_values(width: int, depth: int, hidden: int, vocabulary: int) -> int:
    return 2 * vocabulary * width + depth * (4 * width**2 + 3 * width * hidden + 2 * width) + width


def test_a_decoder_on_the_meta_device_has_the_peak_of_the_real_one():
    shape = {"width": 64, "heads": 4, "depth": 2, "hidden": 160, "vocabulary": 97}
    tokens = torch.zeros(1, 32, dtype=torch.long)
    with torch.device("meta"):
        absent = Decoder(**shape)
    real = Decoder(**shape).eval()
    assert activation_peak_meta(absent, (tokens,)).peak_bytes == measure(real, (tokens,)).peak_bytes


def test_explicit_attention_adds_the_attention_matrix():
    with torch.device("meta"):
        net = Decoder(64, 4, 1, 160, 97)
    tokens = torch.zeros(1, 512, dtype=torch.long)
    fused = activation_peak_meta(net, (tokens,))
    explicit = activation_peak_meta(net, (tokens,), attention="explicit")
    assert explicit.peak_bytes - fused.peak_bytes > 4 * 4 * 512 * 512


def test_torchs_own_tracker_finds_the_same_peak():
    tracker = pytest.importorskip("torch.distributed._tools.mem_tracker")
    cases = [
        (Decoder(64, 4, 2, 160, 97).eval(), torch.zeros(2, 32, dtype=torch.long)),
        (
            nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval(),
            torch.randn(2, 3, 32, 32),
        ),
    ]
    for net, x in cases:
        other = tracker.MemTracker()
        other.track_external(net, x)
        with torch.no_grad(), other:
            net(x)
        assert other.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"] == measure(net, (x,)).peak_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "heads", "depth", "hidden", "billions"), [(4096, 32, 32, 11008, 6.74), (8192, 64, 80, 28672, 77.8)]
)
def test_huge_decoders_are_counted_in_seconds_and_no_memory(width, heads, depth, hidden, billions):
    from bench.meters import params
    from bench.meters.resident import status_bytes

    start = time.monotonic()
    with torch.device("meta"):
        net = Decoder(width, heads, depth, hidden, 32000).to(torch.bfloat16)
    count = params.measure(net)
    found = activation_peak_meta(net, (torch.zeros(1, 4096, dtype=torch.long),))
    assert count.total == decoder_values(width, depth, hidden, 32000)
    assert count.total / 1e9 == pytest.approx(billions, rel=0.01)
    assert found.split["weights"] == 2 * count.total
    assert found.provenance == "counted"
    assert time.monotonic() - start < 60
    resident = status_bytes("VmRSS")
    assert resident is None or resident < 2e9


def test_a_module_with_real_weights_is_refused_on_the_meta_device():
    with pytest.raises(ForwardError, match="meta"):
        activation_peak_meta(nn.Linear(2, 2), (torch.zeros(1, 2),))


def test_a_forward_that_needs_values_is_refused():
    class Exits(nn.Module):
        def forward(self, x):
            return x if x.sum().item() > 0 else -x

    with pytest.raises(ForwardError, match="real tensors"):
        activation_peak_meta(Exits(), (torch.zeros(2),))


def test_the_peaks_are_plain_json():
    json.dumps(measure(*_tiny()).as_dict(), allow_nan=False)


class Accelerator:
    """As much of `torch.cuda` as the views ask for: what runs after the reset makes the peak."""

    def __init__(self, monkeypatch, held):
        self.held, self.peak = held, 0
        answers = {
            "synchronize": lambda device: None,
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": self.reset,
            "max_memory_allocated": lambda device: self.peak,
            "max_memory_reserved": lambda device: 2 * self.peak,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        monkeypatch.setattr(memory, "driver_bytes", lambda device: (None, "no driver here"))

    def reset(self, device):
        self.peak = self.held

    def takes(self, size):
        self.peak = max(self.peak, self.held + size)


def test_a_captured_forward_is_looked_at_as_it_replays_and_its_insides_are_not_called_allocated(monkeypatch):
    """The graph holds 700 bytes of activations; an eager forward beside it would take them once more."""
    device = Accelerator(monkeypatch, held=1000 + 700)
    peaks = replace(measure(*_tiny()), device="cuda:0", allocator_bytes=None)
    found = memory.with_cuda_views(peaks, lambda: None, captured=True)
    assert found.reserved_bytes == 2 * 1700 and found.allocator_bytes is None
    (row,) = [row for row in found.readings() if row.metric == "peak_allocator_bytes"]
    assert row.provenance == "unavailable" and "captured graph" in row.method_note
    plain = memory.with_cuda_views(peaks, lambda: device.takes(700), captured=False)
    assert plain.allocator_bytes == 1700 + 700 and "peak_allocator_bytes" not in plain.notes


def test_the_views_from_outside_are_of_the_step_that_is_timed():
    net, args = _tiny()
    ran = []
    measure(net, args, step=lambda: ran.append("replay") or net(*args))
    assert set(ran) == {"replay"}


@pytest.mark.gpu
def test_every_cuda_view_shows_a_known_allocation():
    net, x = chain([3, 64, 64], 128)
    found = measure(net.cuda(), (x.cuda(),))
    assert found.peak_bytes == sum(chain_peak([3, 64, 64], 128))
    assert found.allocator_bytes is not None and found.allocator_bytes >= found.peak_bytes
    assert found.reserved_bytes is not None and found.reserved_bytes >= found.allocator_bytes
    if found.resident_bytes is not None:
        assert found.resident_bytes >= found.reserved_bytes
