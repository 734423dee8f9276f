"""The roofline of a record: its layer rows with the peaks that were measured of its machine."""

from __future__ import annotations

from typing import Any

from bench.analysis.roofline import OPERATIONS_PER_MAC, Layer, Waterline, block_of, waterline


def from_record(record: dict[str, Any], *, threads: int | None = None) -> tuple[Waterline | None, str]:
    """The waterline of a record on the machine it was measured on, and the reason for whatever is missing.

    `None` comes with a reason if the record has no layers. With an unknown peak or bandwidth the measured side is still
    there and `ideal_ms`, water and efficiencies are `None`; the reason says which peak was looked for.

    Args:
        record: as `bench.store.records` describes.
        threads: thread count whose peak applies; by default the case's own.
    """
    rows = record.get("layers") or []
    if not rows:
        return None, f"no layers were recorded (the case is {record.get('status', 'unknown')})"
    layers, reasons = layers_of(record, threads=threads)
    info = record.get("layers_info") or {}
    line = waterline(layers, end_to_end_ms=info.get("end_to_end_ms"))
    return line, "; ".join(dict.fromkeys([*reasons, *line.notes]))


def layers_of(record: dict[str, Any], *, threads: int | None = None) -> tuple[list[Layer], list[str]]:
    """A record's rows as layers with the machine's peaks for their own dtypes, and a reason for each peak not known."""
    machine, case = record.get("machine") or {}, record["case"]
    wanted = case.get("threads") if threads is None else threads
    device = str(case.get("device") or "cpu")
    bandwidth, reasons = bandwidth_of(machine, device=device, threads=wanted)
    peaks: dict[str, float | None] = {}
    rows = record["layers"]
    for row in rows:
        dtype = _arithmetic(row, case)
        peaks[dtype], why = peak_of(machine, dtype, device=device, threads=wanted)
        reasons += [text for text in why if row.get("macs") and text not in reasons]
    following = [*rows[1:], None]
    return [_layer(row, after, case, peaks, bandwidth) for row, after in zip(rows, following, strict=True)], reasons


def peak_of(
    machine: dict[str, Any], dtype: str, *, device: str = "cpu", threads: int | None = None
) -> tuple[float | None, list[str]]:
    """Peak arithmetic throughput in op/s, measured for this dtype, device and thread count; else why none."""
    entries = [p for p in machine.get("peaks") or [] if dtype_name(p.get("dtype", "")) == dtype]
    fitting = [p["value"] for p in entries if _fits(p, device, threads, "op/s") and p.get("value")]
    if fitting:
        return max(fitting), []
    have = sorted({f"{p.get('dtype')} at {p.get('threads')} threads" for p in machine.get("peaks") or []})
    wanted = f"{dtype or 'unknown dtype'} at {threads} threads on {device}"
    return None, [f"no peak was measured for {wanted} (measured: {', '.join(have) or 'none'}; run job=calibrate)"]


def bandwidth_of(
    machine: dict[str, Any], *, device: str = "cpu", threads: int | None = None
) -> tuple[float | None, list[str]]:
    """DRAM bandwidth in B/s that was measured for this device and thread count; else why there is none."""
    found = machine.get("bandwidth") or []
    entries = [found] if isinstance(found, dict) else list(found)
    fitting = [e["value"] for e in entries if _fits(e, device, threads, "B/s") and e.get("value")]
    if fitting:
        return max(fitting), []
    return None, [f"no DRAM bandwidth was measured at {threads} threads on {device} (run job=calibrate)"]


_DTYPES = {
    "float32": "fp32",
    "float": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
    "double": "fp64",
    "qint8": "int8",
    "quint8": "int8",
}


def dtype_name(dtype: str) -> str:
    """The suite's short name of a dtype: `torch.float32` is `fp32`."""
    short = str(dtype).removeprefix("torch.")
    return _DTYPES.get(short, short)


def _arithmetic(row: dict[str, Any], case: dict[str, Any]) -> str:
    """The arithmetic that a row's products run in: its tensors' dtype, or TF32 where fp32 is computed in that."""
    dtype = dtype_name(row.get("dtype") or case.get("dtype") or "")
    return "tf32" if dtype == "fp32" and case.get("dtype") == "tf32" else dtype


def _fits(entry: dict[str, Any], device: str, threads: int | None, unit: str) -> bool:
    """Whether a peak was measured on this device, thread count and in this unit; what is not stated fits."""
    kind = entry.get("device")
    same_device = kind is None or str(kind).split(":")[0] == device.split(":", maxsplit=1)[0]
    same_threads = entry.get("threads") is None or threads is None or entry["threads"] == threads
    on_gpu = device.split(":", maxsplit=1)[0] != "cpu"
    return same_device and (same_threads or on_gpu) and entry.get("unit", unit) == unit


def _layer(
    row: dict[str, Any],
    after: dict[str, Any] | None,
    case: dict[str, Any],
    peaks: dict[str, float | None],
    bandwidth: float | None,
) -> Layer:
    """One record row with its peaks; the next row can read of its output at most what either of them states."""
    dtype = _arithmetic(row, case)
    reads, writes = row.get("read_bytes"), row.get("write_bytes")
    handed = None
    if after is not None and writes is not None and after.get("read_bytes") is not None:
        handed = min(writes, max(0.0, after["read_bytes"] - (after.get("weight_bytes") or 0.0)))
    path = row.get("module_path") or row.get("name") or ""
    return Layer(
        name=row.get("name") or path,
        ops=OPERATIONS_PER_MAC * float(row.get("macs") or 0.0),
        bytes=None if reads is None or writes is None else float(reads + writes),
        peak=peaks.get(dtype),
        bandwidth=bandwidth,
        time_ms=row.get("time_ms"),
        time_low_ms=row.get("time_low_ms"),
        time_high_ms=row.get("time_high_ms"),
        handed_on_bytes=handed,
        op=row.get("op") or "",
        block=block_of(path),
        dtype=dtype,
        vector_ops=float(row.get("vector_ops") or 0.0),
        read_bytes=reads,
        write_bytes=writes,
        bytes_source=row.get("provenance_bytes") or "",
        tokens=row.get("tokens"),
        uncounted=tuple(row.get("uncounted") or ()),
    )
