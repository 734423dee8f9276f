"""Schedulers of diffusers: those that a setting names, and the one that a pipeline's folder was released with.

A run makes its scheduler anew, so that nothing is left of the run before. Schedulers that draw noise on the way are
refused: an image has to depend on its own first noise alone, whatever the batch it is made in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bench.errors import UsageError
from suites.common.torchvision_remedy import import_beside_torchvision

FLOW = "FlowMatchEulerDiscreteScheduler"
#: The class of diffusers that each is, and fields that differ from its defaults.
NAMED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "flow_euler": (FLOW, {}),
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "dpm_solver": ("DPMSolverMultistepScheduler", {}),
    # the velocities of a diffusion that ends in noise alone, as CogVideoX learned them
    "cogvideox": (
        "CogVideoXDDIMScheduler",
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "snr_shift_scale": 1.0,
         "timestep_spacing": "trailing", "clip_sample": False},
    ),
}  # fmt: skip
#: Of a class of network where nothing else is said; all others are sampled as flows.
USUAL: Mapping[str, str] = {
    "UNet2DModel": "ddim", "UNet2DConditionModel": "ddim", "DiTTransformer2DModel": "ddim",
    "PixArtTransformer2DModel": "ddim", "CogVideoXTransformer3DModel": "cogvideox",
}  # fmt: skip
#: Classes of diffusers that draw no noise on the way as they are released.
STEADY = (
    FLOW, "FlowMatchHeunDiscreteScheduler", "DDIMScheduler", "CogVideoXDDIMScheduler", "PNDMScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler",
    "EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler",
)  # fmt: skip
#: One that draws noise, and one without that reads the same fields.
WITHOUT_NOISE: Mapping[str, str] = {"CogVideoXDPMScheduler": "CogVideoXDDIMScheduler"}


def import_diffusers() -> ModuleType:
    """The diffusers package, also beside a torchvision whose operators do not load.

    Raises:
        UsageError: diffusers is not installed.
    """
    return import_beside_torchvision("diffusers")


@dataclass(frozen=True)
class Scheduling:
    """A scheduler of diffusers: its class and fields.

    Attributes:
        kind: the class.
        fields: that differ from its defaults; what the class does not know is left out.
    """

    kind: str
    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What `scheduler=` calls it, else its class."""
        return next((name for name, (kind, _) in NAMED.items() if kind == self.kind), self.kind)

    def made(self, count: int, patches: int) -> Any:
        """A fresh one, set to `count` steps for a picture of so many patches (flows may be shifted by their number).

        Raises:
            UsageError: it draws noise on the way, or diffusers cannot make it of its fields.
        """
        drawn = "sde" in str(self.fields.get("algorithm_type")) or self.fields.get("stochastic_sampling")
        if self.kind not in STEADY or drawn:
            raise UsageError(
                f"scheduler {self.kind} draws noise on the way, or is none that is known here: say "
                f"scheduler={' or '.join(NAMED)}; of a pipeline {', '.join(STEADY)} are read"
            )
        with torch.device("cpu"):
            try:
                scheduler = getattr(import_diffusers(), self.kind).from_config(dict(self.fields))
                if self.kind == FLOW:
                    scheduler.set_timesteps(
                        sigmas=[1 - place / count for place in range(count)], mu=self._shift(scheduler.config, patches)
                    )
                else:
                    scheduler.set_timesteps(count)
            except (ValueError, TypeError, KeyError) as error:
                raise UsageError(f"scheduler {self.kind} cannot be made for {count} steps: {error}") from error
        return scheduler

    @staticmethod
    def _shift(config: Any, patches: int) -> float | None:
        """The exponent by which times are shifted, linear in the number of patches; None where there is none."""
        if not config.use_dynamic_shifting:
            return None
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        return float(config.base_shift + slope * (patches - config.base_image_seq_len))


def of_pipeline(folder: Path) -> Scheduling | None:
    """The scheduler of a pipeline's folder, or None where it has none.

    Raises:
        UsageError: its configuration cannot be read.
    """
    file = folder / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        return None
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        kind = fields.pop("_class_name")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{file}: this is no configuration of a scheduler: {error}") from error
    known = {name: value for name, value in fields.items() if not name.startswith("_")}
    return Scheduling(WITHOUT_NOISE.get(str(kind), str(kind)), known)


def scheduling(named: str | None, released: Scheduling | None, network: str) -> Scheduling:
    """What a network is sampled by: the scheduler of that name, else the pipeline's, else the usual one of its class.

    A name beside a pipeline takes the pipeline's fields, of which what a network predicts is one.
    """
    if named is None and released is not None:
        return released
    kind, fields = NAMED[named or USUAL.get(network, "flow_euler")]
    return Scheduling(kind, fields if released is None else released.fields)
