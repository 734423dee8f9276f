"""What a runtime has loaded: tensors in, tensors out, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Program:
    """A loaded artefact.

    Attributes:
        call: tensors in order to tensors in order; these are the caller's own, no later run writes into them.
        precision: the suite's name of the type that the runtime says it computes in.
        threads: of its pool, as it says; None on a device that has no such.
        details: plain JSON types for the record.
    """

    call: Callable[[Sequence[Any]], Sequence[Any]]
    precision: str
    threads: int | None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """A program with the structure of its outputs and what is known of its artefact; `keeper` holds the folder."""

    program: Program
    form: Any
    facts: dict[str, Any]
    keeper: Any = None
