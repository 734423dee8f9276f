"""An online network with the clip that it is fed, cut into steps of real successive inputs."""

from __future__ import annotations

from typing import Any

from bench.errors import UsageError
from bench.workloads.workload import Built, Shape, on_meta

#: Where neither the shape nor the module says how long a window is.
WINDOW = 16
#: Timed runs of a clip before it starts over.
RUNS = 8


class Stream:
    """A module with the clip that it is fed, cut into steps."""

    def __init__(self, subject: Built, shape: Shape) -> None:
        self.module = module = subject.module
        self.period = int(getattr(module, "period", 1))
        wanted, own = shape.get("window"), int(getattr(module, "window", WINDOW))
        self.window = own if wanted is None else int(wanted)
        if getattr(module, "fixed_window", False) and self.window != own:
            raise UsageError(f"shape window={self.window}: this network's window is {own} steps, and it takes no other")
        self.per_run = int(shape.get("steps") or self.period)
        if self.per_run % self.period:
            raise UsageError(f"shape steps={self.per_run}: whole periods of {self.period} steps are wanted")
        self.warm = -(-max(self.window, self._settled()) // self.per_run) * self.per_run
        self.batch, self.answers = shape["batch"], int(getattr(module, "outputs_per_answer", 1))
        self.along_time = int(getattr(module, "time_dim", 1))
        self.cycle = -(-int(getattr(module, "cycle", 1)) // self.per_run) * self.per_run
        self.length = self.warm + max(RUNS * self.per_run, self.cycle)
        self._clip = _placed_clip(subject, module.example_clip(self.batch, self.length))
        self.inputs = [self._input(index) for index in range(self.length)]

    def _settled(self) -> int:
        """Steps after which the module answers at its own pace and, where it says so, as the offline network does."""
        first = max(int(getattr(self.module, name, -1)) for name in ("first_output", "transient"))
        return 0 if getattr(self.module, "first_output", None) is None else first + 1 + self.period

    def _input(self, index: int) -> Any:
        hop, dimension = int(getattr(self.module, "hop", 1)), self.along_time
        if hop == 1:
            return self._clip.select(dimension, index).clone()  # a state that keeps it keeps one step, not the clip
        return self._clip.narrow(dimension, index * hop, hop).clone()

    def clip(self, length: int) -> Any:
        """The first `length` steps of the clip."""
        hop, dimension = int(getattr(self.module, "hop", 1)), self.along_time
        return self._clip.narrow(dimension, 0, length * hop)

    def window_at(self, end: int) -> Any:
        """The window whose last step is `end` - 1; where the network takes that of a longer clip, the whole clip."""
        clip = self.clip(end)
        if getattr(self.module, "fixed_window", False):
            return clip
        count = self.window * int(getattr(self.module, "hop", 1))
        return clip.narrow(self.along_time, clip.shape[self.along_time] - count, count)

    def warmed(self) -> tuple[list[Any], Any]:
        """Outputs of the warm-up and the state after it; without values only the state, where the module has it."""
        settled = getattr(self.module, "settled", None)
        if settled is None or not on_meta(self.inputs[0]):
            return self.steps(self.module.init(self.batch), 0, self.warm)
        return [], self.steps(settled(self.batch), 0, self.period)[1]

    def steps(self, state: Any, start: int, count: int) -> tuple[list[Any], Any]:
        """Outputs of steps, None where there is none, and the state after them."""
        outputs = []
        for index in range(start, start + count):
            output, state = self.module.step(self.inputs[index], state)
            outputs.append(output)
        return outputs, state


def _placed_clip(subject: Built, clip: Any) -> Any:
    from bench.tensors import placed

    return placed(clip, subject.device, subject.dtype)
