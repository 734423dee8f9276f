"""Nominal bits beside stored ones: what a declared number format would store and compute, whatever runs here.

A module declares the bits of its own and its inner modules' weights as `nominal_bits`, those of its activations as
`nominal_activation_bits`; the nearest declaration from a parameter or operator outwards holds. Where `nominal_bits` has
a share of scales in it, `nominal_code_bits` beside it says what is multiplied. What nobody declares counts as it is
stored. A subject that knows better declares the sum: `module.nominal_bit_operations`, per sample, a
number or a mapping by part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from torch import nn

from bench.meters.inventory import packed_weights
from bench.meters.macs_count import MacsCount
from bench.meters.operator_record import OperatorRecord
from bench.meters.three_counts import declared
from bench.reading import Reading, reading, unavailable

WEIGHTS, ACTIVATIONS, OPERATIONS = "nominal_bits", "nominal_activation_bits", "nominal_bit_operations"
CODES = "nominal_code_bits"


def bits(module: nn.Module) -> list[Reading]:
    """`nominal_bits`: the mean over all distinct parameters; nothing where no module declares any.

    A packed weight that is no parameter cannot be weighed by its elements: then the root's own declaration holds alone.
    """
    declared = _declarations(module, WEIGHTS)
    if not declared:
        return []
    sizes = list(_weights(module, declared))
    if not sizes:
        if "" in declared:
            note = "as declared for the whole network, which has no parameters to weigh by"
            return [reading("nominal_bits", declared[""], "counted", method_note=note)]
        return [unavailable("nominal_bits", "the modules that declare nominal_bits have no parameters to weigh by")]
    elements = sum(count for count, _ in sizes)
    value = sum(count * width for count, width in sizes) / elements
    note = f"over {elements} parameters; {len(declared)} modules declare nominal_bits, the rest counts as it is stored"
    return [reading("nominal_bits", value, "counted", method_note=note)]


def operations(count: MacsCount, module: nn.Module, part: str, batch: int) -> list[Reading]:
    """`nominal_bit_operations` of one part per sample; nothing where no module declares any bits.

    Args:
        count: of the part's whole batch.
        module: the subject's.
        part: of the workload.
        batch: samples that the count is of.
    """
    whole = declared(module, OPERATIONS, part)
    if whole is not None:
        return [reading(OPERATIONS, whole, "counted", method_note="declared by the subject")]
    activations, weights = _declarations(module, ACTIVATIONS), _declarations(module, WEIGHTS)
    weights |= _declarations(module, CODES)
    if not weights and not activations:
        return []
    coded = {path for path, part in module.named_modules() if packed_weights(part)}
    value = sum(record.macs * _product(record, weights, activations, coded) for record in count.records if record.macs)
    note = "MACs x declared weight bits x declared activation bits; undeclared sides as they are executed"
    return [reading(OPERATIONS, value / batch, "counted", method_note=note)]


def _product(
    record: OperatorRecord, weights: Mapping[str, float], activations: Mapping[str, float], coded: Collection[str]
) -> float:
    """Bits of one side times bits of the other: weights against activations, or activations against each other.

    A module of codes (`coded`) multiplies by weights that it has just made, which no count knows for weights.
    """
    inner = nearest(activations, record.path)
    left = float(record.left_bits) if inner is None else inner
    if record.weight_read == 0 and record.path not in coded:
        return left * (float(record.right_bits) if inner is None else inner)
    own = nearest(weights, record.path)
    return left * (float(record.right_bits) if own is None else own)


def nearest(declared: Mapping[str, float], path: str) -> float | None:
    """The declaration of this module path or of the nearest module around it."""
    while path:
        if path in declared:
            return declared[path]
        path = path.rpartition(".")[0]
    return declared.get("")


def _declarations(module: nn.Module, name: str) -> dict[str, float]:
    found = {}
    for path, part in module.named_modules():
        value = getattr(part, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[path] = float(value)
    return found


def _weights(module: nn.Module, declared: Mapping[str, float]) -> Iterator[tuple[int, float]]:
    """Elements and nominal bits of every distinct parameter."""
    for name, parameter in module.named_parameters():
        width = nearest(declared, name.rpartition(".")[0])
        yield parameter.numel(), 8.0 * parameter.element_size() if width is None else width
    for path, part in module.named_modules():
        for name, count in packed_weights(part).items():
            width, stored = nearest(declared, path), getattr(part, name)
            if count:
                own = 8.0 * stored.numel() * stored.element_size() / count
                yield count, own if width is None else width
