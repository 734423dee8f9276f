"""R-Sparse: large inputs take weight columns, the rest a low-rank residue (Zhang et al. 2025, arXiv 2504.19449).

In decode the inputs of a linear map y = W x whose importance |x_i| ||W_:,i|| passes a calibrated threshold are
multiplied by their columns of W; the others go through the rank-R singular value decomposition of W. For sparsity s and
share rho: c = int(in (1 - s) rho) columns on average, R = int((in out (1 - s) - c out) / (in + out)). rho 1 is plain
magnitude sparsity (|x_i| alone, no residue), rho 0 low rank alone. The prompt runs dense. W is kept transposed, so that
a column is a row.

The threshold fixes c only on average; `live` of each map holds the columns of the last step. In a batch the union of
columns is read. The rank is that of the map's true shape (the released rule takes hidden x hidden for grouped keys).

rho per layer can be searched (`rho_search`, r_sparse_search.py) instead of set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.decoder import Decoder, as_decoder
from suites.decode.calibration import calibration_ids
from suites.decode.r_sparse_search import Sparsify, searched

ATTENTION = ("q", "k", "v", "out")
NETWORK = ("gate", "up", "down")


def r_sparse(
    model: nn.Module,
    *,
    sparsity: Rate = 0.5,
    rho: Rate | list[Rate] = 0.95,
    rho_search: Count = 0,
    form: Literal["gathered", "masked"] = "gathered",
    calibration_tokens: PositiveInt = 512,
    seed: Count = 0,
) -> Decoder:
    """The decoder whose seven linear maps per layer use part of their weights in decode.

    Args:
        model: a decoder with a plain cache.
        sparsity: s, share of the products left out.
        rho: share of the remaining budget that goes to columns; one number or one per layer. A search starts from it.
        rho_search: generations of an evolutionary search for one rho per layer on calibration text; 0 for none.
        form: gathered reads the live columns; masked multiplies by zeros and saves nothing.
        calibration_tokens: tokens that thresholds are quantiles of.
        seed: of random calibration ids, where the model has no task.

    Raises:
        ValueError: not such a model, one with experts, or not one rho per layer.
    """
    decoder = as_decoder(model, "r_sparse")
    shares = list(rho) if isinstance(rho, list) else [rho] * len(decoder.blocks)
    if len(shares) != len(decoder.blocks):
        raise ValueError(f"rho has {len(shares)} entries, the decoder {len(decoder.blocks)} layers: give one per layer")
    if any(layer.experts is not None for layer in decoder.shape.layers):
        raise ValueError("r_sparse takes the seven linear maps of a layer apart, and a mixture of experts has others")
    if sparsity == 0:
        return decoder
    if rho_search and not decoder.embed.weight.is_meta:
        shares = found_shares(decoder, sparsity, shares, rho_search, seed)
    return sparsified(decoder, sparsity, shares, form, calibration_tokens, seed)


def found_shares(decoder: Decoder, sparsity: float, start: list[float], generations: int, seed: int) -> list[float]:
    """The shares of a search, made once for a decoder that a task has taught and read by later processes."""

    @functools.wraps(r_sparse)  # the cache asks where `make` comes from: new source of the method is a new search
    def make() -> dict[str, Tensor]:
        found = searched(decoder, gathering(sparsity), start, generations=generations, seed=seed)
        return {"shares": torch.tensor(found, dtype=torch.float64)}

    task = getattr(decoder, "task", None)
    key = {"sparsity": sparsity, "start": start, "generations": generations, "seed": seed}
    remembered = getattr(task, "remembered", None)
    found = remembered("r_sparse", key, make) if callable(remembered) else make()
    shares: list[float] = found["shares"].tolist()
    return shares


def gathering(sparsity: float) -> Sparsify:
    """What the search judges: the form that leaves products out."""
    return lambda decoder, shares, tokens, seed: sparsified(decoder, sparsity, shares, "gathered", tokens, seed)


def sparsified(
    decoder: Decoder, sparsity: float, shares: list[float], form: str, calibration_tokens: int, seed: int
) -> Decoder:
    """The decoder with every linear map replaced, one rho per layer."""
    inputs = (
        None if decoder.embed.weight.is_meta else observed(decoder, calibration_ids(decoder, calibration_tokens, seed))
    )
    for index, (block, share) in enumerate(zip(decoder.blocks, shares, strict=True)):
        for owner, names in ((block.attention, ATTENTION), (block.network, NETWORK)):
            for name in names:
                linear = getattr(owner, name)
                seen = None if inputs is None else inputs[index][name]
                setattr(owner, name, RSparseLinear(linear, sparsity, share, form, seen))
    return decoder


def observed(decoder: Decoder, ids: Tensor) -> list[dict[str, Tensor]]:
    """Inputs of every linear map, [tokens, in], by layer and name."""
    found: list[dict[str, Tensor]] = [{} for _ in decoder.blocks]
    handles = []
    for index, block in enumerate(decoder.blocks):
        for owner, names in ((block.attention, ATTENTION), (block.network, NETWORK)):
            for name in names:
                note = _noting(found[index], name)
                handles.append(getattr(owner, name).register_forward_pre_hook(note))
    with torch.no_grad():
        decoder(ids)
    for handle in handles:
        handle.remove()
    return found


def _noting(into: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        into[name] = args[0].flatten(0, -2)

    return note


def budget(inputs: int, outputs: int, sparsity: float, rho: float) -> tuple[int, int]:
    """Live columns and rank; with rho 1 there is no residue."""
    live = int(inputs * (1 - sparsity) * rho)
    rank = int((inputs * outputs * (1 - sparsity) - live * outputs) / (inputs + outputs))
    return live, 0 if rho == 1 else max(0, min(rank, inputs, outputs))


def macs(inputs: int, outputs: int, sparsity: float, rho: float) -> int:
    """Products of one token at the mean number of live columns."""
    live, rank = budget(inputs, outputs, sparsity, rho)
    return live * outputs + rank * (inputs + outputs)


class Residue(nn.Module):
    """The low-rank part and the columns' norms: what the method stores besides the weights.

    It has no forward: its products are those of the map that it belongs to.
    """

    charged_to = "method"
    down: Tensor
    up: Tensor
    norms: Tensor

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        outputs, inputs = weight.shape
        if weight.is_meta:
            down, up = weight.new_empty(rank, inputs), weight.new_empty(outputs, rank)
        else:
            u, s, v = torch.linalg.svd(weight.to(torch.promote_types(weight.dtype, torch.float32)), full_matrices=False)
            down, up = (s[:rank, None] * v[:rank]).to(weight), u[:, :rank].to(weight)
        self.register_buffer("down", down.contiguous())
        self.register_buffer("up", up.contiguous())
        self.register_buffer("norms", weight.norm(dim=0))

    def answer(self, x: Tensor) -> Tensor:
        """The residue's answer to inputs [..., in]."""
        return F.linear(F.linear(x, self.down), self.up)


