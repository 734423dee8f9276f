"""What a layer costs on paper: its operators with their multiply-accumulates and the bytes that they move; torch-free.

A row of a table is one layer of a network with all its operators (convolution, norm, activation, sum); its key says
everything that its time may depend on, so that layers of equal keys share a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Bytes of a number.
SIZE = 4
#: Numbers a channel that a norm reads in evaluation: weight, bias, mean, variance.
NORM_NUMBERS = 4


@dataclass(frozen=True)
class Operator:
    """One operator: multiply-accumulates, bytes of weights and of activations that it reads and writes.

    `per_channel` is a convolution with one filter a channel, whose products reuse nothing.
    """

    kind: str
    macs: float = 0.0
    weight_bytes: float = 0.0
    activation_bytes: float = 0.0
    kernel: int = 0
    per_channel: bool = False


@dataclass(frozen=True)
class Row:
    """One row of a table: a layer by its key, with its operators in order; an empty key is in no table."""

    key: str
    operators: tuple[Operator, ...]

    @property
    def macs(self) -> float:
        """Multiply-accumulates of one picture."""
        return sum(operator.macs for operator in self.operators)

    @property
    def bytes(self) -> float:
        """Bytes that the operators read and write, each for itself."""
        return sum(operator.weight_bytes + operator.activation_bytes for operator in self.operators)

    @property
    def parameters(self) -> float:
        """Numbers that are stored."""
        return sum(operator.weight_bytes for operator in self.operators) / SIZE


def convolution(
    inputs: int, outputs: int, side: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = "relu"
) -> list[Operator]:
    """A convolution with 'same' padding on a map of that side, its norm, and its activation unless `act` is empty."""
    after = -(-side // stride)
    coming, going = inputs * side**2, outputs * after**2
    weights = inputs // groups * outputs * kernel**2
    alone = groups == inputs == outputs and groups > 1
    found = [
        Operator("conv", weights * after**2, SIZE * weights, SIZE * (coming + going), kernel, alone),
        Operator("norm", 0, SIZE * NORM_NUMBERS * outputs, SIZE * 2 * going),
    ]
    return [*found, Operator(act, 0, 0, SIZE * 2 * going)] if act else found


def dense(inputs: int, outputs: int, act: str = "") -> list[Operator]:
    """A linear layer with bias, and its activation if there is one."""
    found = [Operator("linear", inputs * outputs, SIZE * (inputs + 1) * outputs, SIZE * (inputs + outputs))]
    return [*found, Operator(act, 0, 0, SIZE * 2 * outputs)] if act else found


def inverted(
    inputs: int, outputs: int, side: int, kernel: int, stride: int, expansion: int, groups: int, act: str = "relu"
) -> list[Operator]:
    """An inverted residual block: 1x1 to expansion x inputs (absent at 1), depthwise, 1x1, a sum where shapes agree."""
    hidden, after = inputs * expansion, -(-side // stride)
    found = convolution(inputs, hidden, side, groups=groups, act=act) if expansion > 1 else []
    found += convolution(hidden, hidden, side, kernel, stride, hidden, act)
    found += convolution(hidden, outputs, after, groups=groups, act="")
    if stride == 1 and inputs == outputs:
        found.append(Operator("add", 0, 0, SIZE * 3 * outputs * after**2))
    return found


def pooled_head(inputs: int, last: int, side: int, classes: int, act: str = "relu") -> list[Operator]:
    """A 1x1 layer, the mean over the map and a linear layer."""
    found = convolution(inputs, last, side, act=act)
    return [*found, Operator("pool", 0, 0, SIZE * last * (side**2 + 1)), *dense(last, classes)]


#: What a learned model is told of a row, in this order.
ROW_NUMBERS = (
    "macs", "per_channel_macs", "weight_bytes", "activation_bytes", "operators", "largest_kernel",
)  # fmt: skip


def numbers_of(rows: Iterable[Row]) -> list[float]:
    """The numbers of `ROW_NUMBERS` over all operators of the rows together."""
    operators = [operator for row in rows for operator in row.operators]
    return [
        float(sum(operator.macs for operator in operators)),
        float(sum(operator.macs for operator in operators if operator.per_channel)),
        float(sum(operator.weight_bytes for operator in operators)),
        float(sum(operator.activation_bytes for operator in operators)),
        float(len(operators)),
        float(max((operator.kernel for operator in operators), default=0)),
    ]


def attainable_ms(rows: Sequence[Row], operations_per_s: float, bytes_per_s: float) -> float:
    """The roofline's time: each operator at the peak of products or of memory, whichever takes longer, one by one."""
    return 1e3 * sum(
        max(2 * operator.macs / operations_per_s, (operator.weight_bytes + operator.activation_bytes) / bytes_per_s)
        for row in rows
        for operator in row.operators
    )
