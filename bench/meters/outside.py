"""Work that leaves torch during a forward: tensors handed to numpy, lists or raw pointers; time unexplained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from bench.meters.trace import ModulePaths

#: Ways out of torch that hand over the elements themselves.
EXITS = ("numpy", "tolist", "data_ptr", "__dlpack__")
_SMALL = 16  # elements: reading a few of them steers control flow and is no computation
_PAUSE_S = 0.005
_SHARE = 0.05


class OutsideWatch:
    """Counts tensors that leave torch while it is active, by exit and module path.

    It shadows methods of the tensor class for that long. A torch-function mode would see the same calls but switch off
    the fused transformer path.
    """

    def __init__(self, paths: ModulePaths) -> None:
        self.escapes: Counter[str] = Counter()
        self._paths = paths
        self._saved: dict[str, Any] = {}

    def __enter__(self) -> OutsideWatch:
        for name in EXITS:
            self._saved[name] = Tensor.__dict__.get(name)
            setattr(Tensor, name, self._watched(name, getattr(Tensor, name)))
        return self

    def __exit__(self, *_: object) -> None:
        for name, original in self._saved.items():
            if original is None:
                delattr(Tensor, name)
            else:
                setattr(Tensor, name, original)

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if tensor.numel() > _SMALL:
                self.escapes[f"Tensor.{name} in {self._paths.current or 'the root'}"] += 1
            return original(tensor, *args, **kwargs)

        return method


def unexplained_gaps(
    first: dict[str, float], total_s: float, again: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Processor time per module that no operator explains, in seconds, where it is long and comes back on a second run.

    A gap counts from 5 ms and 5 % of the traced forward. The second run is made only then: imports and caches of a
    first call are no work of the network. Time is this thread's processor time, so that a busy host raises no alarm.
    """
    suspects = {path: seconds for path, seconds in first.items() if seconds > max(_PAUSE_S, _SHARE * total_s)}
    if not suspects:
        return {}
    confirmed = again()
    return {path: min(s, confirmed.get(path, 0.0)) for path, s in suspects.items() if confirmed.get(path, 0.0) > s / 2}
