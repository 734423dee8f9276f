"""A built model with its example inputs, ready to run: the same construction in every process."""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns  # taken before the user's code could put another clock in its place
from typing import Any

import torch
from torch import nn

from bench import backends, workloads
from bench.backends.backend import ConversionFailed, Converted
from bench.backends.compile import compiled
from bench.backends.onnx_file import OnnxFile
from bench.canonical import BASELINE_METHOD
from bench.config.catalogue import TOLD
from bench.config.signatures import split_path
from bench.errors import UsageError
from bench.labels import labels_of
from bench.meters import dtypes, handed_over
from bench.meters.inputs import as_call, batch_for
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import conversion, global_state

DEFAULT_RESOLUTION = 224


@dataclass(frozen=True)
class Subject:
    """A module in evaluation mode and one forward's inputs, on their device and in their dtype, for a workload."""

    case: Case
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    weights: dict[str, Any]
    task: Any = None
    eager: nn.Module | None = None
    state_changes: tuple[str, ...] = ()
    converted: Converted | None = None
    default_inputs: bool = False

    @property
    def device(self) -> str:
        """Where its tensors are: `meta` if it is counted on shapes alone; the case's device if it has none."""
        if self.weights.get("kind") == "none":
            return "meta"
        first = next(itertools.chain(self.counted.parameters(), self.counted.buffers()), None)
        return self.case.device if first is None else str(first.device)

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of floating inputs that a workload makes; None for a module that was handed over as it is."""
        return None if self.weights.get("kind", "given") == "given" else dtypes.TORCH[self.case.dtype]

    @property
    def seed(self) -> int:
        """Of whatever a workload draws."""
        return self.case.seed

    @property
    def synchronise(self) -> Callable[[], None]:
        """Waits until all work on the device is done."""
        return synchronise(self.device)

    @property
    def counted(self) -> nn.Module:
        """The eager module: what is counted is the graph before compilation or conversion."""
        return self.eager if self.eager is not None else self.module

    @property
    def execution(self) -> str | None:
        """The row's label of what its products are executed in."""
        return labels_of(self.counted)["execution"]

    def both_ways(self) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """One forward of the eager module and one as the case runs it, as calls without arguments."""
        return (
            lambda: self.counted(*self.args, **self.kwargs),
            lambda: self.module(*self.args, **self.kwargs),
        )


def find(path: str) -> Callable[..., Any]:
    """The callable behind `package.module:name`.

    Raises:
        UsageError: the module cannot be imported or has no such name.
    """
    module_name, name = split_path(path)
    try:
        value: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f'"{path}": the module cannot be imported: {error}') from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise UsageError(f'"{path}": the module has no "{name}"')
        value = getattr(value, part)
    if not callable(value):
        raise UsageError(f'"{path}" is not callable')
    return value


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    torch.manual_seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)


def _accepted(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in offered.items() if name in parameters and value is not None}


def build_model(recipe: Recipe) -> tuple[nn.Module, Any]:
    """The model before any method, seeded, and its inputs if the builder gives some, as `as_call` reads them."""
    case = recipe.case
    builder = find(recipe.model_path)
    seed_everything(case.seed)
    offered = {**case.full_shape, "seed": case.seed}
    # an axis of the case wins over a preset
    built = builder(**{**recipe.model_settings, **_accepted(builder, offered)})
    module, inputs = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{recipe.model_path} gave a {type(module).__name__}, not a torch.nn.Module, or one and its inputs"
        )
    handed_over.evaluate(module)
    if inputs is not None and case.workload == workloads.FORWARD and "batch" not in _accepted(builder, offered):
        _check_batch(recipe, module, inputs)
    return module, inputs


class Given:
    """The inputs that a builder gave beside its module, as the module's own `example_inputs(batch)`."""

    def __init__(self, inputs: Any):
        self.inputs = inputs

    def __call__(self, batch: int) -> Any:
        """What was given, whatever batch is asked for: positional inputs, or a mapping of those with names."""
        single = not isinstance(self.inputs, tuple | list | Mapping)
        return (self.inputs,) if single else self.inputs


def with_method(recipe: Recipe, module: nn.Module, settings: Mapping[str, Any], inputs: Any = None) -> nn.Module:
    """The module changed by the recipe's method, seeded; a method with a parameter `workload` is told what one run is.

    So a recipe of training gives what trains for a training step, and what is deployed for anything else. A method
    that has to run the network finds inputs at `module.example_inputs(batch)`, the module's own or those given here.

    Args:
        recipe: of a case with a method.
        module: the plain model.
        settings: of the method.
        inputs: of the case, for a module that makes none itself.

    Raises:
        UsageError: the method returned something else than a module.
    """
    assert recipe.method_path is not None
    method = find(recipe.method_path)
    lent = inputs is not None and getattr(module, "example_inputs", None) is None
    if lent:
        module.example_inputs = Given(inputs)  # type: ignore[assignment]
    seed_everything(recipe.case.seed)
    try:
        changed = method(module, **settings, **_accepted(method, {TOLD: recipe.case.workload}))
    finally:
        if lent:
            del module.example_inputs
    if not isinstance(changed, nn.Module):
        given = "None: end it with `return model`" if changed is None else f"a {type(changed).__name__}"
        raise UsageError(f"the method {recipe.method_path} has to return the changed module and returned {given}")
    return changed


