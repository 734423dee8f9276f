"""The suite's names of dtypes in torch's terms; `bench.config.schema.DTYPES` has the same names without torch."""

from __future__ import annotations

import torch

#: TF32 is a way to multiply fp32 tensors, which `bench.worker.global_state.set_tf32` switches on.
TORCH: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
