"""Networks of diffusers from a configuration, a local folder or a class name, with a sampler of diffusers.

Nothing is downloaded; a configuration alone gives random weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError, did_you_mean
from suites.common.checkpoint import load_checkpoint
from suites.common.diffusers_inputs import ADDED, KINDS, STATED, UNBATCHED, Kind, Size
from suites.common.diffusers_schedulers import (
    NAMED,
    Scheduling,
    import_diffusers,
    of_pipeline,
    scheduling,
)
from suites.common.rectified_flow import noise
from suites.common.released_diffusers import CONFIGS
from suites.common.torchvision_remedy import mend_torchvision

__all__ = ["DiffusersModel", "diffusers_model", "load_checkpoint", "released_diffuser"]

mend_torchvision()

#: Parts of a pipeline's folder that hold its network, in the order in which they are looked for.
PARTS = ("transformer", "unet", "prior")


def diffusers_model(
    *,
    name: str,
    resolution: PositiveInt | None = None,
    latent: list[PositiveInt] | None = None,
    words: PositiveInt | None = None,
    scheduler: Literal["flow_euler", "ddim", "pndm", "dpm_solver", "cogvideox"] | None = None,
) -> nn.Module:
    """The network of a configuration, folder or class of diffusers in evaluation mode, with a sampler.

    Args:
        name: a configuration file with `_class_name`; a folder with config.json, whose safetensors weights are loaded
            if they are there; a pipeline's folder, of which the network is taken; or a class of diffusers, which gets
            its default configuration.
        resolution: side of the square picture in pixels, eight to a latent; None takes the network's own size.
        latent: rows and columns of the latent, or frames, rows and columns; instead of `resolution`.
        words: tokens of text; None takes the kind's own number.
        scheduler: of diffusers; None takes that of a pipeline's folder, else flow_euler for flows, ddim for networks
            that predict noise and cogvideox for CogVideoX; with a pipeline's folder a name takes its fields.

    Raises:
        UsageError: diffusers is missing, the name is none of these, or there is no example of the class's inputs.
    """
    diffusers = import_diffusers()
    path = Path(name).expanduser()
    if path.exists():
        folder = _network_folder(path)
        built, config = _configured(diffusers, folder if folder.is_file() else folder / "config.json", name)
        network = _loaded(built, folder, config, name)
    else:
        network = _class(diffusers, name, name)()
    released = of_pipeline(path) if path.is_dir() else None
    how = scheduling(scheduler, released, type(network).__name__)
    return DiffusersModel(network.eval(), resolution, latent, words, how).eval()


def released_diffuser(
    *,
    name: str,
    resolution: PositiveInt | None = None,
    latent: list[PositiveInt] | None = None,
    words: PositiveInt | None = None,
    scheduler: Literal["flow_euler", "ddim", "pndm", "dpm_solver", "cogvideox"] | None = None,
    layers: PositiveInt | None = None,
) -> nn.Module:
    """The network of a released configuration in evaluation mode with random weights, with a sampler.

    Args:
        name: a row of suites/common/released_diffusers.py.
        resolution: side of the square picture in pixels; None takes the network's own size.
        latent: frames, rows and columns of the latent, instead of `resolution`.
        words: tokens of text.
        scheduler: of diffusers.
        layers: so many blocks of a transformer instead of the released number.

    Raises:
        UsageError: diffusers is missing, or there is no such configuration.
    """
    diffusers = import_diffusers()
    if name not in CONFIGS:
        raise UsageError(f'no released configuration is called "{name}"; {did_you_mean(name, CONFIGS)}')
    fields = dict(CONFIGS[name])
    built = getattr(diffusers, fields.pop("_class_name"))
    if layers is not None:
        if "num_layers" not in fields:
            raise UsageError(f'"{name}" has no number of layers that could be set')
        fields |= {key: layers for key in ("num_layers", "num_single_layers") if key in fields}
    how = scheduling(scheduler, None, built.__name__)
    return DiffusersModel(built(**fields).eval(), resolution, latent, words, how).eval()


def _network_folder(path: Path) -> Path:
    """The folder or file of the network: a part of a pipeline's folder, else the path itself."""
    if path.is_dir() and not (path / "config.json").is_file():
        return next((path / part for part in PARTS if (path / part / "config.json").is_file()), path)
    return path


