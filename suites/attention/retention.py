"""The retention of ViR as a bare operator: parallel, recurrent, in chunks, and by flash-linear-attention's kernel.

o_i = sum_{j <= i} g_h^(i - j) (q_i . k_j / sqrt d) v_j with the decays of vir.py (arXiv 2310.19731). flash-linear-
attention (MIT) has it as simple gated linear attention with one decay per head; its kernels are Triton's and need a
GPU.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bench.config.settings import PositiveInt
from suites.attention.operator import AttentionOperator
from suites.attention.vir import chunked, decays, parallel, recurrent, retention_macs
from suites.common.torchvision_remedy import import_beside_torchvision


def retention(
    *, length: PositiveInt = 512, heads: PositiveInt = 8, width: PositiveInt = 64, chunk: PositiveInt = 64,
    form: Literal["parallel", "recurrent", "chunk", "fla"] = "chunk",
) -> RetentionOperator:  # fmt: skip
    """The operator.

    Args:
        length: N.
        heads: retention heads.
        width: numbers per head.
        chunk: tokens of a chunk.
        form: which of the equal forms runs; fla is the package's chunked kernel.

    Raises:
        NotInstalled: form fla without the package.
        NotImplementedError: form fla without a GPU.
    """
    if form == "fla":
        import_beside_torchvision("fla")
        if not torch.cuda.is_available():
            raise NotImplementedError(
                "flash-linear-attention's kernels are written in Triton for a GPU, and there is none"
            )
    return RetentionOperator(heads, length, width, chunk, form).eval()


class RetentionOperator(AttentionOperator):
    """Retention in one of its forms."""

    decay: Tensor

    def __init__(self, heads: int, tokens: int, size: int, chunk: int, form: str):
        super().__init__(heads, tokens, size)
        self.chunk, self.form = chunk, form
        with torch.device("cpu"):
            decay = decays(heads)
        self.register_buffer("decay", decay, persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What is retained, [batch, heads, tokens, size]."""
        g = self.decay.to(q.dtype)
        if self.form == "parallel":
            return parallel(q, k, v, g)
        if self.form == "recurrent":
            return recurrent(q, k, v, g)
        return chunked(q, k, v, g, self.chunk) if self.form == "chunk" else self._by_fla(q, k, v)

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The sum by its definition, one query at a time, in double precision."""
        g, (a, b, c) = self.decay.double().to(q.device), (x.double() for x in (q, k, v))
        rows = []
        for i in range(q.shape[2]):
            weight = (b[:, :, : i + 1] @ a[:, :, i, :, None])[..., 0] * q.shape[-1] ** -0.5
            fade = g[:, None] ** torch.arange(i, -1, -1, device=q.device)
            rows.append(((weight * fade)[..., None, :] @ c[:, :, : i + 1])[..., 0, :])
        return torch.stack(rows, dim=2).to(q.dtype)

    def _by_fla(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kernel = import_beside_torchvision("fla.ops.simple_gla").chunk_simple_gla
        laid = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
        fade = self.decay.log().to(q.device, torch.float32).expand(q.shape[0], q.shape[2], -1)
        out, _ = kernel(*laid, g=fade.contiguous(), scale=q.shape[-1] ** -0.5)
        return out.transpose(1, 2)

    @property
    def required_macs(self) -> int:
        """Products of the form that runs."""
        chunk = {"parallel": 0, "recurrent": 1}.get(self.form, self.chunk)
        return retention_macs(self.tokens, self.heads * self.size, self.heads, chunk)
