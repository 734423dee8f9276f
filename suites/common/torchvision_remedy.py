"""The remedy for a torchvision built for another torch; call it before the first import of what uses it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import torch

from bench.errors import UsageError

_NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_QNMS = "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
#: Keeps the operator schemas registered for as long as the process lives.
_schemas: list[torch.library.Library] = []


class NotInstalled(UsageError, NotImplementedError):
    """A library that a row needs is not there: the row is `unsupported`, with this reason."""


def import_beside_torchvision(package: str) -> ModuleType:
    """A package that imports torchvision (timm, transformers, diffusers), also beside one whose operators do not load.

    Such a torchvision has Python files but no compiled operators, and fails at import on the missing schema of
    `torchvision::nms`. Only in that case the two schemas are declared first; nothing ever calls them.

    Args:
        package: dotted name of the package or of a module in it.

    Raises:
        NotInstalled: the package is not installed.
    """
    mend_torchvision()
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise NotInstalled(f"{name} is not installed ({error}): python -m pip install {name}") from error


def mend_torchvision() -> None:
    """Declare the schemas of torchvision's operators where its own do not load; nothing where it is whole or absent."""
    if operators_load():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(_NMS)
    library.define(_QNMS)
    _schemas.append(library)


def operators_load() -> bool:
    """Whether torchvision is absent or whole, or was already mended: then nothing needs to be done."""
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
    for name in [name for name in sys.modules if f"{name}.".startswith("torchvision.")]:
        del sys.modules[name]
