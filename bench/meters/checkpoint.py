"""The size of a module's saved state, found by writing it to nowhere or, without values, from the file's layout."""

from __future__ import annotations

from json import dumps  # taken before a worker's code could put another in its place
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.inventory import ParamsError
from bench.meters.stored import extent, is_wrapper

#: The format's name of each dtype, in the order in which the writer lays tensors out (widest first).
_SAFETENSORS_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def checkpoint_bytes(module: nn.Module) -> tuple[int | None, str]:
    """Length of the saved state in bytes and how it was found; or None and the reason."""
    try:
        state = module.state_dict()
        if any(isinstance(value, Tensor) and value.is_meta for value in state.values()):
            return safetensors_bytes(state), "safetensors layout, computed: nothing to write on the meta device"
        sink = _CountingSink()
        torch.save(state, sink)  # type: ignore[arg-type]
        return sink.length, "torch.save of the state_dict, written to a counting sink"
    except Exception as error:  # a user's state_dict hook may raise anything; the other counts still stand
        return None, f"the state could not be saved: {type(error).__name__}: {error}"


def safetensors_bytes(state: dict[str, Any]) -> int:
    """Length of the safetensors file of a state: 8 bytes, the header padded to 8, and the data.

    Tensors that share all their bytes are written once, under their first name.

    Raises:
        ParamsError: an entry is not a plain tensor of a dtype that the format knows.
    """
    distinct: dict[Any, tuple[str, Tensor]] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor) or is_wrapper(value) or value.dtype not in _SAFETENSORS_NAMES:
            raise ParamsError(f"{name} ({type(value).__name__}) has no place in a safetensors file")
        distinct.setdefault(extent(value) if value.numel() else name, (name, value))
    ranks = {dtype: rank for rank, dtype in enumerate(_SAFETENSORS_NAMES)}
    header, offset = {}, 0
    for name, value in sorted(distinct.values(), key=lambda entry: (ranks[entry[1].dtype], entry[0])):
        length = value.numel() * value.element_size()
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [offset, offset + length],
        }
        offset += length
    text = len(dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-text // 8) * 8 + offset


class _CountingSink:
    """A file that keeps the number of bytes written to it and nothing else."""

    def __init__(self) -> None:
        self.length = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.length += size
        return size

    def flush(self) -> None:
        pass
