"""FBNet's search, small: gates over blocks learn by gradient, under a table of what each block takes on this machine.

Source: Wu et al. 2019, FBNet, arXiv:1812.03443, section 3: at every place of a supernet a soft gate (Gumbel softmax)
mixes candidate blocks; the loss is cross entropy x alpha log(latency)^beta, where the latency is the sum of soft gates
times table entries; weights and gates learn in turn. Places, widths and the number of steps are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import costs
from bench.config.settings import Count, PositiveInt
from suites.common.conv_blocks import PooledHead, conv_norm
from suites.common.inverted import InvertedBottleneck
from suites.common.task import learning_task
from suites.common.training import Pace, classification, fit

#: Candidates as in the paper's table 2: (kernel, expansion, groups); a place that keeps its shape may also be skipped.
CANDIDATES = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1))
#: Channels that go out of each place, and its stride.
PLACES = ((16, 2), (16, 1), (16, 1), (24, 2), (24, 1), (24, 1))
STEM, CLASSES, RESOLUTION = 8, 10, 16
#: Of the loss, as the paper has them; latencies are in microseconds, or in thousands of products.
ALPHA, BETA = 0.2, 0.6
#: The gates' softness at the first and at the last step, and their rate.
WARMEST, COLDEST, GATE_RATE = 5.0, 0.5, 0.05
BATCH, RATE = 32, 2e-3
#: Calls of a block for one timing, and timings of which the least counts.
CALLS, TIMINGS = 5, 5


class Place(nn.Module):
    """Candidates for one place: their mean, or their sum under the weights of a gate; one that is left is itself."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        found: list[nn.Module] = [
            InvertedBottleneck(
                inputs, outputs, hidden=inputs * expansion, kernel=kernel, stride=stride, groups=groups,
                widen=expansion > 1,
            )
            for kernel, expansion, groups in CANDIDATES
        ]  # fmt: skip
        if stride == 1 and inputs == outputs:
            found.append(nn.Identity())
        self.candidates = nn.ModuleList(found)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """A map of the candidates' outputs; `gate` is a weight for each of them, [candidates]."""
        if len(self.candidates) == 1:
            return self.candidates[0](x)
        weights = gate if gate is not None else x.new_full((len(self.candidates),), 1 / len(self.candidates))
        return sum(weight * each(x) for weight, each in zip(weights, self.candidates, strict=True))


class FbnetSupernet(nn.Module):
    """Digits [batch, 3, 16, 16] to logits through six places, all candidates at once or one of each."""

    def __init__(self) -> None:
        super().__init__()
        self.resolution, self.classes = RESOLUTION, CLASSES
        self.stem = conv_norm(3, STEM, 3, act=nn.ReLU)
        before, places = STEM, []
        for outputs, stride in PLACES:
            places.append(Place(before, outputs, stride))
            before = outputs
        self.places = nn.ModuleList(places)
        self.head = PooledHead(before, CLASSES)

    def forward(self, images: Tensor, gates: list[Tensor] | None = None) -> Tensor:
        """Logits; gates are weights of the candidates at each place."""
        x = self.stem(images)
        for number, place in enumerate(self.places):
            x = place(x, None if gates is None else gates[number])
        return self.head(x)

    def cut(self, chosen: list[int]) -> FbnetSupernet:
        """The network of one candidate at each place; all others are gone."""
        for place, number in zip(self.places, chosen, strict=True):
            kept: Any = place.candidates
            place.candidates = nn.ModuleList([kept[number]])
        return self

    def maps(self) -> list[Tensor]:
        """A random map as it comes into each place."""
        side, before, found = RESOLUTION, STEM, []
        for outputs, stride in PLACES:
            found.append(torch.randn(1, before, side, side))
            before, side = outputs, side // stride
        return found


def digits_fbnet() -> FbnetSupernet:
    """The supernet, all of its candidates averaged."""
    return FbnetSupernet().eval()


def microseconds(block: nn.Module, x: Tensor) -> float:
    """What a call of a block on a map takes on this machine: the least of some timings of some calls."""
    with torch.inference_mode():
        block(x)
        best = float("inf")
        for _ in range(TIMINGS):
            start = time.perf_counter()
            for _ in range(CALLS):
                block(x)
            best = min(best, (time.perf_counter() - start) / CALLS)
    return max(1e6 * best, 0.01)


def kilomacs(block: nn.Module, x: Tensor) -> float:
    """Thousands of products of a block on a map, and a hundredth of one for none: a table that needs no clock."""
    side, total = x.shape[-1], 0
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            side //= layer.stride[0]
            total += layer.weight.numel() * side * side
    return max(total / 1e3, 0.01)


