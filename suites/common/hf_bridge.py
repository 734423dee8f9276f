"""Decoders of transformers from a configuration or a local folder, as subjects that generate; nothing is downloaded."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from torch import Tensor

from bench.config.settings import PositiveInt
from bench.errors import UsageError, did_you_mean
from suites.common.decoder import Generator
from suites.common.released_configs import CONFIGS
from suites.common.torchvision_remedy import import_beside_torchvision, mend_torchvision

# A decoder that another process unpickles brings this module before transformers' classes: those must find a whole
# torchvision.
mend_torchvision()


def import_transformers() -> ModuleType:
    """The transformers package, also beside a torchvision whose operators do not load.

    Raises:
        UsageError: transformers is not installed.
    """
    return import_beside_torchvision("transformers")


def hf_decoder(
    *, name: str, cache: Literal["dynamic", "static"] = "dynamic", capacity: PositiveInt = 4096
) -> Generator:
    """The causal language model of a folder or configuration file in evaluation mode.

    Args:
        name: a folder with config.json, whose weights are loaded if they are there, or a configuration file, whose
            model gets random weights.
        cache: transformers' DynamicCache (concatenation) or StaticCache (pre-allocated).
        capacity: positions of a static cache.

    Raises:
        UsageError: transformers is missing, or the path holds no configuration of a causal language model.
    """
    transformers = import_transformers()
    path = Path(name).expanduser()
    if not path.exists():
        raise UsageError(f'"hf:{name}": there is no such folder or configuration file; nothing is downloaded')
    try:
        config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True)
        if path.is_dir() and any(path.glob("*.safetensors")):
            model = transformers.AutoModelForCausalLM.from_pretrained(str(path), local_files_only=True)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f'"hf:{name}": not a causal language model of transformers: {error}') from error
    return HfDecoder(model, cache, capacity).eval()


def released_decoder(
    *, name: str, cache: Literal["dynamic", "static"] = "dynamic", capacity: PositiveInt = 4096,
    layers: PositiveInt | None = None, vocabulary: PositiveInt | None = None,
) -> Generator:  # fmt: skip
    """The decoder of a released configuration in evaluation mode with random weights.

    Args:
        name: a row of suites/common/released_configs.py.
        cache: transformers' DynamicCache (concatenation) or StaticCache (pre-allocated).
        capacity: positions of a static cache.
        layers: so many layers instead of the released number.
        vocabulary: so many token ids instead of the released number.

    Raises:
        UsageError: transformers is missing, or there is no such configuration.
    """
    transformers = import_transformers()
    if name not in CONFIGS:
        raise UsageError(f'no released configuration is called "{name}"; {did_you_mean(name, CONFIGS)}')
    fields = dict(CONFIGS[name])
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    if layers is not None:
        config = _shortened(config, layers)
    if vocabulary is not None:
        config.vocab_size = vocabulary
    return HfDecoder(transformers.AutoModelForCausalLM.from_config(config), cache, capacity).eval()


def _shortened(config: Any, layers: int) -> Any:
    """The same configuration with so many layers; a plan of kinds of layers is cut to them."""
    plan = getattr(config, "attention_layers", None)  # GPT-Neo's, which has no other number of layers
    if plan is not None:
        config.attention_layers = plan[:layers]
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = kinds[:layers]
    config.num_hidden_layers = layers
    return config


class HfDecoder(Generator):
    """A causal language model of transformers behind the calls of `Generator`."""

    def __init__(self, model: Any, cache: str = "dynamic", capacity: int = 4096):
        super().__init__()
        self.model = model
        self.cache, self.capacity = cache, capacity
        self.vocabulary = int(model.config.vocab_size)
        # transformers renamed the argument; the first wrapped signature is the model's own.
        names = inspect.signature(inspect.unwrap(model.forward)).parameters
        self._keyword = next((name for name in ("cache", "past_key_values") if name in names), "")
        if not self._keyword:
            raise UsageError(
                f"{type(model).__name__} keeps its state in an own way, not in a cache of transformers: write a "
                "builder with prefill and decode, model=package.module:build (docs/workloads.md)"
            )

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position."""
        return self.model(input_ids=ids, use_cache=False).logits

    def prefill(self, ids: Tensor) -> tuple[Tensor, Any]:
        """Logits of the last position and the cache."""
        return self._run(ids, self._empty())

    def decode(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits of the next position, and the cache, which is changed in place."""
        return self._run(ids, cache)

    def _run(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        out = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **{self._keyword: cache})
        return out.logits[:, -1], cache

    def _empty(self) -> Any:
        transformers = import_transformers()
        if self.cache == "static":
            return transformers.StaticCache(config=self.model.config, max_cache_len=self.capacity)
        return transformers.DynamicCache(config=self.model.config)

    def copy_cache(self, cache: Any) -> Any:
        """A cache of the same content in memory of its own."""
        return copy.deepcopy(cache)

    def cache_bytes(self, cache: Any) -> int:
        """Bytes of the filled positions of all layers, and of the states of those that keep one.

        A sliding layer holds no more than its window, a state the same whatever came before.
        """
        total = 0
        for layer in cache.layers:
            for tensor in _lines_of(layer):
                total += _bytes(tensor[:, :, : int(layer.get_seq_length())])
            total += sum(_bytes(tensor) for tensor in _states_of(layer))
        return total

    def cache_allocated(self, cache: Any) -> int:
        """Bytes of the cache's tensors."""
        return sum(_bytes(t) for layer in cache.layers for t in (*_lines_of(layer), *_states_of(layer)))

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        own = 8.0 * next(self.parameters()).element_size()
        return {"nominal": own, "stored": own}


def _lines_of(layer: Any) -> list[Tensor]:
    """Keys and values of a layer, [batch, heads, positions, size]; none of one that keeps only a state."""
    found = [getattr(layer, name, None) for name in ("keys", "values")]
    return [tensor for tensor in found if tensor is not None]


def _states_of(layer: Any) -> list[Tensor]:
    """States of a layer's convolution and recurrence; none of one that attends."""
    found = [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
    return [tensor for tensor in found if tensor is not None]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
