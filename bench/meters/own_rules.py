"""Counting rules of users' own operators: with examples that are counted first, and found in every process.

A rule reaches the processes that measure in one of three ways: its decorator stands in the module that the model comes
from (or one that it imports), an installed package names its module under the entry point group `waterline.operators`,
or a module is handed over by `bench.measure`, with which the rules of the calling process travel.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from bench.errors import UsageError
from bench.meters import operator_rules
from bench.meters.products import Call, Product

ENTRY_POINT = "waterline.operators"
Formula = Callable[..., int | float]


@dataclass(frozen=True)
class OwnRule:
    """MACs of one call of an operator, from its own arguments; and an example with the MACs that it has to give."""

    name: str
    macs: Formula
    example: Callable[[], tuple[Any, ...]] | None = None
    expected: int | None = None


_RULES: dict[str, OwnRule] = {}
_tried: set[OwnRule] = set()


def register_op(name: str, macs: Callable[..., int | float]) -> None:
    """Count a custom operator from now on: `register_op("mylib::attention", lambda q, k, v: ...)`.

    Args:
        name: qualified operator name, "namespace::name".
        macs: called with the operator's own arguments; returns the MACs of one call.
    """

    def formula(call: Call) -> Product:
        tensors = [leaf for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Tensor)]
        left, right = (tensors * 2)[:2] if tensors else (None, None)
        return Product(int(macs(*call.args, **call.kwargs)), left, right)

    operator_rules.register(name, formula)


def counting_rule(
    name: str, *, example: Callable[[], tuple[Any, ...]] | None = None, expected: int | None = None
) -> Callable[[Formula], Formula]:
    """The decorator that `bench.counting_rule` describes."""
    if "::" not in name:
        raise UsageError(f'counting_rule("{name}"): the name of an operator has a namespace, as in "mylib::scores"')
    if (example is None) != (expected is None):
        raise UsageError(f'counting_rule("{name}"): an example needs the MACs that it has (expected=...), and they it')

    def register(macs: Formula) -> Formula:
        _RULES[name] = OwnRule(name, macs, example, expected)
        register_op(name, macs)
        return macs

    return register


def registered() -> tuple[OwnRule, ...]:
    """The rules of this process, to be taken along to another one."""
    return tuple(_RULES.values())


def take_over(rules: tuple[OwnRule, ...]) -> None:
    """Register rules of another process."""
    for rule in rules:
        counting_rule(rule.name, example=rule.example, expected=rule.expected)(rule.macs)


@cache
def load_installed() -> None:
    """Import the modules that installed packages name under the entry point, once a process.

    Raises:
        UsageError: one of them cannot be imported.
    """
    for entry in entry_points(group=ENTRY_POINT):
        try:
            importlib.import_module(entry.module)
        except Exception as error:
            package = entry.dist.name if entry.dist else "a package"
            raise UsageError(
                f"{package}: its counting rules in {entry.module} cannot be loaded ({type(error).__name__}: {error})"
            ) from error


def untried() -> list[OwnRule]:
    """Rules with an example that was not counted yet in this process."""
    return [rule for rule in _RULES.values() if rule.example is not None and rule not in _tried]


def tried(rule: OwnRule) -> None:
    """Note that a rule's example counted as it should."""
    _tried.add(rule)
