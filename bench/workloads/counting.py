"""A part as a module, so that the meters of one forward measure it: same operators, same module paths.

The meters take a module and its inputs. `PartCall` runs a part in its forward and answers for the subject's modules
under their own names, so that a layer table of a decode step reads as one of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from bench.tensors import tensors_in
from bench.workloads.workload import Count, Counted, Held, Part


class _Runs:
    """Whether the last run has changed what the next one needs. No attribute of the module: meters put those back."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = False


class PartCall(nn.Module):
    """Runs `call` in its forward; its named modules, parameters and buffers are the subject's.

    What runs outside every module of the subject has the path of the root. A meter may run it several times: from the
    second run on, what the last one changed is put back first, out of the sight of every trace.
    """

    def __init__(
        self,
        module: Any,
        call: Callable[[], Any],
        renew: Callable[[], None] = lambda: None,
        held: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__()
        object.__setattr__(self, "_subject", module)  # not registered: its modules keep their own paths
        self._call, self._renew, self._held = call, renew, held
        self._runs = _Runs()
        self.training = False  # what a run changes is put back by the part, not by the meter

    def named_modules(self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[Any]:
        """This module as the root, then the subject's under their own paths, the subject itself as the root too."""
        yield prefix, self
        if isinstance(self._subject, nn.Module):
            yield from self._subject.named_modules(memo, prefix, remove_duplicate)

    def renew(self) -> None:
        """Put back what the last run changed and prepare the next one; nothing before the first."""
        if self._runs.used:
            self._runs.used = False
            with _disable_current_modes():
                self._renew()

    def inputs(self) -> tuple[Any, ...]:
        """The tensors that are alive when the next run begins beside the weights: its cache, its state, its inputs.

        Activations that the run frees are not among them: see `found`.
        """
        self.renew()
        held = self._alive()
        return tuple(tensors_in([held.inputs, held.optimizer, held.gradients]))

    def found(self) -> list[Any]:
        """Activations that are there when the run begins and that it may free."""
        return list(tensors_in(self._alive().activations()))

    def named(self) -> dict[Any, list[Any]]:
        """Gradients and optimizer state that are there now; nothing of a workload that has none."""
        held = None if self._held is None else self._held()
        if not isinstance(held, Held):
            return {}
        return {"gradients": list(tensors_in(held.gradients)), "optimizer": list(tensors_in(held.optimizer))}

    def _alive(self) -> Held:
        held = None if self._held is None else self._held()
        return held if isinstance(held, Held) else Held(inputs=held)

    def forward(self, *_held: Any) -> Any:
        """What the part's call gives; arguments are what it holds, named for the memory meter only."""
        self.renew()
        self._runs.used = True
        return self._call()


@contextmanager
def part_call(module: Any, part: Part, *, counted: bool = True) -> Iterator[PartCall]:
    """The part, prepared, as a module; what its runs changed is put back at the end.

    Args:
        module: the subject's.
        part: of its workload.
        counted: run what is counted of it (`Part.counted`), where that is something else than what is timed.
    """

    def prepare() -> None:
        if part.prepare is not None:
            part.prepare()

    def reset() -> None:
        if part.reset is not None:
            part.reset()

    def renew() -> None:
        reset()
        prepare()

    prepare()
    try:
        run = part.counted if counted and part.counted is not None else part.call
        yield PartCall(module, run, renew, part.held)
    finally:
        reset()


def count_part(module: Any, part: Part, count: Callable[..., Counted], **options: Any) -> Counted:
    """What the trace sees of one run of a part; `count` is `bench.meters.macs.count` or takes the same arguments.

    The second counter traces modules with inputs of their own, which a part has not, so it is left out.
    """
    with part_call(module, part) as call:
        return count(call, (), second_count=False, **options)


def counter(module: Any, count: Callable[..., Counted], **options: Any) -> Count:
    """A function that runs a part once under the trace, for `counts` of a workload."""
    return lambda part: count_part(module, part, count, **options)