def _check_batch(recipe: Recipe, module: nn.Module, inputs: Any) -> None:
    """Raise UsageError if a builder that is not told the batch gives inputs that hold another number of samples."""
    try:
        found = batch_for(module, *as_call(inputs))
    except UsageError:
        return  # it is not clear how many they hold
    if found.size != recipe.case.batch:
        raise UsageError(
            f"{recipe.model_path} gave inputs of {found.size} samples, but the row says batch={recipe.case.batch}: let "
            f"it take a parameter batch and make as many, or ask for suite.batches=[{found.size}]"
        )


def _runs_a_batch(case: Case) -> bool:
    """Whether a run is made on one batch of the module's inputs: a forward, or a step of training."""
    return case.workload == workloads.FORWARD or workloads.find(case.workload).grad


def resolution_of(module: nn.Module, case: Case) -> int:
    """Pixels of the example image: the case's (the planner knows the builder's default), the module's, or 224."""
    own = getattr(module, "resolution", None)
    return case.resolution or (own if isinstance(own, int) else DEFAULT_RESOLUTION)


def example_inputs(module: nn.Module, case: Case) -> tuple[Any, ...]:
    """Seeded example inputs of a module: its own `example_inputs(batch)`, else a batch of images for what runs one.

    Inside `torch.device("meta")` they have shapes and no values.
    """
    own: Any = getattr(module, "example_inputs", None)
    if own is not None:
        seed_everything(case.seed)
        inputs = own(case.batch)
        return inputs if isinstance(inputs, tuple) else (inputs,)
    if not _runs_a_batch(case):
        return ()  # the workload makes its own from what the subject offers
    pixels = resolution_of(module, case)
    has_values = torch.get_default_device().type != "meta"
    generator = torch.Generator().manual_seed(case.seed) if has_values else None
    return (torch.randn(case.batch, 3, pixels, pixels, generator=generator),)


def make_task(recipe: Recipe) -> Any:
    """The task object of a recipe, or None for a case without one."""
    if recipe.task_path is None or recipe.case.task == "none":
        return None
    return find(recipe.task_path)(cache=Path(recipe.cache), seed=recipe.case.seed, **recipe.task_settings)


def _load_weights(module: nn.Module, recipe: Recipe, task: Any) -> dict[str, Any]:
    """Put weights into the module; where they come from."""
    if task is not None:
        return {"kind": "trained", **task.load(module, recipe.case.model)}
    if recipe.checkpoint is not None:
        from bench.worker.checkpoint import load_checkpoint

        load_checkpoint(module, Path(recipe.checkpoint), recipe.model_path)
        return {"kind": "checkpoint", "sha256": recipe.case.checkpoint}
    own = getattr(module, "pretrained", None)  # a builder that brings weights of its own says where they are from
    return {"kind": "pretrained", **own} if own else {"kind": "random", "seed": recipe.case.seed}


