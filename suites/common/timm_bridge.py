"""timm models by name, where timm is installed."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError, did_you_mean
from suites.common.checkpoint import load_checkpoint
from suites.common.folding import fold_batch_norms
from suites.common.torchvision_remedy import import_beside_torchvision, mend_torchvision
from suites.common.vit import ViT, vit

mend_torchvision()  # here, so that a process that is handed a network of timm can import timm as well

__all__ = ["as_vit", "import_timm", "load_checkpoint", "timm_model"]


def import_timm() -> ModuleType:
    """The timm package, also beside a torchvision that was built for another torch.

    Raises:
        UsageError: timm is not installed.
    """
    return import_beside_torchvision("timm")


def timm_model(
    *,
    name: str,
    resolution: PositiveInt | None = None,
    native: bool = False,
    form: Literal["train", "folded", "deploy"] = "train",
) -> nn.Module:
    """The timm model of that name with random weights, in evaluation mode; its `resolution` is the side of its input.

    Args:
        name: a timm architecture, such as "deit_small_patch16_224"; a tag after a dot says whose weights the network
            was made for, which decides its classes and its own resolution; nothing is downloaded.
        resolution: side of the square input; None takes the architecture's own.
        native: gives the same network as this project's ViT, which the token reduction methods work on.
        form: `train` is the network as it is trained; `folded` has batch normalisations inside the layers before them;
            `deploy` has parallel branches merged as well, where the architecture has some that can be.

    Raises:
        UsageError: timm is missing or has no such model, or the form or resolution is none of it.
        ValueError: `native` is asked for a network that is not a plain ViT.
    """
    timm = import_timm()
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise UsageError(f'timm has no model "{name}"; {did_you_mean(architecture, timm.list_models())}')
    module = _made(timm, name, resolution).eval()
    if native:
        return as_vit(module)
    module.resolution = resolution or _own_resolution(module)  # type: ignore[assignment]
    _check_blocks(module, name)
    return module if form == "train" else _deployed(timm, module, name, form)


def _made(timm: ModuleType, name: str, resolution: int | None) -> nn.Module:
    """The network, made for this resolution where the architecture is tied to one (positions, windows)."""
    try:
        return timm.create_model(name, pretrained=False, **({} if resolution is None else {"img_size": resolution}))
    except TypeError as error:
        if resolution is None or "img_size" not in str(error):
            raise
        return timm.create_model(name, pretrained=False)  # of any resolution
    except RuntimeError as error:
        if "pretrained tag" not in str(error):
            raise
        raise UsageError(f'timm has no weights tagged so for "{name}": {error}') from error
    except (AssertionError, ValueError) as error:
        if resolution is None:
            raise
        reason = str(error) or "its windows do not divide it"
        raise UsageError(f'"timm:{name}" cannot be made for {resolution} pixels: {reason}') from error


def _check_blocks(module: nn.Module, name: str) -> None:
    """Raise UsageError if a map of a network with block attention cannot be cut into whole blocks (timm is silent)."""
    parts: list[Any] = [part for part in module.modules() if type(part).__name__ == "HaloAttn"]
    sides: set[int] = {part.block_size for part in parts}
    if not sides:
        return
    twin, pixels = copy.deepcopy(module).to("meta"), int(module.resolution)  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            twin(torch.empty(1, 3, pixels, pixels, device="meta"))
    except AssertionError as error:
        raise UsageError(
            f'"timm:{name}" cannot be run at {pixels} pixels: its attention works in blocks of '
            f"{' or '.join(map(str, sorted(sides)))} that have to divide every map it stands on; take a multiple of "
            "256, or of the stride of its last such map times the side of a block"
        ) from error


def _own_resolution(module: nn.Module) -> int:
    """The side of the square input that the network's configuration names."""
    settings: Any = getattr(module, "pretrained_cfg", None) or {}
    return int((settings.get("input_size") or (3, 224, 224))[-1])


def _deployed(timm: ModuleType, module: nn.Module, name: str, form: str) -> nn.Module:
    """The network in a form for inference.

    Raises:
        UsageError: it has nothing that could be merged or folded.
    """
    before = sum(1 for _ in module.modules())
    if form == "deploy":
        module = timm.utils.model.reparameterize_model(module, inplace=True)
    folded = fold_batch_norms(module)
    if not folded and sum(1 for _ in module.modules()) == before:
        raise UsageError(
            f"\"timm:{name}\" has no branches to merge and no batch normalisation to fold: use form='train'"
        )
    return module.eval()


def as_vit(module: nn.Module) -> ViT:
    """This project's ViT with the weights of a plain timm VisionTransformer.

    Raises:
        ValueError: the module has parts that our ViT does not have.
    """
    try:
        settings = _settings_of(module)
    except AttributeError as error:
        raise ValueError(f"{type(module).__name__} is not a plain vision transformer: {error}") from error
    ours = vit(**settings)
    own, theirs = ours.state_dict(), module.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in theirs.items()}:
        different = sorted(set(own) ^ set(theirs))[:4] or "shapes"
        raise ValueError(f"{type(module).__name__} is not a plain vision transformer: it differs in {different}")
    ours.load_state_dict(theirs)
    return ours


def _settings_of(module: Any) -> dict[str, Any]:
    block = module.blocks[0]
    return {
        "width": module.embed_dim,
        "heads": block.attn.num_heads,
        "depth": len(module.blocks),
        "patch": module.patch_embed.patch_size[0],
        "resolution": module.patch_embed.img_size[0],
        "classes": module.num_classes,
        "channels": module.patch_embed.proj.in_channels,
        "mlp_ratio": block.mlp.fc1.out_features / module.embed_dim,
        "qkv_bias": block.attn.qkv.bias is not None,
        "distilled": getattr(module, "dist_token", None) is not None,
        "class_token": module.cls_token is not None,
        "pool": "mean" if module.global_pool == "avg" else "token",
    }
