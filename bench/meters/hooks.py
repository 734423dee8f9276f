"""Hooks around every forward of every module of this process, for as long as a block of code lasts."""

from __future__ import annotations

from typing import Any, Self

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class ForwardHooks:
    """Calls `enter` before and `leave` after every forward inside `with`; `leave` also where the forward raises."""

    def __enter__(self) -> Self:
        """Register the hooks."""
        self._handles = [
            register_module_forward_pre_hook(self.enter),
            register_module_forward_hook(self.leave, always_call=True),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def enter(self, module: nn.Module, inputs: Any) -> Any:
        """Called with the module and its positional inputs, before its forward."""
        raise NotImplementedError

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Called with the module, its inputs and its output, after its forward."""
        raise NotImplementedError
