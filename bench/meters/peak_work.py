"""Work that shows what a machine can do: square products per dtype, streams over large buffers, the smallest operator.

Each item says how many operations or bytes one call takes and how long so many calls last; nothing is judged here.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.meters import dtypes

#: Square sizes at which products run best: in cache on a CPU, filling the device on CUDA. The first is always
#: affordable.
GEMM_SIZES = {"cpu": (256, 512, 768, 1024), "cuda": (1024, 4096, 8192)}
DTYPES = {"cpu": ("fp32", "bf16", "fp16", "int8"), "cuda": ("fp32", "tf32", "bf16", "fp16", "int8")}

#: Kernels of a dtype on a device, where torch has several: each is tried, and the quickest is what the machine can do.
#: `packed` is `quantized::linear`, with kernels for processors without units for int8, where `_int_mm` is a plain loop.
KERNELS = {("int8", "cpu"): ("_int_mm", "packed")}

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
MIB = 2**20
#: A stream's buffer is this many times the last-level cache.
CACHE_MULTIPLE = 4
_STREAM_RANGE = (64 * MIB, 1024 * MIB)
_STREAM_SHARE = 16  # at most this fraction of the free memory per buffer


@dataclass(frozen=True)
class Work:
    """`amount` operations or bytes per call of `run`; `seconds(calls)` times calls back to back."""

    name: str
    amount: float
    run: Callable[[], object]
    seconds: Callable[[int], float]


def timer(run: Callable[[], object], device: torch.device) -> Callable[[int], float]:
    """Seconds for a number of calls: by the host's clock on a CPU, by events on CUDA."""
    if device.type == "cuda":
        return lambda calls: _event_seconds(run, calls)
    return lambda calls: _host_seconds(run, calls)


def _host_seconds(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        run()
    return (time.perf_counter_ns() - start) / 1e9


def _event_seconds(run: Callable[[], object], calls: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def kernels(dtype: str, device: torch.device) -> tuple[str, ...]:
    """The kernels by which torch multiplies this dtype on a device; one without a name where it is not asked which."""
    return KERNELS.get((dtype, device.type), ("",))


def product(dtype: str, size: int, device: torch.device, kernel: str = "") -> Work:
    """One square product; 2 size^3 operations. The right side is transposed, as a linear layer holds its weights.

    Args:
        dtype: of both sides.
        size: of a side.
        device: where.
        kernel: of `kernels`; the packed one takes unsigned whole numbers, as activations are, and rounds its sums.

    Raises:
        RuntimeError, NotImplementedError, AttributeError: this torch has no such product on the device.
    """
    if kernel == "packed":
        run = _packed(size)
    elif dtype == "int8":
        whole = torch.randint(-9, 9, (size, size), dtype=torch.int8, device=device)
        right = whole.t()
        sums = torch.empty(size, size, dtype=torch.int32, device=device)
        run = lambda: torch._int_mm(whole, right, out=sums)  # noqa: E731
    else:
        a, weight = (torch.randn(size, size, device=device).to(dtypes.TORCH[dtype]) for _ in range(2))
        out, right = torch.empty_like(a), weight.t()
        run = lambda: torch.mm(a, right, out=out)  # noqa: E731
    return Work(f"{dtype} {size}", 2.0 * size**3, run, timer(run, device))


def _packed(size: int) -> Callable[[], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the removal of quantised tensors from torch is announced
        weight = torch.quantize_per_tensor(torch.randn(size, size), 0.1, 0, torch.qint8)
        x = torch.quantize_per_tensor(torch.randn(size, size), 0.1, 64, torch.quint8)
    weights = torch.ops.quantized.linear_prepack(weight, None)
    return lambda: torch.ops.quantized.linear(x, weights, 1.0, 64)


@contextmanager
def tensor_float32(on: bool, device: torch.device) -> Iterator[None]:
    """TF32 products in single precision on CUDA while inside; torch's setting is put back."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def streams(device: torch.device, size: int) -> list[Work]:
    """Copy and triad over buffers of `size` bytes; every byte read and written counts, write-allocation does not.

    The triad is that of STREAM (J. McCalpin, IEEE TCCA Newsletter 1995): a = b + s c.
    """
    a, b, c = (torch.ones(size // 4, device=device) for _ in range(3))
    copy = lambda: a.copy_(b)  # noqa: E731
    triad = lambda: torch.add(b, c, alpha=3.0, out=a)  # noqa: E731
    return [
        Work("copy", 2.0 * size, copy, timer(copy, device)),
        Work("triad", 3.0 * size, triad, timer(triad, device)),
    ]


def stream_bytes(device: torch.device) -> tuple[int, int | None]:
    """Bytes of one stream buffer, and of the last-level cache that it has to exceed (None: unknown)."""
    if device.type == "cuda":
        cache: int | None = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", None)
        free = torch.cuda.mem_get_info(device)[0]
        wanted = 1024 * MIB
    else:
        import psutil

        cache, free = last_level_cache(), psutil.virtual_memory().available
        wanted = CACHE_MULTIPLE * (cache or 32 * MIB)
    low, high = _STREAM_RANGE
    return int(min(max(wanted, low), high, max(free // _STREAM_SHARE, 4 * MIB))) // 64 * 64, cache


def last_level_cache(root: Path = CACHES) -> int | None:
    """Bytes of the largest data cache that the first core sees; None where the kernel does not tell.

    Args:
        root: where the caches are described.
    """
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = []
    for path in root.glob("index*"):
        try:
            if (path / "type").read_text(encoding="utf-8").strip() == "Instruction":
                continue
            text = (path / "size").read_text(encoding="utf-8").strip()
            sizes.append(int(text.rstrip("KMG")) * units.get(text[-1], 1))
        except (OSError, ValueError):
            continue
    return max(sizes, default=None)


def smallest_operator(device: torch.device) -> Work:
    """One addition of one element: what is left of its time is the cost of launching an operator."""
    one = torch.ones(1, device=device)
    run = lambda: torch.add(one, one, out=one)  # noqa: E731
    return Work("launch", 1.0, run, timer(run, device))
