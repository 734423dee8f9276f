"""Models of the catalogue at a resolution, on the meta device or with numbers that hide nothing."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from bench.config import catalogue
from bench.config.catalogue import parse_spec
from bench.meters import macs
from bench.worker.subject import find

CATALOGUE = catalogue.load()


def made(spec: str, resolution: int | None = None) -> nn.Module:
    """The model of a spec, in evaluation mode."""
    name, settings = parse_spec(spec)
    entry = CATALOGUE.model(name)
    builder = find(entry.path)
    chosen = {**entry.settings, **settings}
    if resolution is not None and "resolution" in inspect.signature(builder).parameters:
        chosen["resolution"] = resolution
    return builder(**chosen).eval()


def inputs_of(module: nn.Module, batch: int = 1) -> tuple[torch.Tensor, ...]:
    """Its example inputs, else images of its resolution."""
    own = getattr(module, "example_inputs", None)
    if own is not None:
        return own(batch)
    side = module.resolution
    return (torch.randn(batch, 3, side, side, device=next(module.parameters()).device),)


def parameters(spec: str, resolution: int | None = None) -> int:
    """Parameters, without storage."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in made(spec, resolution).parameters())


def counted(spec: str, resolution: int | None = None) -> tuple[int, macs.MacsCount]:
    """Parameters and the count of one sample, without storage."""
    with torch.device("meta"):
        module = made(spec, resolution)
        inputs = inputs_of(module)
    with torch.no_grad():
        count = macs.count(module, inputs, {}, second_count=False)
    return sum(parameter.numel() for parameter in module.parameters()), count


def stirred(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with statistics, scales and zero-initialised weights that hide no error."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.2, generator=generator)
    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        if last.startswith("scale") or last in ("gamma", "beta", "gates", "contrast", "phase"):
            parameter.data.normal_(0.5, 0.2, generator=generator)
    return module
