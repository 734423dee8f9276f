"""timm models by name, where timm is installed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError, did_you_mean
from suites.common.checkpoint import load_checkpoint
from suites.common.torchvision_remedy import import_beside_torchvision
from suites.common.vit import ViT, vit

__all__ = ["as_vit", "import_timm", "load_checkpoint", "timm_model"]


def import_timm() -> ModuleType:
    """The timm package, also beside a torchvision that was built for another torch.

    Raises:
        UsageError: timm is not installed.
    """
    return import_beside_torchvision("timm")


def timm_model(*, name: str, resolution: PositiveInt | None = None, native: bool = False) -> nn.Module:
    """The timm model of that name with random weights, in evaluation mode.

    Args:
        name: a timm architecture, such as "deit_small_patch16_224"; a pretrained tag after a dot is ignored.
        resolution: side of the square input; None takes the architecture's own.
        native: gives the same network as this project's ViT, which the token reduction methods work on.

    Raises:
        UsageError: timm is missing or has no such model.
        ValueError: `native` is asked for a network that is not a plain ViT.
    """
    timm = import_timm()
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise UsageError(f'timm has no model "{name}"; {did_you_mean(architecture, timm.list_models())}')
    module = _made(timm, architecture, resolution).eval()
    return as_vit(module) if native else module


def _made(timm: ModuleType, name: str, resolution: int | None) -> nn.Module:
    """The network, made for this resolution where the architecture is tied to one (positions, windows)."""
    try:
        return timm.create_model(name, pretrained=False, **({} if resolution is None else {"img_size": resolution}))
    except TypeError as error:
        if resolution is None or "img_size" not in str(error):
            raise
        return timm.create_model(name, pretrained=False)  # of any resolution


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
