"""Chains of additive couplings whose inputs are rebuilt from their outputs in the backward.

A move adds to one state what a network makes of others: s_t <- a s_t + f(s_others); it is undone by
s_t <- (s_t - f(s_others)) / a. A block is some moves, a chain some blocks: RevNet's couplings (Gomez et al. 2017,
arXiv:1707.04585) are two moves between two halves, a reversible column is one move a level.

One autograd function stands for a whole chain: its forward keeps the last states alone, its backward walks the moves
from the end, rebuilds, runs each network once with gradients and lets go of what it no longer needs. A function per
block would keep every block's output. Nothing in a move may depend on a generator or on running statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from suites.common.checkpointing import Segment

How = Literal["ordinary", "reversible"]
#: What a chain keeps for its backward: all, inputs of its segments, or its last states.
Keeps = Literal["ordinary", "checkpoint", "reversible"]
States = tuple[Tensor, ...]
#: A learned scale stays this far from 0, since the inverse divides by it.
LEAST_SCALE = 0.1
_FORBIDDEN = (nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.modules.batchnorm._BatchNorm)


class Move(nn.Module):
    """s_t <- a s_t + f(s_sources), with a = 1 or a learned scalar of at least 0.1.

    Raises:
        ValueError: the target is a source, or the network has dropout or batch norms, which do not come out the same.
    """

    def __init__(self, network: nn.Module, target: int, sources: Sequence[int], scaled: bool = False):
        super().__init__()
        if target in sources:
            raise ValueError(f"a move cannot read state {target}, which it writes: it could not be undone")
        if any(isinstance(part, _FORBIDDEN) for part in network.modules()):
            raise ValueError("dropout and batch norms do not give the same when they run again: use group norms")
        self.network, self.target, self.sources = network, target, tuple(sources)
        self.scale = nn.Parameter(torch.ones(())) if scaled else None

    def factor(self) -> Tensor | None:
        """a, or None for 1."""
        return None if self.scale is None else self.scale.clamp(min=LEAST_SCALE)

    def added(self, states: Sequence[Tensor]) -> Tensor:
        """F of the sources."""
        return self.network(*(states[place] for place in self.sources))

    def forward(self, *states: Tensor) -> States:
        """The states after the move."""
        a, old = self.factor(), states[self.target]
        new = (old if a is None else a * old) + self.added(states)
        return _with(states, self.target, new)

    def inverse(self, *states: Tensor) -> States:
        """The states before the move."""
        a = self.factor()
        old = states[self.target] - self.added(states)
        return _with(states, self.target, old if a is None else old / a)


def _with(states: Sequence[Tensor], place: int, state: Tensor) -> States:
    return tuple(state if at == place else other for at, other in enumerate(states))


class Moves(nn.Module):
    """Moves one after another: a coupling, a sub-network."""

    def __init__(self, moves: Sequence[Move]):
        super().__init__()
        self.moves = nn.ModuleList(moves)

    def forward(self, *states: Tensor) -> States:
        """The states after all moves."""
        for move in self.moves:
            states = move(*states)
        return states

    def inverse(self, *states: Tensor) -> States:
        """The states before them."""
        for move in reversed(list(self.moves)):
            assert isinstance(move, Move)
            states = move.inverse(*states)
        return states


class Chain(nn.Module):
    """Blocks of moves; `how` says what its backward needs.

    Attributes:
        blocks: what methods that keep some states and compute the rest again may regroup.
        how: `ordinary` autograd, or `reversible`.
    """

    def __init__(self, blocks: Sequence[Moves]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.how: How = "ordinary"

    @property
    def keeps(self) -> Keeps:
        """How it runs now, `checkpoint` where its blocks were put into segments."""
        if self.how == "reversible":
            return "reversible"
        return "checkpoint" if any(isinstance(block, Segment) for block in self.blocks) else "ordinary"

    def moves(self) -> list[Move]:
        """All moves in order."""
        return [part for part in self.modules() if isinstance(part, Move)]

    def forward(self, *states: Tensor) -> States:
        """The states after all blocks."""
        moves = self.moves()
        if self.how == "reversible" and moves and torch.is_grad_enabled():
            parameters = [part for part in self.parameters() if part.requires_grad]
            return _Walk.apply(moves, len(states), *states, *parameters)
        for block in self.blocks:
            states = block(*states)
        return states

    def inverse(self, *states: Tensor) -> States:
        """The states that give these."""
        for move in reversed(self.moves()):
            states = move.inverse(*states)
        return states

    def states_of(self, *given: Tensor) -> States:
        """The states that its moves are given, of what the module is given."""
        return given


class _Walk(torch.autograd.Function):
    """A chain that keeps its last states and walks back from them."""

    @staticmethod
    def forward(ctx: Any, moves: list[Move], count: int, *given: Tensor) -> States:
        states: States = given[:count]
        for move in moves:
            states = move(*states)
        # A state that no move wrote is passed on as a tensor of its own: an input handed back would be marked changed.
        states = tuple(s.view_as(s) if any(s is g for g in given[:count]) else s for s in states)
        ctx.moves, ctx.parameters = moves, given[count:]
        ctx.save_for_backward(*states)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        states = list(ctx.saved_tensors)
        found: dict[int, Tensor] = {}
        passed = [torch.zeros_like(s) if g is None else g for g, s in zip(grads, states, strict=True)]
        del grads
        for move in reversed(ctx.moves):
            _undo(move, states, passed, found)
        own = [found.pop(id(part), None) for part in ctx.parameters]
        return (None, None, *passed, *own)


def _undo(move: Move, states: list[Tensor], grads: list[Tensor], found: dict[int, Tensor]) -> None:
    """Put states and gradients before the move in place of those behind it; parameters' gradients are added up."""
    target = move.target
    parameters = [part for part in move.network.parameters() if part.requires_grad]
    with torch.enable_grad():
        sources = [states[place].detach().requires_grad_() for place in move.sources]
        # Views, since whoever watches modules may hang hooks on what they are given, and on leaves they fail here.
        added = move.network(*(source.view_as(source) for source in sources))
    with torch.no_grad():
        old = states[target] - added.detach()
        a = move.factor()
        if a is not None:
            old = old / a
        states[target] = old
    made = torch.autograd.grad(added, [*sources, *parameters], grads[target], allow_unused=True)
    del added, sources
    with torch.no_grad():
        for place, grad in zip(move.sources, made, strict=False):
            if grad is not None:
                grads[place] = grads[place] + grad
        for part, grad in zip(parameters, made[len(move.sources) :], strict=True):
            if grad is not None:
                found[id(part)] = grad if id(part) not in found else found[id(part)] + grad
        if a is not None:
            assert move.scale is not None
            inside = (move.scale >= LEAST_SCALE).to(old.dtype)  # a clamp that holds passes no gradient on
            own = (grads[target] * old).sum() * inside
            found[id(move.scale)] = own if id(move.scale) not in found else found[id(move.scale)] + own
            grads[target] = grads[target] * a


