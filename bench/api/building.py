"""A subject by its names in the catalogue, as `bench.build` gives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.given import checked_axes, checked_device
from bench.canonical import BASELINE_METHOD, settings_text
from bench.errors import UsageError, did_you_mean
from bench.plan.case import Case

if TYPE_CHECKING:
    from torch import nn


def build(
    model: str,
    method: str = BASELINE_METHOD,
    *,
    resolution: int | None = None,
    batch: int = 1,
    device: str = "cpu",
    dtype: str = "fp32",
    seed: int = 0,
    checkpoint: str | Path | None = None,
    task: str | None = None,
    cache: str | Path = "cache",
    **settings: Any,
) -> tuple[nn.Module, Any]:
    """A module in evaluation mode and its example inputs: positional ones, or keyword ones where it takes no others.

    `module(*inputs)` (or `module(**inputs)`) runs one forward.

    Args:
        model: a catalogue name, `timm:NAME`, or `package.module:Callable`.
        method: a catalogue name or dotted path; `none` is the model as it is.
        resolution: pixels of the square image; None takes the model's own.
        batch: images per forward.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `fp32`, `tf32`, `bf16`, `fp16` or `fp64`.
        seed: of the random weights and inputs.
        checkpoint: a weights file for the model.
        task: load the weights that the model was trained to for this task (training them now if need be).
        cache: where trained weights are kept.
        settings: of the model and the method, by name: `build("deit_small", "tome", r=13)`.

    Raises:
        UsageError: an unknown name, a setting that neither takes, or a value out of range.
    """
    from bench.config import catalogue as catalogues
    from bench.config.paths import extend_import_path
    from bench.plan.plan import default_resolution
    from bench.plan.recipe import recipe_of
    from bench.worker import subject

    extend_import_path()
    device = checked_device(device)
    batch = checked_axes(dtype, batch, resolution, seed)
    catalogue = catalogues.load()
    model_entry = catalogue.model(model)
    method_entry = None if method == BASELINE_METHOD else catalogue.method(method)
    of_model, of_method = _split_settings(model_entry, method_entry, settings)
    resolution = resolution if resolution is not None else default_resolution(model_entry, of_model)
    weights = _checked_file(checkpoint)
    case = Case(
        suite="build",
        model=model,
        method=method,
        model_settings=settings_text(of_model),
        setting=settings_text(of_method),
        device=device,
        dtype=dtype,
        batch=batch,
        resolution=resolution,
        seed=seed,
        task=task or "none",
    )
    task_entry = catalogue.task(task) if task else None
    recipe = recipe_of(case, model_entry, method_entry, task_entry, checkpoint=weights, cache=str(cache))
    if task is not None:
        subject.make_task(recipe).prepare(model, lambda: subject.build_model(recipe)[0])
    made = subject.build(recipe)
    return made.module, made.kwargs or made.args


def _checked_file(checkpoint: str | Path | None) -> str | None:
    """The path of a file of weights; UsageError where there is none."""
    if checkpoint is None:
        return None
    if not Path(checkpoint).is_file():
        raise UsageError(f"checkpoint: there is no file {Path(checkpoint)}")
    return str(checkpoint)


def _split_settings(model: Any, method: Any, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each setting to the model or the method, whichever takes it; checked."""
    from bench.config.catalogue import check_method, check_model
    from bench.config.signatures import signature

    of_method = signature(method.path).settings if method else {}
    of_model = signature(model.path).settings
    both = [name for name in settings if name in of_method and name in of_model]
    if both:
        raise UsageError(f'the setting "{both[0]}" is taken by model "{model.name}" and method "{method.name}" alike')
    known = [*of_method, *of_model]
    open_ended = signature(model.path).open or (method is not None and signature(method.path).open)
    for name in settings:
        if name not in known and not open_ended:
            raise UsageError(
                f'neither model "{model.name}" nor method "{getattr(method, "name", "none")}" has the '
                f'setting "{name}"; {did_you_mean(name, known)}'
            )
    for_method = {name: value for name, value in settings.items() if name in of_method}
    for_model = {name: value for name, value in settings.items() if name not in of_method}
    check_model(model, for_model)
    if method is not None:
        check_method(method, for_method)
    return for_model, for_method
