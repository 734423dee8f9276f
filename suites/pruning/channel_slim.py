"""Channels of any network by torch-pruning's dependency graph: a smaller dense network, or a clear refusal.

torch-pruning (Fang et al. 2023, "DepGraph", arXiv:2301.12900; MIT) is an optional extra: `pip install
waterline-bench[pruning]`.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from bench.config.settings import PositiveInt, Rate
from bench.errors import UsageError
from suites.pruning.rounding import check_sparsity

#: What a rate is lessened by: the library rounds c (1 - rate) down in binary, and a tenth of 20 channels are 2, not 1.
BINARY = 1e-9


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
        UsageError: the extra is not installed, or no dependency graph of the network can be found.
    """
    check_sparsity(rate, "rate")
    tp = _library()
    example = _example(model)
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
            round_to=multiple,
            ignored_layers=last_layers(model),
        )  # fmt: skip
        pruner.step()
        model(*example)
    except Exception as error:  # whatever tracing somebody's network raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"channel_slim finds no dependency graph of {type(model).__name__} ({type(error).__name__}: {reason}): "
            "which of its channels go together cannot be followed. global_magnitude and block_sparse need no graph"
        ) from error
    if rate and {name: tuple(p.shape) for name, p in model.named_parameters()} == before:
        raise UsageError(
            f"channel_slim finds no channels of {type(model).__name__} that could go: its only layers make its "
            "outputs, or a rate this small removes none"
        )
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def _library() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise UsageError(
            "channel_slim needs torch-pruning: pip install 'waterline-bench[pruning]'; slim needs it not, "
            "for the networks of this suite"
        ) from error
    return torch_pruning


def _example(model: nn.Module) -> tuple[Any, ...]:
    import torch

    own = getattr(model, "example_inputs", None)
    if callable(own):
        found = own(1)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)
    side, channels = int(getattr(model, "resolution", 224)), int(getattr(model, "channels", 3))
    return (torch.randn(1, channels, side, side).to(next(model.parameters())),)


def last_layers(model: nn.Module) -> list[nn.Module]:
    """Layers that make the network's outputs, which keep all of theirs: the last linear or convolutional ones."""
    from suites.pruning.layers import WEIGHTED

    found = [part for part in model.modules() if isinstance(part, WEIGHTED)]
    heads = [
        part for name, part in model.named_modules() if name.split(".")[-1] in ("head", "fc", "classifier", "head_dist")
    ]
    inside = [part for head in heads for part in head.modules() if isinstance(part, WEIGHTED)]
    return [*found[-1:], *(part for part in inside[-1:] if part is not (found[-1] if found else None))]