def reversible(model: nn.Module) -> nn.Module:
    """The network whose chains rebuild their inputs in the backward instead of keeping them.

    It says as `rebuilding_error` how far what they rebuild is from what they were given, on its own example inputs.

    Raises:
        ValueError: it has no chain of moves.
    """
    chains = [part for part in model.modules() if isinstance(part, Chain)]
    if not chains:
        raise ValueError("reversible works on networks of reversible chains: reversible_unet, deeprftv2")
    for chain in chains:
        chain.how = "reversible"
    if hasattr(model, "example_inputs"):
        model.rebuilding_error = _example_error(model)  # type: ignore[assignment]
    return model


def _example_error(model: Any) -> float | None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = model.example_inputs(1)
    return None if inputs[0].is_meta else rebuilding_error(model, *inputs)


@torch.no_grad()
def rebuilding_error(model: nn.Module, *inputs: Tensor) -> float:
    """Largest distance of a rebuilt number from the given one, over the largest given one of its chain.

    Args:
        model: of chains; they are run forwards and back once more behind its forward.
        inputs: of its forward.
    """
    found = [0.0]

    def see(chain: Any, given: tuple[Tensor, ...], _: Any) -> None:
        states = chain.states_of(*given)
        after: States = states
        for move in chain.moves():
            after = move(*after)
        pairs = zip(states, chain.inverse(*after), strict=True)
        largest = max(float(state.abs().max()) for state in states)
        found.append(max(float((a - b).abs().max()) for a, b in pairs) / max(largest, 1e-30))

    handles = [part.register_forward_hook(see) for part in model.modules() if isinstance(part, Chain)]
    model(*inputs)
    for handle in handles:
        handle.remove()
    return max(found)