def moved_to(value: Any, device: torch.device, dtype: torch.dtype | None, memory_format: torch.memory_format) -> Any:
    """The tensors of a value on the device, in the layout, and the floating ones in the dtype, if there is one."""
    if isinstance(value, torch.Tensor):
        moved = value.to(device, dtype) if dtype is not None and value.is_floating_point() else value.to(device)
        plain = moved.layout is torch.strided and not moved.is_nested
        return moved.contiguous(memory_format=memory_format) if plain and moved.dim() == 4 else moved
    if isinstance(value, list | tuple) and hasattr(value, "_fields"):
        kept = [moved_to(v, device, dtype, memory_format) for v in value]
        return value.to(device) if hasattr(value, "to") else type(value)(*kept)
    if isinstance(value, dict):
        return {k: moved_to(v, device, dtype, memory_format) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved_to(v, device, dtype, memory_format) for v in value)
    return value.to(device) if callable(getattr(value, "to", None)) else value


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module in the dtype of its case; fp32 is what it was built in, and parts of another type stay."""
    return module if dtype == torch.float32 else module.to(dtype)


def _from_pickle(recipe: Recipe, artefacts: Path | None) -> Subject:
    module, args, kwargs = handed_over.read(str(recipe.pickle))
    device = torch.device(recipe.case.device)
    handed_over.evaluate(module)
    module = module.to(device)
    # never cast: the types are part of what was given
    moved = [moved_to(value, device, None, torch.contiguous_format) for value in (args, kwargs)]
    return _as_asked(Subject(recipe.case, module, tuple(moved[0]), moved[1], {"kind": "given"}), artefacts)


def build(recipe: Recipe, artefacts: Path | None = None) -> Subject:
    """The subject of a recipe: model, weights, method, dtype, device, inputs, backend, in that order.

    Args:
        recipe: what it is made of.
        artefacts: folder in which the processes of one sweep leave each other what they have converted.

    Raises:
        ConversionFailed: its backend cannot run it, with the operator or the remedy.
        UsageError: something in the recipe does not fit, with the remedy.
    """
    if recipe.pickle is not None:
        return _from_pickle(recipe, artefacts)
    case = recipe.case
    module, inputs = build_model(recipe)
    task = make_task(recipe)
    weights = _load_weights(module, recipe, task)
    own = getattr(module, "example_inputs", None)
    by_default = inputs is None and _runs_a_batch(case) and task is None and own is None
    if inputs is None:
        # a step of training learns from inputs of the module's own where it has some: its targets belong to them
        of_task = task is not None and (case.workload == workloads.FORWARD or (_runs_a_batch(case) and own is None))
        inputs = _task_inputs(task, case) if of_task else example_inputs(module, case)
    if case.method != BASELINE_METHOD:
        module = with_method(recipe, module, recipe.method_settings, inputs)
        if getattr(module, "learned", None) is not None:
            weights = {**weights, "method": module.learned}  # trained with the method, on the same task
    say(module, recipe.stated)
    device, dtype = torch.device(case.device), dtypes.TORCH[case.dtype]
    layout = torch.channels_last if case.memory_format == "channels_last" else torch.contiguous_format
    set_precision(case)
    handed_over.evaluate(module)
    module = module.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    module = cast(module, dtype)
    args, kwargs = (moved_to(value, device, dtype, layout) for value in as_call(inputs))
    return _as_asked(Subject(case, module, args, kwargs, weights, task, default_inputs=by_default), artefacts)


def say(module: nn.Module, stated: Mapping[str, Any]) -> None:
    """Have a module say what its card states (labels, nominal bits), where it does not say so itself.

    What it says itself holds: it knows how it was built.
    """
    for name, value in stated.items():
        if getattr(module, name, None) is None:
            setattr(module, name, value)


def _as_asked(subject: Subject, artefacts: Path | None) -> Subject:
    """The eager subject as its case's backend runs it: itself, compiled, or converted."""
    case, eager = subject.case, subject.module
    if case.compile != "off":
        return replace(subject, module=_compiled_calls(eager, case), eager=eager)
    if case.backend == backends.EAGER:
        if isinstance(eager, OnnxFile):
            raise ConversionFailed(
                f"{eager.path.name} is a graph for a runtime, and torch runs none: take suite.backends=[onnxruntime] "
                "or [openvino]"
            )
        return subject
    made = conversion.convert(case, eager, subject.args, subject.kwargs, artefacts)
    return replace(subject, module=made.module, eager=eager, converted=made)


def _compiled_calls(module: nn.Module, case: Case) -> Any:
    """The module with the calls of its workload compiled: itself, or a copy whose named methods are."""
    workload = workloads.find(case.workload)
    if workload.calls == ("forward",):
        return compiled(module, case.compile)
    twin = copy.copy(module)
    offered = [name for name in workload.may_call if callable(getattr(module, name, None))]
    for name in (*workload.calls, *offered):
        setattr(twin, name, compiled(getattr(module, name), case.compile))
    return twin


def set_precision(case: Case) -> None:
    """TF32 products where the case's dtype is `tf32` and nowhere else; torch's default would use it in convolutions."""
    global_state.set_tf32(case.dtype == "tf32", case.dtype == "tf32")


def _task_inputs(task: Any, case: Case) -> tuple[Any, ...]:
    """The task's first batch, a tensor or a tuple of arguments: cost and quality come from the same samples."""
    batches: Iterator[Any] = iter(task.batches(case.batch))
    inputs, _ = next(batches)
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    if len(args[0]) < case.batch:
        raise UsageError(f"batch={case.batch} clashes with task={case.task}, which has only {len(args[0])} samples")
    return args


def synchronise(device: str) -> Callable[[], None]:
    """What makes all work on the device finish; nothing where there is none to wait for."""
    if not device.startswith("cuda"):
        return lambda: None
    return lambda: torch.cuda.synchronize(device)


def timed_build(recipe: Recipe, artefacts: str | None = None) -> tuple[Subject, float]:
    """The subject and the milliseconds it took to build; what building changed for others is put back and noted.

    A conversion is no part of the time: what is shipped is its artefact.
    """
    set_precision(recipe.case)  # first: it is ours and no change that building makes
    if recipe.pickle is not None:
        handed_over.apply_settings(recipe.pickle)  # nor is what the caller's process had set
    before, start = global_state.read(), perf_counter_ns()
    subject = build(recipe, None if artefacts is None else Path(artefacts))
    synchronise(recipe.case.device)()
    taken_ms = (perf_counter_ns() - start) / 1e6
    if subject.converted is not None:
        taken_ms -= subject.converted.conversion_ms or 0.0
    return replace(subject, state_changes=tuple(global_state.put_back(before))), taken_ms
