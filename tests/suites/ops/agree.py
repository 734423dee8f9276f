"""How far an operator is from its definition, as a row of the bench is judged."""

import torch

from bench.workloads.operator import errors


def apart(operator, *, batch=2, checked=False, seed=0):
    """Relative L2 distance of an operator from its definition, on its inputs or on its smaller check."""
    torch.manual_seed(seed)
    args = operator.check_args(seed) if checked else operator.example_inputs(batch)
    relative, _, wrong = errors(operator(*args), operator.reference(*args))
    assert wrong is None
    return relative
