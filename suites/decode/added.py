"""Bytes that a method adds to a decoder.

A module that says `charged_to = "method"` is one that decides: its products are no part of a row's (docs/counting.md).
What a method runs for the answer itself, such as a model that reads the prompt, says nothing and has its bytes summed
here.
"""

from __future__ import annotations

from torch import nn


def added_bytes(*modules: nn.Module) -> int:
    """Bytes of the modules' parameters and buffers, shared ones once."""
    tensors = {id(t): t for module in modules for t in [*module.parameters(), *module.buffers()]}
    return sum(t.numel() * t.element_size() for t in tensors.values())
