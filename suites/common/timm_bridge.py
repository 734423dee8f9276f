"""timm models by name, where timm is installed, also beside a torchvision whose compiled operators do not load."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError, did_you_mean
from suites.common.checkpoint import load_checkpoint
from suites.common.vit import ViT, vit

__all__ = ["as_vit", "import_timm", "load_checkpoint", "timm_model"]

_NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_QNMS = "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
#: Keeps the operator schemas registered for as long as the process lives.
_schemas: list[torch.library.Library] = []


def import_timm() -> ModuleType:
    """The timm package.

    A torchvision built for another torch has Python files but no loadable operators, and then fails at import on the
    missing schema of `torchvision::nms`. Only in that case the two schemas are declared first; nothing ever calls them.

    Raises:
        UsageError: timm is not installed.
    """
    if not _torchvision_operators_load():
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(_NMS)
        library.define(_QNMS)
        _schemas.append(library)
    try:
        import timm
    except ImportError as error:
        raise UsageError(f"timm is not installed ({error}): python -m pip install timm") from error
    return timm


def _torchvision_operators_load() -> bool:
    """Whether torchvision is absent or whole, or was already mended: then nothing needs to be done."""
    import importlib.util

    if _schemas or importlib.util.find_spec("torchvision") is None:
        return True
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _forget_half_imported_torchvision()
        return False
    return True


def _forget_half_imported_torchvision() -> None:
    import sys

    for name in [name for name in sys.modules if f"{name}.".startswith("torchvision.")]:
        del sys.modules[name]


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
    options: dict[str, Any] = {} if resolution is None else {"img_size": resolution}
    module = timm.create_model(architecture, pretrained=False, **options).eval()
    return as_vit(module) if native else module


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