def _configured(diffusers: ModuleType, file: Path, name: str) -> tuple[Any, dict[str, Any]]:
    """The class that a configuration file names, and its fields.

    Raises:
        UsageError: there is no such file, it is no configuration, or its class is none of diffusers.
    """
    if not file.is_file():
        raise UsageError(f'"diffusers:{name}": there is no {file.name} in it, nor in {", ".join(PARTS)} below it')
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f'"diffusers:{name}": {file.name} is not JSON: {error}') from error
    if not isinstance(fields, dict) or not isinstance(fields.get("_class_name"), str):
        raise UsageError(f'"diffusers:{name}": {file.name} has no "_class_name", so it is none of diffusers')
    return _class(diffusers, fields["_class_name"], name), fields


def _class(diffusers: ModuleType, wanted: str, name: str) -> Any:
    """A class of diffusers that there are example inputs for.

    Raises:
        UsageError: it is none of those.
    """
    if wanted not in KINDS:
        known = hasattr(diffusers, wanted) if wanted.isidentifier() else False
        why = "there is no example of what it is called with" if known else "diffusers has no such network"
        raise UsageError(
            f'"diffusers:{name}": {wanted}: {why}; {did_you_mean(wanted, KINDS)}. Or write a builder that gives the '
            "network and its inputs, model=package.module:build"
        )
    return getattr(diffusers, wanted)


def _loaded(built: Any, folder: Path, config: dict[str, Any], name: str) -> Any:
    """The network, with its weights where a folder has them."""
    try:
        if folder.is_dir() and any(folder.glob("*.safetensors")):
            return built.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
        return built.from_config(config)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f'"diffusers:{name}": {built.__name__} cannot be made of it: {error}') from error


#: Predictions from a picture, times and conditions.
Predicting = Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor]


