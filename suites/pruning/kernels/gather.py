"""Groups of output rows that share their kept inputs: those inputs are gathered, then one dense product a group.

W is [R, G, K_keep] with an index [R, K_keep], X is [K, N]: bmm(W, X[index]) is [R, G, N]. It is exact where the rows
of a group share their columns (blocks, 1xN). Groups that keep equally many run in one call; others are sorted into
buckets by K_keep, a call each. R K_keep N elements are copied to be multiplied, and the trace charges those bytes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from suites.pruning.kernels.product import Product
from suites.pruning.structures import Pattern


class Bucket(nn.Module):
    """Groups that keep equally many columns."""

    index: Tensor

    def __init__(self, weight: Tensor, index: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        """[groups, G, N] of x [inputs, N]."""
        return torch.bmm(self.weight, x[self.index])


class GatherProduct(Product):
    """W X by gathering; one bucket where the pattern is balanced."""

    places: Tensor | None

    def __init__(self, weight: Tensor, pattern: Pattern):
        super().__init__()
        self.outputs, self.inputs = weight.shape
        self.group = pattern.group
        if self.outputs % self.group:
            raise ValueError(f"kernel='gather': groups of {self.group} rows do not divide {self.outputs} outputs")
        groups = self.outputs // self.group
        mask = pattern.mask.reshape(weight.shape)
        by_group = weight.detach().reshape(groups, self.group, self.inputs)
        self.buckets = nn.ModuleList()
        if weight.is_meta:
            self._balanced_on_meta(weight, pattern, groups)
            return
        shared = mask.view(groups, self.group, self.inputs)
        columns = shared.any(dim=1)
        counts = columns.sum(dim=1)
        rows = []
        for count in counts.unique().tolist():
            own = (counts == count).nonzero()[:, 0]
            index = columns[own].nonzero()[:, 1].view(len(own), count)
            values = by_group[own].gather(2, index[:, None].expand(-1, self.group, -1))
            self.buckets.append(Bucket(values.clone(), index))
            rows.append(own)
        order = torch.cat(rows)
        self.register_buffer("places", None if len(rows) == 1 else order.argsort())
        self.executed_weights = int(counts.sum()) * self.group

    def _balanced_on_meta(self, weight: Tensor, pattern: Pattern, groups: int) -> None:
        if not pattern.balanced:
            raise ValueError("kernel='gather' without values needs groups that keep equally many: set balanced=True")
        each = pattern.count // (groups * self.group)
        index = torch.empty(groups, each, dtype=torch.int64, device="meta")
        self.buckets.append(Bucket(weight.new_empty(groups, self.group, each), index))
        self.register_buffer("places", None)
        self.executed_weights = pattern.count

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the buckets of another build of the same layer: how many groups keep how much depends on the weights."""
        start = f"{prefix}buckets."
        found: list[list[Tensor]] = []
        while f"{start}{len(found)}.weight" in state_dict:
            found.append([state_dict[f"{start}{len(found)}.{name}"] for name in ("weight", "index")])
        like = next(self.parameters())
        self.buckets = nn.ModuleList(
            Bucket(torch.empty_like(w, dtype=like.dtype), torch.empty_like(i)) for w, i in found
        )
        self.places = torch.empty_like(state_dict[f"{prefix}places"]) if f"{prefix}places" in state_dict else None
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """[outputs, N] of x [inputs, N]."""
        parts = [bucket(x) for bucket in self.buckets]
        if self.places is None:
            return parts[0].flatten(0, 1)
        return torch.cat(parts)[self.places].flatten(0, 1)
