"""What a learned predictor has to beat: multiply-accumulates times a constant, and the roofline's attainable time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.errors import UsageError
from suites.predict.networks import Network
from suites.predict.predictor import Knowledge, Predictor, Question, enough


class MacsConstant(Predictor):
    """cost = constant x multiply-accumulates; the constant is the median ratio of the networks that it learns from."""

    constant: Tensor

    def __init__(self, question: Question):
        super().__init__(question)
        self.register_buffer("constant", torch.ones(1))

    def work(self, network: Network) -> float | None:
        """What the cost is a multiple of; None where it is not known."""
        return network.macs

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """Millions of multiply-accumulates, [networks]."""
        return (torch.tensor([(self.work(network) or 0.0) / 1e6 for network in given]),)

    def forward(self, macs: Tensor) -> Tensor:
        """Costs, [networks]."""
        return macs * self.constant

    def fit(self, known: Knowledge) -> None:
        """The median of cost over products."""
        items = enough(known, 1, "the constant")
        pairs = [(item.cost.value, self.work(item.network)) for item in items]
        ratios = [1e6 * cost / work for cost, work in pairs if work]
        self.constant.fill_(float(torch.tensor(ratios, dtype=torch.float64).median()) if ratios else 0.0)

    def lacks(self, network: Network) -> str:
        """A number of products."""
        return "" if network.macs else "its multiply-accumulates are not known"


class Multipliers(MacsConstant):
    """cost = constant x multipliers on an FPGA: multiply-accumulates over how often each multiplier is used.

    The analytic baseline of wa-hls4ml (arXiv 2511.05615): of a table of the user's own the column `reuse`; networks of
    this machine use each once.
    """

    def work(self, network: Network) -> float | None:
        """Multipliers; None where products or reuse are not known."""
        reuse = network.given.get("reuse") if network.given else 1.0
        return network.macs / reuse if network.macs and reuse is not None and reuse >= 1 else None

    def lacks(self, network: Network) -> str:
        """Products and a reuse factor."""
        if not network.macs or self.work(network):
            return super().lacks(network)
        return "its reuse factor is not known: a column `reuse` of 1 or more is wanted"


class Roofline(Predictor):
    """cost = sum over operators of the longer of products at the peak and bytes at the bandwidth; nothing is fitted."""

    peaks: Tensor
    learns = False

    def __init__(self, question: Question):
        super().__init__(question)
        self.register_buffer("peaks", torch.tensor([5e10, 1e10]))

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """Operations and bytes of every operator, [networks, most operators, 2]."""
        operators = [[o for row in network.rows for o in row.operators] for network in given]
        longest = max([1, *map(len, operators)])
        values = [
            [*([2 * o.macs, o.weight_bytes + o.activation_bytes] for o in own), *[[0.0, 0.0]] * (longest - len(own))]
            for own in operators
        ]
        return (torch.tensor(values, dtype=torch.float32),)

    def forward(self, work: Tensor) -> Tensor:
        """Milliseconds, [networks]."""
        return 1e3 * (work / self.peaks).amax(-1).sum(-1)

    def fit(self, known: Knowledge) -> None:
        """Take over the machine's peaks.

        Raises:
            UsageError: it was not calibrated.
        """
        if not known.operations_per_s or not known.bytes_per_s:
            raise UsageError("the roofline needs the machine's peaks, which no record has: run job=calibrate first")
        self.peaks.copy_(torch.tensor([known.operations_per_s, known.bytes_per_s]))

    def lacks(self, network: Network) -> str:
        """Operators with their bytes."""
        return "" if network.rows else "the bytes of its operators are not known"


class OtherForm(Predictor):
    """cost = what the same network took in another form: whether two backends rank networks alike."""

    costs: Tensor
    learns = False

    def __init__(self, question: Question):
        super().__init__(question)
        self.register_buffer("costs", torch.zeros(1))
        self.places: dict[str, int] = {}

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """The place of each network among those that were measured, [networks]; the first for others."""
        return (torch.tensor([self.places.get(network.key, 0) for network in given]),)

    def forward(self, places: Tensor) -> Tensor:
        """Costs, [networks]."""
        return self.costs[places]

    def fit(self, known: Knowledge) -> None:
        """Take over what was measured.

        Raises:
            UsageError: nothing was, in that form.
        """
        if not known.other_form:
            raise UsageError(f"no network was measured in the form {self.question.table}: run the default grid first")
        self.places = {item.network.key: place for place, item in enumerate(known.other_form)}
        self.costs = torch.tensor([item.cost.value for item in known.other_form])

    def lacks(self, network: Network) -> str:
        """That network in that form."""
        return "" if network.key in self.places else f"it was not measured in the form {self.question.table}"


class Given(Predictor):
    """cost = a column of a table of the user's own: predictions that another tool made, or a closed form."""

    learns = False

    def __init__(self, question: Question, column: str):
        super().__init__(question)
        self.column = column

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """The column, [networks]."""
        return (torch.tensor([network.given.get(self.column, 0.0) for network in given]),)

    def forward(self, values: Tensor) -> Tensor:
        """The column, [networks]."""
        return values.clone()

    def fit(self, known: Knowledge) -> None:
        """There is nothing to learn."""

    def lacks(self, network: Network) -> str:
        """That column."""
        return "" if self.column in network.given else f"it has no column {self.column}"
