"""The door for a kernel of one's own: two functions and a list of shapes become rows.

    # mykernel.py, in the folder that the bench is started from
    import torch
    from suites.ops.door import kernel

    def fast(x, w):
        return torch.relu(x @ w)

    def slow(x, w):  # the same, slower and surer
        return (x.unsqueeze(-1) * w).sum(1).clamp(min=0)

    mine = kernel(fast, slow, {"small": [(64, 128), (128, 256)], "large": [(512, 512), (512, 512)]})

`python -m suites.ops.door mykernel:mine` holds the function to the reference in five trials a shape and prints the
command that measures all shapes: error, time, bytes, share of the roofline; with `backward=True` gradients as well. The
case is another one when the file changes, so that an old time is never shown for new code.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.signatures import split_path
from bench.errors import UsageError, did_you_mean
from suites.common.operators import Operator
from suites.ops.trials import Trial, run_trials

Shapes = Mapping[str, Sequence[Sequence[int]]]
Inputs = Callable[[str, torch.Generator], Sequence[Tensor]]


def kernel(
    function: Callable[..., Any], reference: Callable[..., Any], shapes: Shapes, *, inputs: Inputs | None = None,
    tolerance: float = 1e-5,
) -> Kernel:  # fmt: skip
    """A builder of rows for a function beside its reference.

    Args:
        function: of tensors, what is timed.
        reference: the same by other means; it is given the arguments in float64.
        shapes: name -> the shape of every argument.
        inputs: makes the arguments of a named shape from a generator where random normal numbers are not what is
            wanted.
        tolerance: largest relative L2 distance from the reference in fp32.

    Raises:
        UsageError: there is no shape, or a shape has no arguments.
    """
    if not shapes or not all(shapes.values()):
        raise UsageError("kernel() needs at least one shape by name, each with the shape of every argument")
    return Kernel(function, reference, dict(shapes), inputs, tolerance)


class Kernel:
    """What `kernel` gives: called with the name of a shape it builds the operator, which is what a suite's row does."""

    def __init__(
        self, function: Callable[..., Any], reference: Callable[..., Any], shapes: dict[str, Sequence[Sequence[int]]],
        inputs: Inputs | None, tolerance: float,
    ):  # fmt: skip
        self.functions = {"function": function, "reference": reference}
        self.shapes, self.inputs, self.tolerance = shapes, inputs, tolerance

    def __call__(self, *, shape: str = "", side: str = "function", backward: bool = False) -> KernelOperator:
        """The operator at a shape.

        Args:
            shape: its name; empty takes the first.
            side: `function`, or `reference` to time that.
            backward: a run also takes the gradients of all floating arguments.

        Raises:
            ValueError: there is no such shape or side.
        """
        chosen = shape or next(iter(self.shapes))
        if chosen not in self.shapes:
            raise ValueError(f'shape "{chosen}" does not exist; {did_you_mean(chosen, self.shapes)}')
        if side not in self.functions:
            raise ValueError(f'side "{side}" does not exist; {did_you_mean(side, self.functions)}')
        return KernelOperator(self, chosen, side, backward).eval()

    def arguments(self, shape: str, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Seeded arguments of a shape, never constant.

        Raises:
            UsageError: the author's own inputs are constant: zeros hide errors.
        """
        if self.inputs is None:
            return tuple(torch.randn(tuple(size), generator=generator) for size in self.shapes[shape])
        made = tuple(self.inputs(shape, generator))
        for place, value in enumerate(made):
            if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
                raise UsageError(
                    f'argument {place} of shape "{shape}" is constant: a wrong kernel passes on such inputs'
                )
        return made

    def trials(self, shape: str = "", **options: Any) -> list[Trial]:
        """Five trials of a shape with fresh inputs; options are those of `suites.ops.trials.run_trials`."""
        chosen = shape or next(iter(self.shapes))
        make = lambda seed: self.arguments(chosen, torch.Generator().manual_seed(seed))  # noqa: E731
        return run_trials(self.functions["function"], self.functions["reference"], make, **options)

    def rows(self, path: str) -> list[str]:
        """What stands under `suite.models` for all shapes, of a kernel at `package.module:name`."""
        return [f"{path}(shape={name!r})" for name in self.shapes]


class KernelOperator(Operator):
    """The author's function at a shape."""

    def __init__(self, kernel: Kernel, shape: str, side: str, backward: bool):
        function = kernel.functions[side]
        super().__init__(form=getattr(function, "__name__", side), backward=backward)
        self.pair, self.shape, self.side = kernel, shape, side
        self.tolerance_fp32 = kernel.tolerance
        self.inner = function if isinstance(function, nn.Module) else None

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """The arguments of the shape; a batch of the row is none of theirs."""
        return self._drawn(torch.initial_seed())

    def check_args(self, seed: int) -> tuple[Tensor, ...]:
        """Other arguments of the same shape."""
        return self._drawn(seed + 1)

    def _drawn(self, seed: int) -> tuple[Tensor, ...]:
        made = self.pair.arguments(self.shape, torch.Generator().manual_seed(seed % 2**63))
        return tuple(x.to(self.like) if x.is_floating_point() else x.to(self.like.device) for x in made)

    def function(self, *args: Any) -> Any:
        """What the author's side gives."""
        return self.pair.functions[self.side](*args)

    def definition(self, *args: Any) -> Any:
        """What the author's reference gives."""
        return self.pair.functions["reference"](*args)


def main(arguments: Sequence[str]) -> int:
    """Hold a kernel to its reference and print the command that measures it; 1 where it is wrong.

    Args:
        arguments: `package.module:name`.

    Raises:
        UsageError: that is no kernel.
    """
    if len(arguments) != 1:
        raise UsageError("python -m suites.ops.door package.module:name, where name = suites.ops.door.kernel(...)")
    found = load(arguments[0])
    wrong = 0
    for name in found.shapes:
        for trial in found.trials(name):
            wrong += bool(trial.reason)
            said = f"; {trial.reason}" if trial.reason else ""
            print(f"{name}, seed {trial.seed}: largest error {trial.largest_error:.3g}{said}")
    print(command(found.rows(arguments[0])))
    return 1 if wrong else 0


def command(rows: Sequence[str]) -> str:
    """What measures these rows, as a shell takes it: names of shapes are quoted inside what Hydra quotes."""
    models = ", ".join('"{}"'.format(row.replace("'", '\\"')) for row in rows)
    return f"python -m bench suite=ops suite.workload=operator {shlex.quote(f'suite.models=[{models}]')}"


def load(path: str) -> Kernel:
    """The kernel at `package.module:name`.

    Raises:
        UsageError: there is none.
    """
    module, name = split_path(path)
    sys.path[:0] = [""] if "" not in sys.path else []
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f'"{path}" cannot be imported: {error}') from error
    if not isinstance(found, Kernel):
        raise UsageError(f'"{path}" is a {type(found).__name__}; it has to be what suites.ops.door.kernel gives')
    return found


if __name__ == "__main__":
    # by its name: kernels are made of the module `suites.ops.door`, which this one is not when it is run
    run = importlib.import_module("suites.ops.door").main
    try:
        sys.exit(run(sys.argv[1:]))
    except UsageError as error:
        sys.exit(f"error: {error}")
