"""A piece of work: the cases of a group that one machine measures, with all that it has to know, as plain JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from bench.canonical import digest
from bench.config.schema import Config, validate
from bench.host.code import code_version
from bench.plan.case import Case
from bench.plan.plan import threads

#: Libraries that change what is computed or how fast: with unlike ones rows of a sweep would not be of one instrument.
TOLD = ("torch", "numpy", "timm", "transformers", "diffusers", "torchao", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Work:
    """What a machine is told.

    Attributes:
        key: hash of the cases, and the name of its folder.
        label: what the cases share, for people.
        config: the composed configuration.
        cases: their keys.
        versions: of the instrument and of libraries, as the driver has them.
        folder: where the driver was started; used where there is such a folder on the machine.
        seconds: estimated for all cases.
    """

    key: str
    label: str
    config: dict[str, Any]
    cases: tuple[str, ...]
    versions: dict[str, str]
    folder: str
    seconds: float

    def text(self) -> str:
        """The piece of work as JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def read(cls, text: str) -> Work:
        """The piece of work that `text` made."""
        fields = json.loads(text)
        return cls(**{**fields, "cases": tuple(fields["cases"])})

    def configured(self, results: str) -> Config:
        """The configuration of the sweep on the machine: no mirror, no page, local workers, results of its own.

        Args:
            results: its results folder.

        Raises:
            UsageError: something that the configuration names is not on this machine.
        """
        executor = {**self.config["executor"], "name": self.config["executor"]["inner"]}
        changed = {
            "paths": {**self.config["paths"], "results": results},
            "executor": executor,
            "tracking": {**self.config["tracking"], "enabled": False},
            "report": {**self.config["report"], "enabled": False},
            "counts": False,
            "retry": "none",
            "retry_failed": False,
            "job": "run",
        }
        return validate({**self.config, **changed})


def work_for(config: Config, label: str, cases: Sequence[Case], seconds: float, state: Sequence[str | None]) -> Work:
    """The piece of work of these cases, for machines that have what this one has.

    Args:
        config: the composed configuration.
        label: what the cases share.
        cases: what is measured.
        seconds: estimated for all of them.
        state: what is known of each now, by hash: measured again, the same cases are another piece of work.
    """
    keys, told = tuple(case.key for case in cases), config.model_dump(mode="json")
    told["device"]["threads"] = threads(config)  # as many as the driver's keys say, whatever `auto` is elsewhere
    key = digest([list(keys), list(state), told])
    return Work(key, label, told, keys, versions(), os.getcwd(), seconds)


@cache
def versions() -> dict[str, str]:
    """What has to be equal on every machine: instrument, commit, Python's minor version, libraries that are there."""
    code = code_version()
    found = {"waterline-bench": str(code["version"]), "Python": ".".join(platform.python_version_tuple()[:2])}
    if code["commit"]:
        found["commit"] = str(code["commit"])
    for name in TOLD:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[
                0
            ]  # the build differs from machine to machine
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def difference(driver: Mapping[str, str], machine: Mapping[str, str]) -> str:
    """What a machine has in another version than the driver, in words; empty if nothing.

    A commit that only one of them knows is no difference: an installed instrument has none.
    """
    lines = []
    for name in dict.fromkeys([*driver, *machine]):
        here, there = driver.get(name), machine.get(name)
        if here != there and not (name == "commit" and None in (here, there)):
            lines.append(f"{name} {there or 'missing'} instead of {here or 'none'}")
    return ", ".join(lines)
