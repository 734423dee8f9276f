"""Networks of transformers from a configuration or a local folder; nothing is downloaded, no code of a folder run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.hf_bridge import hf_decoder, import_transformers


def hf_model(
    *,
    name: str,
    cache: Literal["dynamic", "static"] = "dynamic",
    capacity: PositiveInt = 4096,
    length: PositiveInt = 128,
) -> nn.Module:
    """The network of a folder or configuration file in evaluation mode.

    A causal language model offers what the workload `generate` needs; any other is called with the tensors that it
    names.

    Args:
        name: a folder with config.json, whose weights are loaded if they are there as safetensors, or a configuration
            file, whose network gets random weights.
        cache: of a causal language model: transformers' DynamicCache (concatenation) or StaticCache (pre-allocated).
        capacity: positions of a static cache.
        length: tokens, or frames of sound, of the example inputs of any other network.

    Raises:
        UsageError: transformers is missing, the path holds no configuration of it, or its code is not transformers'
            own.
    """
    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f'"hf:{name}": no configuration of transformers: {error}') from error
    built = _class_of(transformers, config, name)
    if _is_causal(transformers, config, built):
        return hf_decoder(name=name, cache=cache, capacity=capacity)
    folder = Path(name)
    stored = folder.is_dir() and any(folder.glob("*.safetensors"))
    try:
        if stored:
            model = built.from_pretrained(name, local_files_only=True, use_safetensors=True)
        else:
            model = built._from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f'"hf:{name}": {built.__name__} cannot be made of it: {error}') from error
    return HfModel(model.eval(), length)


def _class_of(transformers: Any, config: Any, name: str) -> Any:
    """The class that a configuration names, else the decoder of a kind that only writes text, else the bare network."""
    for architecture in config.architectures or ():
        found = getattr(transformers, architecture, None)
        if found is None:
            raise UsageError(
                f'"hf:{name}": its network {architecture} is not one of transformers {transformers.__version__}; code '
                "that lies in a folder is not run: write a builder and name it, model=package.module:build"
            )
        return found
    kind = type(config)
    if kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and kind not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[kind]  # as `LlamaConfig(...).save_pretrained` leaves it
    try:
        return transformers.MODEL_MAPPING[kind]
    except KeyError as error:
        raise UsageError(f'"hf:{name}": {type(config).__name__} names no architecture') from error


def _is_causal(transformers: Any, config: Any, built: Any) -> bool:
    """Whether the class is the causal language model of its kind, and no encoder stands before it."""
    try:
        causal = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        return False
    return built is causal and not getattr(config, "is_encoder_decoder", False)


class HfModel(nn.Module):
    """A network of transformers, called with the tensors of `names` in that order; answers with its own output class.

    Attributes:
        model: the network.
        length: tokens or frames of its example inputs.
        names: what it is called with.
    """

    def __init__(self, model: Any, length: int = 128):
        super().__init__()
        self.model, self.length = model, length
        taken = inspect.signature(model.forward).parameters
        main = model.main_input_name
        wanted = [main, *(name for name in _MAKERS if name in taken and name != main and _is_needed(model, name))]
        self.names = tuple(dict.fromkeys(wanted))
        self._options = {name: False for name in ("use_cache",) if name in taken}

    def forward(self, *values: Tensor) -> Any:
        """The output of transformers, a dataclass with named tensors; without a cache."""
        return self.model(**dict(zip(self.names, values, strict=True)), **self._options)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """A random tensor for each of `names`.

        Raises:
            UsageError: the network takes something that there is no example of.
        """
        strange = [name for name in self.names if name not in _MAKERS]
        if strange:
            raise UsageError(
                f"{type(self.model).__name__} takes {strange[0]}, of which there is no example: write a builder that "
                "gives the network and its inputs, model=package.module:build"
            )
        return tuple(_MAKERS[name](self.model.config, batch, self.length) for name in self.names)


def _is_needed(model: Any, name: str) -> bool:
    """Whether a network needs an input beside its main one: a decoder's ids, or pictures where it takes both."""
    if name.startswith("decoder_"):
        return bool(getattr(model.config, "is_encoder_decoder", False)) and hasattr(model, "get_encoder")
    both = (
        getattr(model.config, "text_config", None) is not None
        and getattr(model.config, "vision_config", None) is not None
    )
    return both and name in ("input_ids", "pixel_values")


def _part(config: Any, *names: str) -> Any:
    """The part of a configuration that speaks of text or of pictures; the configuration itself if it has no parts."""
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), config)


def _ids(config: Any, batch: int, length: int) -> Tensor:
    text = _part(config, "text_config")
    most = getattr(text, "max_position_embeddings", None) or length
    return torch.randint(0, text.vocab_size, (batch, min(length, most)))


def _pixels(config: Any, batch: int, length: int) -> Tensor:
    picture = _part(config, "vision_config")
    size = getattr(picture, "image_size", None) or 224
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return torch.randn(batch, getattr(picture, "num_channels", 3), height, width)


def _features(config: Any, batch: int, length: int) -> Tensor:
    """Frames of sound: as many as the network has positions for, where it has a fixed number."""
    bins: Any = getattr(config, "num_mel_bins", None) or getattr(config, "input_feat_per_channel", 80)
    positions = getattr(config, "max_source_positions", None)
    return torch.randn(batch, bins, 2 * positions if positions else length)


def _waves(config: Any, batch: int, length: int) -> Tensor:
    return torch.randn(batch, 320 * length)  # one frame of the usual strides: 20 ms at 16 kHz


#: How an example of each input is made, from configuration, batch and length.
_MAKERS: dict[str, Callable[[Any, int, int], Tensor]] = {
    "input_ids": _ids,
    "pixel_values": _pixels,
    "input_features": _features,
    "input_values": _waves,
    "decoder_input_ids": _ids,
}
