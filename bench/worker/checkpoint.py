"""Weights from a user's file into a module: safetensors or a weights-only torch file, never a pickle of objects."""

from __future__ import annotations

import importlib
from pathlib import Path

from torch import nn

from bench.config.signatures import split_path
from bench.errors import UsageError, did_you_mean

NAMES_SHOWN = 5


def read_state(path: Path) -> dict[str, object]:
    """The state dictionary of a checkpoint file, unwrapped from `model` or `state_dict` if it is nested.

    Raises:
        UsageError: the file cannot be read without running code from it.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(str(path)))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(
            f"checkpoint {path.name} cannot be read as safetensors or with weights_only=True ({error}); "
            "convert it with safetensors.torch.save_file"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            return dict(state[key])
    return dict(state)


def load_checkpoint(module: nn.Module, path: Path, builder_path: str) -> None:
    """Load a checkpoint with the builder's own loader if its module has one, else strictly by key.

    Raises:
        UsageError: keys or shapes do not fit.
    """
    owner = importlib.import_module(split_path(builder_path)[0])
    if hasattr(owner, "load_checkpoint"):
        owner.load_checkpoint(module, path)
        return
    state = read_state(path)
    own = module.state_dict()
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unexpected:
        hint = did_you_mean(unexpected[0], own, limit=NAMES_SHOWN) if unexpected else ""
        raise UsageError(
            f"checkpoint {path.name} does not fit: missing {missing[:NAMES_SHOWN]}, "
            f"unexpected {unexpected[:NAMES_SHOWN]}; {hint}"
        )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"checkpoint {path.name} does not fit: {error}") from error
