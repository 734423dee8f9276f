"""A network's layers to be quantised: which they are, what they see, and how they are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suites.common.folding import fold_batch_norms
from suites.common.rectified_flow import flow_loss
from suites.common.training import Loss, classification
from suites.quantization.cost import samples_given
from suites.quantization.noise import Noise

Layer = nn.Linear | nn.Conv2d
LAYERS = (nn.Linear, nn.Conv2d)
#: Added to the seed of calibration inputs: a row's own inputs are drawn from its seed and are not to be seen before.
CALIBRATION = 1_000_003


def layers_of(model: nn.Module, *, skip: tuple[str, ...] = ()) -> dict[str, Layer]:
    """Linear layers and convolutions of a network by path, in the order of registration.

    Args:
        model: a network.
        skip: paths or ends of paths that stay as they are.
    """
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, LAYERS) and not any(path == name or path.endswith("." + name) for name in skip)
    }


def needs_layers(model: nn.Module, method: str) -> dict[str, Layer]:
    """The layers of a network that has some.

    Raises:
        ValueError: it has none.
    """
    found = layers_of(model)
    if not found:
        raise ValueError(f"{method} rounds linear layers and convolutions, and {type(model).__name__} has none left")
    return found


def on_meta(model: nn.Module) -> bool:
    """Whether the network has shapes alone."""
    return any(parameter.is_meta for parameter in model.parameters())


def replaced(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another, in the network."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def put_codes(model: nn.Module, layers: Mapping[str, Any], make: Callable[[str, Any], Any]) -> None:
    """Replace each layer by one of codes; the network says what its weights lost as `weight_sqnr_db`.

    Args:
        model: changed in place.
        layers: float layers by path.
        make: a layer of codes of a path and its float layer; `dense()` is the weight that the codes stand for.
    """
    noise = Noise()
    for path, layer in layers.items():
        made = make(path, layer)
        if not layer.weight.is_meta:
            noise.add(layer.weight.detach(), made.dense())
        replaced(model, path, made)
    model.weight_sqnr_db = noise.db  # type: ignore[assignment]


def say_inputs(model: nn.Module, seen: Mapping[str, Tensor], rules: Mapping[str, nn.Module | None]) -> None:
    """Say on the network what the inputs of its layers lose, as `activation_sqnr_db`.

    Args:
        model: whose layers they are.
        seen: exact inputs by path.
        rules: what rounds the inputs of a path; None leaves them.
    """
    noise = Noise()
    for path, x in seen.items():
        rule = rules.get(path)
        if rule is not None:
            noise.add(x, rule(x))
    model.activation_sqnr_db = noise.db  # type: ignore[assignment]


def folded(model: nn.Module) -> nn.Module:
    """The network in evaluation mode with its batch normalisations folded, where it has any."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        fold_batch_norms(model)
    return model.eval()


def without_task(model: nn.Module) -> Any:
    """A deep copy of a network that does not copy the task it carries."""
    import copy

    task = getattr(model, "task", None)
    model.task = None  # type: ignore[assignment]
    try:
        twin = copy.deepcopy(model)
    finally:
        model.task = task  # type: ignore[assignment]
    return twin


def learning_loss(model: Any) -> Loss | None:
    """What a network learns by under rounding: a decoder its bytes, a sampler its velocities; None for a classifier,
    which learns from its teacher's answers as well.
    """
    if hasattr(model, "velocity"):
        return flow_loss(model, torch.Generator().manual_seed(0))
    return classification(model) if hasattr(model, "vocabulary") else None


# ---------------------------------------------------------------------------------------------- calibration


def own_inputs(model: Any, batch: int) -> tuple[Tensor, ...]:
    """A batch of a network's own example inputs, where it runs; images of its resolution where it has none."""
    at = next(model.parameters()).device
    if hasattr(model, "example_inputs"):
        made = model.example_inputs(batch)
        return tuple(each.to(at) for each in (made if isinstance(made, tuple) else (made,)))
    side = getattr(model, "resolution", 224)
    return (torch.randn(batch, 3, side, side, device=at),)


def calibration_batches(model: Any, samples: int, seed: int = 0) -> list[tuple[Tensor, ...]]:
    """Arguments to calibrate on: training samples of the network's task, or random inputs of its own where it has none.

    A sampler's are pictures on their way from noise, at times spread over the whole way. Held-out samples are never
    among them.

    Args:
        model: with `task` if it was loaded by one.
        samples: in all, in batches of 16 or fewer.
        seed: of the draw.
    """
    batch = min(16, samples)
    count = -(-samples // batch)
    samples_given(batch * count)
    task = getattr(model, "task", None)
    if task is None or not hasattr(task, "training_batches"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(CALIBRATION + seed)
            return [own_inputs(model, batch) for _ in range(count)]
    batches = task.training_batches(batch, count, seed)
    if hasattr(model, "velocity"):
        return [_on_the_way(model, x, y, place, count) for place, (x, y) in enumerate(batches)]
    return [(inputs,) for inputs, _ in batches]


def _on_the_way(model: Any, pictures: Tensor, classes: Tensor, place: int, count: int) -> tuple[Tensor, ...]:
    """Pictures (1 - t) x + t e at times that cover 0..1 over all batches, as a sampler's network takes them."""
    t = (place + (torch.arange(len(pictures)) + 0.5) / len(pictures)) / count
    noise = model.example_noise(len(pictures), place + 1)
    at = t[:, None, None, None]
    return (1 - at) * pictures + at * noise, t, classes


@contextmanager
def watched(modules: dict[str, Any], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While it is open, `see(path, input)` is told the first argument of every call of the modules."""

    def hook(path: str) -> Callable[..., None]:
        return lambda _, args: see(path, args[0])

    handles = [module.register_forward_pre_hook(hook(path)) for path, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def shown(model: nn.Module, batches: list[tuple[Tensor, ...]]) -> None:
    """Run the network on batches, without gradients."""
    model.eval()
    with torch.no_grad():
        for args in batches:
            model(*args)


def observed_inputs(model: nn.Module, layers: dict[str, Any], batches: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """What each layer is given over all batches, [calls x batch, ...]; layers that never run are left out."""
    seen: dict[str, list[Tensor]] = {}
    with watched(layers, lambda path, x: seen.setdefault(path, []).append(x.detach())):
        shown(model, batches)
    return {path: torch.cat(found) for path, found in seen.items()}
