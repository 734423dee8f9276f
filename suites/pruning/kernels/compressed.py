"""torch's own sparse layouts: CSR for single weights and BSR for blocks, through MKL on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from suites.pruning.kernels.product import Product, counted
from suites.pruning.structures import Pattern


def resized(module: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Make room for the stored values of another build of the same layer: how many there are depends on the weights."""
    for name in ("values", "column"):
        given, own = state.get(prefix + name), getattr(module, name)
        if isinstance(given, Tensor) and given.shape != own.shape:
            room = torch.empty(given.shape, dtype=own.dtype, device=own.device)
            setattr(module, name, nn.Parameter(room) if isinstance(own, nn.Parameter) else room)
    module.executed_weights = module.values.numel()  # type: ignore[assignment, operator]


class CsrProduct(Product):
    """Values of the kept weights, their columns and a pointer per row; indices of 32 bits.

    The tensor of torch's layout is made anew at each call from its three parts (no copy, no check), because torch can
    neither copy nor convert a parameter of that layout.
    """

    crow: Tensor
    column: Tensor

    def __init__(self, weight: Tensor, pattern: Pattern):
        super().__init__()
        self.outputs, self.inputs = weight.shape
        mask = pattern.mask.reshape(weight.shape)
        if weight.is_meta:
            column = torch.empty(pattern.count, dtype=torch.int32, device="meta")
            crow = torch.empty(self.outputs + 1, dtype=torch.int32, device="meta")
            values = weight.new_empty(pattern.count)
        else:
            column = mask.nonzero()[:, 1].int()
            crow = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)]).int()
            values = weight[mask]
        self.values = nn.Parameter(values.clone())
        self.register_buffer("crow", crow)
        self.register_buffer("column", column)
        self.executed_weights = self.values.numel()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resized(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """[outputs, N] of x [inputs, N]."""
        if x.is_meta:
            return counted(self.values, x, self.outputs)
        size = (self.outputs, self.inputs)
        matrix = torch.sparse_csr_tensor(self.crow, self.column, self.values, size, check_invariants=False)
        return matrix @ x


class BsrProduct(Product):
    """Kept blocks, the column of each and a pointer per row of blocks."""

    crow: Tensor
    column: Tensor

    def __init__(self, weight: Tensor, pattern: Pattern):
        super().__init__()
        if pattern.block == (1, 1):
            raise ValueError("kernel='bsr' stores whole blocks: prune with structure='block' and block=[b, b']")
        self.outputs, self.inputs = weight.shape
        self.block = high, wide = pattern.block
        mask = pattern.mask.reshape(weight.shape)
        count = pattern.count // (high * wide)
        if weight.is_meta:
            values = weight.new_empty(count, high, wide)
            column = torch.empty(count, dtype=torch.int32, device="meta")
            crow = torch.empty(self.outputs // high + 1, dtype=torch.int32, device="meta")
        else:
            chosen = mask[::high, ::wide]
            tiles = weight.unflatten(0, (-1, high)).unflatten(2, (-1, wide)).transpose(1, 2)
            values = tiles[chosen]
            column = chosen.nonzero()[:, 1].int()
            crow = torch.cat([chosen.new_zeros(1, dtype=torch.int64), chosen.sum(1).cumsum(0)]).int()
        self.values = nn.Parameter(values.clone())
        self.register_buffer("crow", crow)
        self.register_buffer("column", column)
        self.executed_weights = self.values.numel()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resized(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """[outputs, N] of x [inputs, N].

        Raises:
            NotImplementedError: this torch has no product of that layout on this device: the row is `unsupported`.
        """
        if x.is_meta:
            return counted(self.values, x, self.outputs)
        size = (self.outputs, self.inputs)
        matrix = torch.sparse_bsr_tensor(self.crow, self.column, self.values, size, check_invariants=False)
        try:
            return matrix @ x
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise NotImplementedError(
                f"kernel='bsr': torch has no such product here ({why}); take csr or gather"
            ) from error
