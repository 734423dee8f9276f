"""Weights from a checkpoint file into a module, by name; nothing in the file is ever run."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UsageError, did_you_mean

#: Keys under which training scripts put the weights, in the order in which they are looked for.
NESTED = ("model", "state_dict", "model_ema", "module")
#: Prefixes that wrappers (data parallel, compile, self-supervised training) put before every name.
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.")
NAMES_SHOWN = 4


class CheckpointError(UsageError):
    """A checkpoint that is not there, cannot be read safely, or belongs to another network."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors or weights-only torch file.

    Raises:
        CheckpointError: there is no such file, or reading it would run code from it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist: give the path of a .safetensors, .pth or .pt file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"checkpoint {path} is refused: it is damaged or holds Python objects beside tensors, and reading those "
            f"runs code ({reason}). Save its weights alone with safetensors.torch.save_file where you trust it"
        ) from error
    return _weights_in(content, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path} is not a safetensors file: {error}; fetch it again") from error


def _weights_in(content: object, path: Path) -> dict[str, Tensor]:
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f'checkpoint {path} holds no table of tensors: looked at its top and under "model", ...')
    return {str(name): value for name, value in content.items()}


def load_checkpoint(module: nn.Module, path: Path) -> dict[str, object]:
    """Load a checkpoint into the module in place; says what was adapted.

    A position embedding of another resolution is resized (bicubic, as timm does it); all else must fit exactly.

    Returns:
        `resized_positions` (two grid sides, or None) and `tensors`.

    Raises:
        CheckpointError: the file cannot be read, or names or shapes differ; it names the nearest.
    """
    weights = _without_prefix(read_checkpoint(path), module)
    own = module.state_dict()
    resized = None
    if "pos_embed" in weights and "pos_embed" in own and weights["pos_embed"].shape != own["pos_embed"].shape:
        weights["pos_embed"], resized = _resize_positions(weights["pos_embed"], own["pos_embed"], module, path)
    _check_names(weights, own, path)
    _check_shapes(weights, own, path)
    module.load_state_dict(weights)
    return {"resized_positions": resized, "tensors": len(weights)}


def _without_prefix(weights: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    own = set(module.state_dict())
    for prefix in PREFIXES:
        if weights and not own & set(weights) and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _check_names(weights: dict[str, Tensor], own: dict[str, Tensor], path: Path) -> None:
    missing, unexpected = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if not missing and not unexpected:
        return
    parts = [f"checkpoint {path} is of another network."]
    if missing:
        parts.append(
            f"It lacks {_some(missing)}; for the first "
            f"{did_you_mean(missing[0], unexpected or weights, limit=NAMES_SHOWN)}."
        )
    if unexpected:
        parts.append(
            f"It has {_some(unexpected)} beyond the model; "
            f"{did_you_mean(unexpected[0], missing or own, limit=NAMES_SHOWN)}."
        )
    parts.append("Check width, depth, distilled, pool and class_token of the model.")
    raise CheckpointError(" ".join(parts))


def _check_shapes(weights: dict[str, Tensor], own: dict[str, Tensor], path: Path) -> None:
    for name, value in own.items():
        if weights[name].shape != value.shape:
            hint = f": build the model with classes={len(weights[name])}" if name.startswith("head") else ""
            raise CheckpointError(
                f"checkpoint {path} does not fit: {name} is {tuple(weights[name].shape)} in the file and "
                f"{tuple(value.shape)} in the model{hint}"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (
        f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    )


def _resize_positions(
    given: Tensor, wanted: Tensor, module: nn.Module, path: Path
) -> tuple[Tensor, tuple[int, int] | None]:
    """Position embedding on the model's grid: special tokens as they are, patches by bicubic interpolation."""
    special = int(getattr(module, "protected", getattr(module, "num_prefix_tokens", 1)))
    old, new = _side(given.shape[1] - special), _side(wanted.shape[1] - special)
    if old is None or new is None or given.shape[2] != wanted.shape[2]:
        raise CheckpointError(
            f"checkpoint {path} does not fit: pos_embed is {tuple(given.shape)} in the file and {tuple(wanted.shape)} "
            f"in the model, whose {special} special tokens leave no square grid or whose width differs"
        )
    grid = given[:, special:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
    patches = grid.permute(0, 2, 3, 1).reshape(1, new * new, -1).to(given.dtype)
    return torch.cat([given[:, :special], patches], dim=1), (old, new)


def _side(count: int) -> int | None:
    side = round(max(count, 0) ** 0.5)
    return side if side > 0 and side * side == count else None
