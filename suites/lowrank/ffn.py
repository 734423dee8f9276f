"""Structured feed-forward networks in a GPT, and one such network as an operator (arXiv 2406.16450).

Both maps of every network become structured; attention, embedding and head stay dense, biases stay on the outputs.
For few tokens a product of two factors is two small products one after the other, which may take longer than the dense
one: `pre_merge` keeps W beside the factors and uses it in calls of at most so many tokens. Both copies are stored.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.from_scratch import learned
from suites.common.gpt import Gpt, as_gpt
from suites.common.initial import draw
from suites.lowrank.structures import Guided, Structure, Structured, ffn_values, structured
from suites.lowrank.tolerances import tolerance_in

#: A dense or a structured map.
Map = nn.Linear | Structured


def structured_ffn(
    model: nn.Module,
    *,
    structure: Literal["LowRank", "BlockDense", "BlockShuffle"] = "LowRank",
    rank: PositiveInt | None = None,
    blocks: PositiveInt = 4,
    skip_first: bool = False,
    pre_merge: Count = 0,
    self_guided: bool = False,
    reduce_flop: bool = False,
    guide_steps: PositiveInt = 75,
    training_steps: Count = 0,
) -> Gpt:
    """The GPT whose networks have structured maps, which start at random and are learned from scratch.

    Args:
        model: a GPT of suites.common.gpt.
        structure: which product stands for a weight.
        rank: of LowRank and BlockDense; None for half of the width.
        blocks: of BlockDense and BlockShuffle.
        skip_first: whether the first layer stays dense.
        pre_merge: most tokens of a call that take the merged matrix; 0 stores none.
        self_guided: whether a dense matrix guides the structured one while it learns.
        reduce_flop: whether the guide is multiplied with the probability of its share only.
        guide_steps: training forwards until the guide's share is 0; half of a run in the paper.
        training_steps: batches of 16 to learn from; 0 gives a cost and no quality.

    Raises:
        ValueError: not such a model, sizes that do not divide, or no task to learn from.
    """
    plain = as_gpt(model, "structured_ffn")
    if reduce_flop and not self_guided:
        raise ValueError("reduce_flop=True leaves out products of the guide: set self_guided=True as well")
    changed = plain.again() if training_steps else plain
    width = plain.settings["width"]
    size = width // 2 if rank is None and structure != "BlockShuffle" else rank
    for block in changed.blocks[1 if skip_first else 0 :]:
        for name in ("fc1", "fc2"):
            dense = getattr(block.network, name)
            new = _replacement(dense, structure, size, blocks)
            setattr(block.network, name, Guided(new, guide_steps, reduce_flop) if self_guided else new)
    settings = {
        "structure": structure, "rank": size, "blocks": blocks, "skip_first": skip_first,
        "self_guided": self_guided, "reduce_flop": reduce_flop, "guide_steps": guide_steps,
    }  # fmt: skip
    found = as_gpt(learned(changed, plain, structured_ffn, settings, training_steps), "structured_ffn")
    _forget_guides(found, training_steps)
    for module in found.modules():
        if pre_merge and isinstance(module, Structured):
            module.keep_merged(pre_merge)
    return found.eval()


def _replacement(dense: nn.Linear, structure: Structure, rank: int | None, blocks: int) -> Structured:
    new = structured(structure, dense.in_features, dense.out_features, rank, blocks).to(dense.weight)
    new.start_from(dense.weight)
    return new


def _forget_guides(model: Gpt, training_steps: int) -> None:
    """Leave the structured maps alone in a network that has learned: inference knows no guide."""
    if not training_steps:
        return
    for block in model.blocks:
        for name in ("fc1", "fc2"):
            part = getattr(block.network, name)
            if isinstance(part, Guided):
                setattr(block.network, name, part.inner)


class FfnLayer(nn.Module):
    """One network fc2(gelu(fc1 x)) as an operator on features [batch, tokens, width].

    Attributes:
        form: what really runs.
    """

    def __init__(self, width: int, tokens: int, fc1: Map, fc2: Map, form: str):
        super().__init__()
        self.width, self.tokens, self.form = width, tokens, form
        self.fc1: Map = fc1
        self.fc2: Map = fc2

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))

    @property
    def tolerance(self) -> float:
        """Largest relative distance from the merged network: 1e-5 in single precision, more where bits are few."""
        return tolerance_in(self.fc1.bias.dtype)

    def reference(self, x: Tensor) -> Tensor:
        """The same with both matrices written out in double precision, of the factors as they are stored."""
        twin = copy.deepcopy(self).double()
        hidden = F.gelu(F.linear(x.double(), _whole(twin.fc1), twin.fc1.bias))
        return F.linear(hidden, _whole(twin.fc2), twin.fc2.bias)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random features."""
        like = self.fc1.bias
        return (torch.randn(batch, self.tokens, self.width, device=like.device).to(like.dtype),)


def _whole(part: Map) -> Tensor:
    return part.weight if isinstance(part, nn.Linear) else part.merged()


def ffn_layer(
    *,
    structure: Literal["dense", "LowRank", "BlockDense", "BlockShuffle"] = "dense",
    width: PositiveInt = 768,
    hidden: PositiveInt | None = None,
    rank: PositiveInt | None = None,
    blocks: PositiveInt = 4,
    pre_merge: Count = 0,
    length: PositiveInt = 128,
) -> FfnLayer:
    """One feed-forward network as an operator, in evaluation mode.

    Args:
        structure: dense, or which product stands for a weight.
        width: d.
        hidden: F; None for 4 d.
        rank: of LowRank and BlockDense; None for half of the width.
        blocks: of BlockDense and BlockShuffle.
        pre_merge: most tokens of a call that take the merged matrix; 0 stores none.
        length: tokens of a sequence.

    Raises:
        ValueError: sizes that do not divide, or a dense network that is asked to merge.
    """
    wide = 4 * width if hidden is None else hidden
    parts = [nn.Linear(width, wide), nn.Linear(wide, width)]
    for part in parts:
        draw(part.weight)
        nn.init.zeros_(part.bias)
    if structure == "dense":
        if pre_merge:
            raise ValueError("pre_merge belongs to a structured network: a dense one has nothing to merge")
        return FfnLayer(width, length, parts[0], parts[1], "dense").eval()
    size = width // 2 if rank is None and structure != "BlockShuffle" else rank
    made = [_replacement(part, structure, size, blocks) for part in parts]
    for new in made:
        new.keep_merged(pre_merge)
    form = f"{structure}, merged up to {pre_merge} tokens" if pre_merge else structure
    return FfnLayer(width, length, made[0], made[1], form).eval()


def gpt_parameters(
    dense: int, *, width: int, layers: int, hidden: int, structure: Structure, rank: int | None = None,
    blocks: int = 1, skip_first: bool = False,
) -> int:  # fmt: skip
    """Parameters of a GPT of `dense` parameters once its networks are structured."""
    changed = layers - (1 if skip_first else 0)
    return dense - changed * (2 * width * hidden - ffn_values(structure, width, hidden, rank, blocks))