def table_of(network: FbnetSupernet, entry: Callable[[nn.Module, Tensor], float]) -> list[Tensor]:
    """The latency of every candidate at every place, in the table's unit."""
    network.eval()
    return [
        torch.tensor([entry(each, x) for each in place.candidates])  # type: ignore[union-attr]
        for place, x in zip(network.places, network.maps(), strict=True)
    ]


def expected(gates: list[Tensor], table: list[Tensor]) -> Tensor:
    """The latency of a mixture, differentiable in its gates: the sum over places of gate times entry."""
    return torch.stack([(gate * row).sum() for gate, row in zip(gates, table, strict=True)]).sum()


def search(network: FbnetSupernet, task: Any, table: list[Tensor], steps: int, seed: int) -> list[Tensor]:
    """Logits of the gates at every place after so many steps of weights and of gates, in turn."""
    logits = [torch.zeros(len(row), requires_grad=True) for row in table]
    weights = torch.optim.AdamW(network.parameters(), lr=RATE)
    choice = torch.optim.Adam(logits, lr=GATE_RATE)
    torch.manual_seed(seed)
    network.train()
    for step, (images, labels) in enumerate(task.training_batches(BATCH, steps, seed + 1)):
        warmth = WARMEST * (COLDEST / WARMEST) ** (step / max(1, steps - 1))
        gates = [F.gumbel_softmax(row, tau=warmth) for row in logits]
        loss = F.cross_entropy(network(images, gates), labels)
        turn = choice if step % 5 == 4 else weights  # four parts of the batches teach weights, one the gates
        if turn is choice:
            loss = loss * ALPHA * expected(gates, table).log() ** BETA
        for optimizer in (weights, choice):
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        turn.step()
    network.eval()
    return [row.detach() for row in logits]


def fbnet_search(
    model: nn.Module, *, how: Literal["search", "random", "largest"] = "search",
    table: Literal["measured", "macs"] = "measured", steps: PositiveInt = 300, training_steps: Count = 300,
    seed: Count = 0,
) -> FbnetSupernet:  # fmt: skip
    """The network that the search, or chance, cuts out of the supernet, taught as long as the supernet was.

    Args:
        model: a supernet that was loaded by its task.
        how: `search`; `random` candidates, the control; or at every place the `largest`.
        table: latencies as measured here before the search, or products, which need no clock.
        steps: of the search.
        training_steps: batches on which the network that was cut out goes on learning.
        seed: of the gates' draws, and of chance.

    Raises:
        ValueError: not a supernet, or one that was loaded without its task.
    """
    if not isinstance(model, FbnetSupernet):
        raise ValueError("fbnet_search cuts networks out of a supernet: take the model digits_fbnet")
    task: Any = None
    if how == "search" or training_steps:
        task = learning_task(model, "fbnet_search", "take digits_fbnet with task=digits")
    with costs.recorded(model) as cost:
        chosen = _chosen(model, task, how, table, steps, seed)
        model.cut(chosen)
        _learn_on(model, task, chosen, training_steps)
    model.method_cost = cost.as_dict()  # type: ignore[assignment]
    model.learned = {"method": "fbnet_search", "how": how, "steps": training_steps}  # type: ignore[assignment]
    return model


def _chosen(model: FbnetSupernet, task: Any, how: str, table: str, steps: int, seed: int) -> list[int]:
    counts = [len(place.candidates) for place in model.places]  # type: ignore[arg-type]
    if how == "largest":
        return [len(CANDIDATES) - 1] * len(counts)
    if how == "random":
        generator = torch.Generator().manual_seed(seed)
        return [int(torch.randint(count, (1,), generator=generator)) for count in counts]

    def fbnet_gates() -> dict[str, Tensor]:
        twin = FbnetSupernet()
        twin.load_state_dict(model.state_dict())
        entries = table_of(twin, microseconds if table == "measured" else kilomacs)
        found = search(twin, task, entries, steps, seed)
        return {
            f"{number}": torch.stack((row, entry))
            for number, (row, entry) in enumerate(zip(found, entries, strict=True))
        }

    kept = task.remembered("fbnet_search", {"steps": steps, "seed": seed, "table": table}, fbnet_gates)
    return [int(kept[str(number)][0].argmax()) for number in range(len(counts))]


def _learn_on(model: FbnetSupernet, task: Any, chosen: list[int], steps: int) -> None:
    if not steps:
        return

    def fbnet_network() -> dict[str, Tensor]:
        fit(model, task.training_batches(BATCH, steps, 2), classification(model), Pace(steps, RATE, weight_decay=0.01))
        return model.state_dict()

    model.load_state_dict(task.remembered("fbnet_network", {"chosen": chosen, "steps": steps}, fbnet_network))
