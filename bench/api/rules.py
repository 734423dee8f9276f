"""`bench.counting_rule`: the counting rule of a custom operator; torch is imported when one is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Formula = Callable[..., int | float]


def counting_rule(
    name: str, *, example: Callable[[], tuple[Any, ...]] | None = None, expected: int | None = None
) -> Callable[[Formula], Formula]:
    """A decorator that makes a function the counting rule of a custom operator.

    ::

        @bench.counting_rule("mylib::scores", example=lambda: (torch.ones(2, 3), torch.ones(5, 3)), expected=30)
        def macs_of_scores(queries, keys):
            return queries.shape[0] * keys.shape[0] * queries.shape[1]

    Args:
        name: qualified name of the operator, `namespace::name`.
        example: makes the arguments of one small call; before anything is counted the operator is called with them.
        expected: the MACs of that call, worked out by hand.

    Raises:
        UsageError: the name has no namespace, or only one of example and expected is given.
    """
    from bench.meters import own_rules

    return own_rules.counting_rule(name, example=example, expected=expected)