class RSparseLinear(nn.Module):
    """A linear map that is dense on several tokens and sparse on one."""

    threshold: Tensor

    def __init__(self, linear: nn.Linear, sparsity: float, rho: float, form: str, seen: Tensor | None):
        super().__init__()
        self.rho, self.form = rho, form
        columns, rank = budget(linear.in_features, linear.out_features, sparsity, rho)
        self.columns = nn.Parameter(linear.weight.detach().t().contiguous(), requires_grad=False)
        self.bias = linear.bias
        self.residue = Residue(linear.weight.detach(), rank)
        self.rank, self.expected = rank, columns
        found = torch.inf if seen is None or columns == 0 else self._quantile(seen, 1 - (1 - sparsity) * rho)
        self.register_buffer("threshold", torch.tensor(found, device=linear.weight.device))
        self.live = 0

    def importance(self, x: Tensor) -> Tensor:
        """How much each input [..., in] would move the output; its size alone where there is no residue."""
        return x.abs() if self.rho == 1 else x.abs() * self.residue.norms

    def _quantile(self, seen: Tensor, share: float) -> float:
        ordered = self.importance(seen).flatten().sort().values
        return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])

    def forward(self, x: Tensor) -> Tensor:
        """W x: all of it for several tokens, live columns and residue for one."""
        if x.shape[-2] > 1:
            return F.linear(x, self.columns.t(), self.bias)
        if x.is_meta:
            out = x[..., : self.expected] @ self.columns[: self.expected]
            return self._with_rest(out, x)
        live = self.importance(x) > self.threshold
        chosen = torch.where(live, x, torch.zeros_like(x))
        index = live.flatten(0, -2).any(dim=0).nonzero().flatten()
        self.live = len(index)
        used = slice(None) if self.form == "masked" else index
        out = chosen[..., used] @ self.columns[used]
        return self._with_rest(out, x - chosen)

    def _with_rest(self, out: Tensor, rest: Tensor) -> Tensor:
        if self.rank:
            out = out + self.residue.answer(rest)
        return out if self.bias is None else out + self.bias


def executed_macs(model: nn.Module) -> int:
    """Products of the sparse maps in the last step, with the columns that were really live."""
    total = 0
    for module in model.modules():
        if isinstance(module, RSparseLinear):
            inputs, outputs = module.columns.shape
            total += module.live * outputs + module.rank * (inputs + outputs)
    return total
