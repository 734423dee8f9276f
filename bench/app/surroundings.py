"""What a report of trouble has to say of where the bench was started: versions, folders, variables, encodings."""

from __future__ import annotations

import importlib.metadata
import locale
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.config import paths
from bench.config.schema import Config
from bench.errors import BenchError

Fact = tuple[str, str]

#: Distributions that reports of trouble turn on, beside the bench.
_PACKAGES = (
    "waterline-bench", "torch", "torchvision", "timm", "transformers", "diffusers", "peft", "torchao", "fvcore",
    "onnx", "onnxruntime", "openvino", "numpy", "scipy", "pandas", "hydra-core", "omegaconf", "pydantic", "mlflow",
    "cloudpickle",
)  # fmt: skip
#: Beginnings of the variables that change what the bench or torch does.
_VARIABLES = (
    "BENCH_", "MLFLOW_", "HYDRA_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH", "PYTORCH_", "CUDA_", "NVIDIA_",
    "PYTHON", "LANG", "LC_", "TMPDIR", "XDG_", "HF_", "LD_PRELOAD", "MALLOC_", "VIRTUAL_ENV", "CONDA_PREFIX",
)  # fmt: skip
_SECRET = ("TOKEN", "PASSWORD", "SECRET", "KEY")


def surroundings(config: Config) -> Iterator[Fact]:
    """What and how it is, one row each; the home folder is written `~`, and values of secrets are left out."""
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()}), {_short(sys.executable)}"
    yield "system", f"{platform.platform()}, {'-'.join(filter(None, platform.libc_ver())) or 'unknown C library'}"
    yield "packages", ", ".join(_versions())
    yield "torch", _torch()
    yield (
        "encodings",
        (
            f"output {sys.stdout.encoding}, files {locale.getpreferredencoding(False)}, names "
            f"{sys.getfilesystemencoding()}"
        ),
    )
    yield "started in", _short(os.getcwd())
    yield from _folders(config)
    yield "suites", _suites()
    for name, value in sorted(os.environ.items()):
        if name.startswith(_VARIABLES):
            yield name, "(set)" if any(word in name for word in _SECRET) else _short(value)


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue


def _torch() -> str:
    try:
        import torch
    except Exception as error:  # a torch that does not even import is what the report is about
        return f"cannot be imported: {type(error).__name__}: {error}"
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return f"{torch.__version__}, {cuda}, {torch.get_num_threads()} threads, default {torch.get_default_dtype()}"


def _folders(config: Config) -> Iterator[Fact]:
    """Whether each folder that is written to can be."""
    places = {
        "results": config.paths.results,
        "site": config.paths.site,
        "cache": config.paths.cache,
        "home": str(Path.home()),
        "temporary": tempfile.gettempdir(),
    }
    for name, text in places.items():
        place = Path(text)
        there = next((folder for folder in (place, *place.absolute().parents) if folder.exists()), Path("/"))
        how = "can be written" if os.access(there, os.W_OK) else "cannot be written"
        yield name, f"{_short(text)}: {how}" + ("" if place.exists() else ", not there yet")


def _suites() -> str:
    try:
        return ", ".join(folder.name for folder in paths.suite_folders()) or "none"
    except BenchError as error:
        return str(error)


def _short(text: str) -> str:
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
