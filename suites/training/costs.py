"""Products of a training step: forward, gradients of inputs, gradients of weights, tensor by tensor. Pure; no torch.

A linear map on T tokens costs F = T d_in d_out forward, F for its input's gradient and F for its weight's. Attention of
N tokens costs 2 B N^2 D forward and 4 B N^2 D for its gradients. A weight's gradient is executed where the weight
trains; an input's gradient on all operators that lie nearer the loss than the earliest trained tensor. Biases and norms
are vector work. Checkpointing adds a forward of its segments.

A GPT with a tied head, L blocks, width D, network 4 D and V ids: forward = B N (12 L D^2 + V D) + 2 L B N^2 D; input
gradients 2 L B N^2 D more, weight gradients as much less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Ending of the name of attention's gradients, which are no tensor's.
SCORES = "attention.scores"


@dataclass(frozen=True)
class TensorCost:
    """One parameter tensor: products of its own gradient, and of passing the gradient on through its operator."""

    name: str
    dw: int
    dy: int


def forward_macs(batch: int, tokens: int, layers: int, width: int, vocabulary: int, hidden: int | None = None) -> int:
    """Products of a forward: B N (L (4 D^2 + 2 D F) + V D) + 2 L B N^2 D."""
    wide = 4 * width if hidden is None else hidden
    linear = layers * (4 * width**2 + 2 * width * wide) + vocabulary * width
    return batch * tokens * linear + 2 * layers * batch * tokens**2 * width


def input_gradient_macs(
    batch: int, tokens: int, layers: int, width: int, vocabulary: int, hidden: int | None = None
) -> int:
    """Products of all input gradients: those of the forward and the second half of attention's gradients."""
    return forward_macs(batch, tokens, layers, width, vocabulary, hidden) + 2 * layers * batch * tokens**2 * width


def weight_gradient_macs(
    batch: int, tokens: int, layers: int, width: int, vocabulary: int, hidden: int | None = None
) -> int:
    """Products of all weight gradients: those of the forward without attention."""
    return forward_macs(batch, tokens, layers, width, vocabulary, hidden) - 2 * layers * batch * tokens**2 * width


def step_macs(batch: int, tokens: int, layers: int, width: int, vocabulary: int, hidden: int | None = None) -> int:
    """Products of a step that trains everything."""
    sizes = (batch, tokens, layers, width, vocabulary, hidden)
    return forward_macs(*sizes) + input_gradient_macs(*sizes) + weight_gradient_macs(*sizes)


def last_blocks_macs(batch: int, tokens: int, layers: int, width: int, vocabulary: int, last: int) -> int:
    """Products of a step that trains the linear weights of the last blocks and the head.

    Every input gradient of these blocks is executed but that of the first of them's qkv map, which is the earliest
    trained operator.
    """
    linear = batch * tokens * (12 * last * width**2 + vocabulary * width)
    attention = 4 * last * batch * tokens**2 * width
    earliest = 3 * batch * tokens * width**2
    return forward_macs(batch, tokens, layers, width, vocabulary) + 2 * linear + attention - earliest


def lora_step_macs(batch: int, tokens: int, layers: int, width: int, vocabulary: int) -> int:
    """Products of a step in which no large weight trains, products of rank r left out: forward and input gradients."""
    sizes = (batch, tokens, layers, width, vocabulary)
    return forward_macs(*sizes) + input_gradient_macs(*sizes)


def gpt_tensors(batch: int, tokens: int, layers: int, width: int, hidden: int, vocabulary: int) -> list[TensorCost]:
    """Tensors of a GPT with one qkv map and a tied head, from the input to the loss, as `suites.common.gpt` names them.

    Attention's gradients stand between the output map and the qkv map as `attention.scores`, which nothing trains: on
    the qkv bias, where the paper books them, they would be left out where that bias is the earliest. The tied table is
    the last tensor: its gradient is B N D V of the head, and the head passes B N D V on; the look-up passes nothing on.
    The table of positions comes first.
    """
    rows = batch * tokens
    found = [TensorCost("places.weight", 0, 0)]
    for place in range(layers):
        block = f"blocks.{place}."

        def linear(name: str, inner: int, outer: int, block: str = block) -> list[TensorCost]:
            macs = rows * inner * outer
            return [TensorCost(f"{block}{name}.weight", macs, macs), TensorCost(f"{block}{name}.bias", 0, 0)]

        def norm(name: str, block: str = block) -> list[TensorCost]:
            return [TensorCost(f"{block}{name}.{part}", 0, 0) for part in ("weight", "bias")]

        found += norm("norm1")
        found += linear("attention.qkv", width, 3 * width)
        found.append(TensorCost(f"{block}{SCORES}", 0, 4 * batch * tokens**2 * width))
        found += linear("attention.out", width, width)
        found += norm("norm2") + linear("network.fc1", width, hidden) + linear("network.fc2", hidden, width)
    found += [TensorCost("norm.weight", 0, 0), TensorCost("norm.bias", 0, 0)]
    head = rows * width * vocabulary
    return [*found, TensorCost("embed.weight", head, head)]


def backward_macs(tensors: Sequence[TensorCost], chosen: set[str], charge_own: bool = False) -> int:
    """Products of a backward that trains the chosen tensors.

    Args:
        tensors: from the input to the loss.
        chosen: names of those that train.
        charge_own: whether the earliest chosen tensor's own dy is counted, as the released code does and autograd does
            not execute.
    """
    first = next((place for place, part in enumerate(tensors) if part.name in chosen), None)
    if first is None:
        return 0
    passed = sum(part.dy for part in tensors[first if charge_own else first + 1 :])
    return passed + sum(part.dw for part in tensors if part.name in chosen)


def saved_block_elements(batch: int, tokens: int, width: int, copied: bool = False) -> int:
    """Elements that autograd saves in a block without dropout: 16 b s h, 17 where the attention's output is copied.

    Inputs of norms 2, their outputs 2, qkv 3, attention's output 1, network 4 + 4; statistics apart.
    """
    return (17 if copied else 16) * batch * tokens * width


def step_forwards(segments_recomputed: bool) -> int:
    """Forwards' worth of products in a step that trains everything: 3, and 4 with every segment computed again."""
    return 4 if segments_recomputed else 3
