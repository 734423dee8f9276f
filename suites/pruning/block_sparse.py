"""Block-sparse products on a CPU: blocks of output rows that share an input column, in every linear layer.

Source: Shen et al. 2023, "An Efficient Sparse Inference Software Accelerator for Transformer-based Language Models on
CPUs", arXiv:2306.16601, sections 3 and 4: 4x1 for int8, 1 input by 16 outputs for fp32; the weight stands left and
activations are transposed to inputs x tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from bench.config.settings import PositiveInt, Rate
from suites.pruning.kernels.lscd import tiles_divide
from suites.pruning.layers import install, prunable, weights_of
from suites.pruning.scores import chosen_by, magnitude
from suites.pruning.structures import blocks, n_of_m, unstructured


def block_sparse(
    model: nn.Module,
    *,
    sparsity: Rate = 0.8,
    block: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None,
    balanced: bool = True,
    kernel: Literal["mask", "csr", "bsr", "gather"] = "gather",
    score: Literal["magnitude", "random"] = "magnitude",
) -> nn.Module:
    """A network whose linear layers keep their largest blocks of weights.

    Layers that the blocks do not divide stay dense (a classifier of ten outputs).

    Args:
        model: any network with linear layers.
        sparsity: share of blocks that go, of each row of blocks or of each layer.
        block: output rows and input columns; None for 32 and 32, 16 and 1 is the paper's fp32.
        balanced: every row of blocks keeps equally many.
        kernel: gather is ours.
        score: mean |w| of a block, or `random`, the control.

    Raises:
        ValueError: no linear layer that the blocks divide.
    """
    size = (32, 32) if block is None else (block[0], block[1])

    def divided(_: str, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear) and not (layer.out_features % size[0] or layer.in_features % size[1])

    kind = f"linear layers whose outputs and inputs blocks of {size[0]} x {size[1]} divide"
    weights = weights_of(prunable(model, f"block_sparse(block={list(size)})", divided, kind))
    patterns = {name: blocks(chosen_by(score, weight), size, sparsity, balanced) for name, weight in weights.items()}
    return install(model, patterns, kernel)


def nm_sparse(
    model: nn.Module,
    *,
    n: PositiveInt = 2,
    m: PositiveInt = 4,
    where: Literal["all", "ff", "qkv", "ff_qkv"] = "all",
    kernel: Literal["mask", "csr", "gather", "semi24"] = "mask",
) -> nn.Module:
    """A network whose linear layers keep the n largest of every m consecutive inputs of an output.

    Args:
        model: any network with linear layers.
        n: kept.
        m: of so many.
        where: all linear layers whose inputs m divides, those of the MLPs, the projections of attention, or both.
        kernel: semi24 runs 2:4 on a GPU; a layer whose sides its units do not take (a classifier of 1000) keeps its
            zeros in a dense kernel.

    Raises:
        ValueError: no such layer, or n above m.
    """
    names = {"all": None, "ff": ("mlp", "ffn", "fc"), "qkv": ("qkv",), "ff_qkv": ("mlp", "ffn", "fc", "qkv")}[where]

    def chosen(name: str, layer: nn.Module) -> bool:
        parts = name.lower().split(".")
        wanted = names is None or any(part.startswith(names) for part in parts)
        return isinstance(layer, nn.Linear) and layer.in_features % m == 0 and wanted

    kind = f"linear layers of that place whose inputs groups of {m} divide"
    weights = weights_of(prunable(model, f"nm_sparse(m={m}, where={where!r})", chosen, kind))
    return install(model, {name: n_of_m(magnitude(weight), n, m) for name, weight in weights.items()}, kernel)


def sparse_weights(
    model: nn.Module,
    *,
    sparsity: Rate = 0.8,
    kernel: Literal["mask", "csr", "gather", "lscd"] = "csr",
    score: Literal["magnitude", "random"] = "magnitude",
) -> nn.Module:
    """A network whose linear layers lose int(s n) of their smallest weights each; lscd is Flash-LLM's way to run it.

    Args:
        model: any network with linear layers.
        sparsity: of each layer.
        kernel: lscd unpacks tiles and multiplies densely; layers that tiles of 128 x 64 do not divide stay dense there.
        score: |w|, or `random`, the control.

    Raises:
        ValueError: no linear layer.
    """

    def chosen(_: str, layer: nn.Module) -> bool:
        if not isinstance(layer, nn.Linear):
            return False
        return kernel != "lscd" or tiles_divide(layer.weight.shape)

    kind = "linear layers" + (" that tiles of 128 x 64 divide" if kernel == "lscd" else "")
    weights = weights_of(prunable(model, "sparse_weights", chosen, kind))
    patterns = {name: unstructured(chosen_by(score, weight), sparsity) for name, weight in weights.items()}
    return install(model, patterns, kernel)
