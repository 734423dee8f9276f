"""Channels of any network by torch-pruning's dependency graph: a smaller dense network, or a clear refusal.

torch-pruning (Fang et al. 2023, "DepGraph", arXiv:2301.12900; MIT) is an optional extra: `pip install
waterline-bench[pruning]`. It follows what autograd records of one forward.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.config.settings import PositiveInt, Rate
from bench.errors import UsageError
from suites.pruning.examples import example_of, run, with_values
from suites.pruning.layers import WEIGHTED, prunable
from suites.pruning.rounding import check_sparsity

#: What a rate is lessened by: the library rounds c (1 - rate) down in binary, and a tenth of 20 channels are 2, not 1.
BINARY = 1e-9
INSTEAD = "global_magnitude and sparse_weights need no graph"


def channel_slim(
    model: nn.Module,
    *,
    rate: Rate = 0.5,
    score: Literal["l1", "l2", "gain", "random"] = "l1",
    everywhere: bool = False,
    multiple: PositiveInt = 1,
) -> nn.Module:
    """Any network with channels removed together with all that depends on them.

    Args:
        model: any network with an `example_inputs(batch)` or of images that its `resolution` and `channels` describe.
        rate: share of each group's channels that goes.
        score: norm of the group's weights, gain of its batch norms, or none.
        everywhere: one threshold over all groups instead of the same rate in each.
        multiple: kept widths are multiples of this.

    Raises:
        ValueError: no linear or convolutional layers, or one threshold over weights that have no values.
        UsageError: the extra is not installed, no dependency graph of the network can be found, or weights that are one
            would be cut differently.
    """
    check_sparsity(rate, "rate")
    prunable(model, "channel_slim")
    example, shared = example_of(model), shared_weights(model)
    if not any(parameter.is_meta for parameter in model.parameters()):
        return tied_again(_cut(model, example, rate, score, everywhere, multiple), shared)
    if everywhere:
        raise ValueError(
            "channel_slim(everywhere=True) compares values, and the meta device has none: measure it, or count it with "
            "everywhere=False, where every group keeps the same share"
        )
    with torch.device("cpu"):  # how many channels stay follows from widths: any values do
        empty = model.to_empty(device="cpu")
        for tensor in (*empty.parameters(), *empty.buffers()):
            tensor.detach().zero_()
        cut = _cut(tied_again(empty, shared), with_values(example), rate, score, everywhere, multiple)
        return tied_again(tied_again(cut, shared).to("meta"), shared)


def shared_weights(model: nn.Module) -> list[list[str]]:
    """Names of each parameter that stands in several places."""
    names = defaultdict[int, list[str]](list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return [places for places in names.values() if len(places) > 1]


def tied_again(model: nn.Module, shared: list[list[str]]) -> nn.Module:
    """The network with one parameter where there was one: what is cut, or moved, is made anew in each of its places.

    Raises:
        UsageError: the places are cut to different channels.
    """
    for first, *others in shared:
        one = model.get_parameter(first)
        for name in others:
            other = model.get_parameter(name)
            if other.shape != one.shape or not (one.is_meta or torch.equal(other, one)):
                raise UsageError(
                    f"channel_slim would cut {first} and {name} of {type(model).__name__} differently, and they are "
                    f"one weight. {INSTEAD}"
                )
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, one)
    return model


def _cut(model: nn.Module, example: Any, rate: float, score: str, everywhere: bool, multiple: int) -> nn.Module:
    """The network without its lowest channels, in place."""
    tp = _library()
    before = {name: tuple(p.shape) for name, p in model.named_parameters()}
    kinds = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "gain": tp.importance.BNScaleImportance,
        "random": tp.importance.RandomImportance,
    }
    try:
        pruner = tp.pruner.BasePruner(
            model, example, kinds[score](), global_pruning=everywhere, pruning_ratio=max(0.0, rate - BINARY),
            round_to=multiple, ignored_layers=last_layers(model),
        )  # fmt: skip
        pruner.step()
        run(model, example)
    except Exception as error:  # whatever tracing somebody's network raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"channel_slim finds no dependency graph of {type(model).__name__} ({type(error).__name__}: {reason}): "
            f"which of its channels go together cannot be followed, as where a forward reshapes by numbers of its own. "
            f"{INSTEAD}"
        ) from error
    if rate and {name: tuple(p.shape) for name, p in model.named_parameters()} == before:
        raise UsageError(
            f"channel_slim finds no channels of {type(model).__name__} that could go: {_why(model, example)}"
        )
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def _why(model: nn.Module, example: Any) -> str:
    """Why nothing of a network could be removed."""
    found = {name: part.weight for name, part in model.named_modules() if isinstance(part, WEIGHTED)}
    weights = {name: weight for name, weight in found.items() if weight.requires_grad}
    with torch.enable_grad():
        answer = [leaf for leaf in tree_leaves(run(model, example)) if isinstance(leaf, Tensor) and leaf.requires_grad]
        total = sum((leaf.sum() for leaf in answer), torch.zeros((), requires_grad=True))
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    lost = [name for name, gradient in zip(weights, gradients, strict=True) if gradient is None]
    if lost:
        return (
            f"autograd does not see what {', '.join(lost[:3])} does for the outputs (a forward that leaves it, as "
            f"numpy and detach do, cannot be followed). {INSTEAD}"
        )
    return f"its only layers make its outputs, or a rate this small removes none. {INSTEAD}"


def _library() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise UsageError(
            "channel_slim needs torch-pruning: pip install 'waterline-bench[pruning]'; slim needs it not, "
            "for the networks of this suite"
        ) from error
    return torch_pruning


def last_layers(model: nn.Module) -> list[nn.Module]:
    """Layers that make the network's outputs, which keep all of theirs: the last linear or convolutional ones."""
    found = [part for part in model.modules() if isinstance(part, WEIGHTED)]
    heads = [
        part for name, part in model.named_modules() if name.split(".")[-1] in ("head", "fc", "classifier", "head_dist")
    ]
    inside = [part for head in heads for part in head.modules() if isinstance(part, WEIGHTED)]
    return [*found[-1:], *(part for part in inside[-1:] if part is not (found[-1] if found else None))]