class DiffusersCourse:
    """Another way along a scheduler's steps than one plain evaluation each; what lives on is in the state alone."""

    def plan(self, model: DiffusersModel, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The steps where the scheduler would make these."""
        return steps

    def start(self, model: DiffusersModel, state: dict[str, Any]) -> dict[str, Any]:
        """The state before the first step, from the plain one."""
        return state

    def step(self, model: DiffusersModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """The state after step `index` of the plan."""
        return model.plain_step(index, state)


class DiffusersModel(nn.Module):
    """A network of diffusers, called with the tensors of `names` in that order, and its sampler.

    Attributes:
        model: the network.
        size: latent frames, rows, columns and words of its example inputs.
        names: what it is called with; the first is what a sampler makes, the second the time.
        fixed_steps: of its sampler, whatever the case asks for; None asks the case.
        unguided: whether the conditional branch runs alone, whatever the case asks for.
        course: how it is sampled where that is not the plain way; set by methods.
        around: what every forward runs in; set by methods.
    """

    fixed_steps: int | None = None
    unguided = False
    course: DiffusersCourse | None = None
    around: Callable[[], AbstractContextManager[Any]] | None = None

    def __init__(
        self,
        model: Any,
        resolution: int | None = None,
        latent: list[int] | None = None,
        words: int | None = None,
        how: Scheduling | None = None,
    ):
        super().__init__()
        self.model = model
        kind = KINDS[type(model).__name__]
        self._make, self._unit = kind.make, kind.steps_of_time
        self.size = _size(kind, model.config, resolution, latent, words)
        with torch.device("meta"):
            self.names = tuple(kind.make(model.config, 1, self.size))
        self.how = how or scheduling(None, None, type(model).__name__)
        self.scheduler = self.how.name
        self.scale: float | None = None
        self.steps_planned: list[dict[str, Any]] = []

    def forward(self, *values: Tensor) -> Tensor:
        """What the network predicts."""
        named = dict(zip(self.names, values, strict=True))
        added = {key: named.pop(key) for key in ADDED if key in named}
        told = {"added_cond_kwargs": added} if added else self._none()
        with nullcontext() if self.around is None else self.around():
            return self.model(**named, **told, return_dict=False)[0]

    def _none(self) -> dict[str, Any]:
        """PixArt's network wants to be told that it is told nothing more."""
        told = {"resolution": None, "aspect_ratio": None}
        return {"added_cond_kwargs": told} if type(self.model).__name__ == "PixArtTransformer2DModel" else {}

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """A random tensor for each of `names`."""
        return tuple(self._make(self.model.config, batch, self.size).values())

    # ------------------------------------------------------------------------------------------ the sampler

    def plan(self, shape: dict[str, Any]) -> list[dict[str, Any]]:
        """The steps of diffusers' scheduler: time and evaluations, two with guidance."""
        self.scale = None if self.unguided else shape.get("guidance")
        self.count = self.fixed_steps or int(shape.get("steps") or 20)
        times = [float(t) for t in self.fresh_scheduler().timesteps]
        steps = [{"index": i, "t": t, "evaluations": self.branches} for i, t in enumerate(times)]
        self.steps_planned = steps if self.course is None else self.course.plan(self, steps)
        return self.steps_planned

    @property
    def branches(self) -> int:
        """Evaluations of the network that a step makes: two with guidance."""
        return 1 if self.scale is None else 2

    def fresh_scheduler(self) -> Any:
        """A scheduler of its own for every run, so that nothing is left of the run before."""
        return self.how.made(self.count, self.size.height * self.size.width // 4)

    def along(self, times: list[float]) -> Any:
        """A fresh scheduler of a flow that runs along these times in 0..1, and then to 0."""
        with torch.device("cpu"):
            made = getattr(import_diffusers(), NAMED["flow_euler"][0])()
            made.set_timesteps(sigmas=times)
        return made

    def start(self, noise: Tensor, cond: tuple[Tensor, ...]) -> dict[str, Any]:
        """Noise as wide as a fresh scheduler begins, conditions and that scheduler."""
        scheduler = self.fresh_scheduler()
        state = {"x": noise * float(getattr(scheduler, "init_noise_sigma", 1.0)), "cond": cond, "scheduler": scheduler}
        return state if self.course is None else self.course.start(self, state)

    def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """One step of the scheduler, plain or as a method has it."""
        return self.plain_step(index, state) if self.course is None else self.course.step(self, index, state)

    def plain_step(self, index: int, state: dict[str, Any], network: Predicting | None = None) -> dict[str, Any]:
        """One step of the state's scheduler, by the network itself or by another that is called as it is."""
        scheduler, x = state["scheduler"], state["x"]
        t = scheduler.timesteps[index]
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        found = self.guided(scaled, float(t), state["cond"], network)
        return {**state, "x": scheduler.step(found, t, x, return_dict=False)[0]}

    def guided(self, x: Tensor, t: float, cond: tuple[Tensor, ...], network: Predicting | None = None) -> Tensor:
        """What the network predicts, guided where the plan says so: then the branch that knows `cond` is run first."""
        times = torch.full((len(x),), t / self._unit, device=x.device, dtype=x.dtype)
        predicted = network or self._predicted
        aware = predicted(x, times, cond)
        if self.scale is None:
            return aware
        unaware = predicted(x, times, self._empty(cond))
        return unaware + self.scale * (aware - unaware)

    def _empty(self, cond: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The empty condition: a class of its own, and zeros for words; what is no condition stays."""
        empty = []
        for name, each in zip(self.names[2:], cond, strict=True):
            if name == "class_labels":
                empty.append(torch.full_like(each, self.model.config.num_embeds_ada_norm))
            else:
                empty.append(each if name in STATED else torch.zeros_like(each))
        return tuple(empty)

    def _predicted(self, x: Tensor, times: Tensor, cond: tuple[Tensor, ...]) -> Tensor:
        return of_pictures(self(x, times, *cond), x)

    def finish(self, state: dict[str, Any]) -> Tensor:
        """The latents."""
        return state["x"]

    def example_noise(self, batch: int, seed: int) -> Tensor:
        """Noise of each image's own, by seed and index."""
        with torch.device("meta"):
            shape = self._make(self.model.config, 1, self.size)[self.names[0]].shape[1:]
        return noise(range(batch), seed, tuple(shape))

    def example_cond(self, batch: int) -> tuple[Tensor, ...]:
        """Every input but the first and the time, each image's by its own index."""
        rows = []
        for index in range(batch):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(index)
                rows.append(self._make(self.model.config, 1, self.size))
        return tuple(
            rows[0][name] if name in UNBATCHED else torch.cat([row[name] for row in rows]) for name in self.names[2:]
        )


def of_pictures(found: Tensor, x: Tensor) -> Tensor:
    """A prediction of the shape of pictures; variances that come with it are left out."""
    return found if found.shape == x.shape else found.narrow(1, 0, x.shape[1])


def _size(kind: Kind, config: Any, resolution: int | None, latent: list[int] | None, words: int | None) -> Size:
    """The size of the example inputs.

    Raises:
        UsageError: `latent` is not two or three numbers, or both it and a resolution are given.
    """
    frames, height, width = kind.size(config)
    if latent is not None:
        if len(latent) not in (2, 3) or resolution is not None:
            raise UsageError(
                f"latent={latent} has to be [rows, columns] or [frames, rows, columns], without a resolution beside it"
            )
        frames, height, width = (frames, *latent) if len(latent) == 2 else latent
    elif resolution is not None:
        if resolution % kind.pixels:
            raise UsageError(f"resolution={resolution} is no multiple of the {kind.pixels} pixels of a latent")
        height = width = resolution // kind.pixels
    return Size(frames, height, width, kind.words if words is None else words)
