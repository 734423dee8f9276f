"""The plain rows of transformers: the same weights under the library's Llama, its caches, and its assisted decoding.

Caches: `dynamic` (DynamicCache, concatenation), `static` (StaticCache, pre-allocated), `sliding` (the cache and mask of
    a sliding window). Drafts: `lookup` (prompt look-up, Saxena 2023) and `exit` (the first layers draft, the whole
    verifies: LayerSkip's assisted early exit, Elhoushi et al. 2024, arXiv 2404.16710). The text of an assisted row is
    that of plain greedy decoding.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import as_decoder
from suites.common.hf_bridge import HfDecoder, import_transformers
from suites.common.llama_bridge import llama_of, weights_of

#: Longest tail that a look-up draft compares.
TAIL = 3


def transformers_decoder(
    model: nn.Module, *, cache: Literal["dynamic", "static", "sliding"] = "dynamic", window: PositiveInt = 256,
    capacity: PositiveInt = 8448,
) -> HfDecoder:  # fmt: skip
    """The decoder as transformers runs it, with one of its caches.

    Args:
        model: a decoder with a plain cache of keys and values and equal layers.
        cache: dynamic concatenates, static writes into memory made beforehand, sliding keeps the newest tokens.
        window: tokens that a query sees with `sliding`, itself included.
        capacity: positions of a static cache.

    Raises:
        ValueError: not such a model.
        NotInstalled: transformers is missing.
    """
    decoder = as_decoder(model, "transformers_decoder")
    if cache != "sliding":
        return HfDecoder(llama_of(decoder), cache, capacity)
    return HfDecoder(_mistral_of(decoder, window), "dynamic", capacity)


def transformers_assisted(
    model: nn.Module, *, draft: Literal["lookup", "exit"] = "lookup", ahead: PositiveInt = 4, exit: PositiveInt = 2
) -> HfDecoder:
    """The decoder as transformers runs it, its answers written by assisted decoding; one sequence after the other.

    Args:
        model: a decoder with a plain cache of keys and values and equal layers.
        draft: lookup takes what followed the last tokens where they stood before, exit asks the first layers.
        ahead: tokens of a draft.
        exit: layers that draft.

    Raises:
        ValueError: not such a model, or more drafting layers than it has.
        NotInstalled: transformers is missing.
    """
    decoder = as_decoder(model, "transformers_assisted")
    if draft == "exit" and exit >= len(decoder.blocks):
        raise ValueError(f"exit={exit}: fewer than the decoder's {len(decoder.blocks)} layers are wanted")
    return Assisted(llama_of(decoder), draft, ahead, exit)


def _mistral_of(decoder: Any, window: int) -> Any:
    """The same tensors under transformers' Mistral, which is Llama with a sliding window."""
    llama = llama_of(decoder).config.to_dict()
    dropped = ("model_type", "architectures", "attention_bias", "mlp_bias", "pretraining_tp", "transformers_version")
    fields = {name: value for name, value in llama.items() if name not in dropped}
    transformers = import_transformers()
    config = transformers.MistralConfig(**{**fields, "sliding_window": window})
    model = transformers.MistralForCausalLM(config).to(decoder.embed.weight)
    for name, weight in weights_of(decoder).items():
        model.get_submodule(name).weight = weight
    return model.eval()


class Assisted(HfDecoder):
    """Llama whose answers are written by `generate` with drafts."""

    def __init__(self, model: Any, draft: str, ahead: int, exit: int):
        super().__init__(model)
        self.draft, self.ahead, self.exit = draft, ahead, exit
        self._steps = self._new = 0
        model.generation_config.num_assistant_tokens = ahead
        model.generation_config.num_assistant_tokens_schedule = "constant"

    def write(self, ids: Tensor, new: int) -> Tensor:
        """`new` greedy tokens after ids [batch, tokens], [batch, new]."""
        self._steps = self._new = 0
        rows = [self._one(ids[place : place + 1], new) for place in range(len(ids))]
        return torch.cat(rows)

    def _one(self, ids: Tensor, new: int) -> Tensor:
        drafts: dict[str, Any] = {"prompt_lookup_num_tokens": self.ahead, "max_matching_ngram_size": TAIL}
        if self.draft == "exit":
            drafts = {"assistant_early_exit": self.exit}
        calls = _Calls(self.model)
        with calls:
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new,
                min_new_tokens=new,
                **drafts,
            )
        self._steps += calls.whole - 1
        self._new += new - 1
        return out[:, ids.shape[1] :]

    def written(self) -> dict[str, float | None]:
        """New tokens per step of the whole model in the last answer."""
        return {"tokens_per_step": self._new / self._steps if self._steps else None}


class _Calls:
    """Counts the forwards that run the last layer, the prompt's included: drafts by an early exit stop before it."""

    def __init__(self, model: Any):
        self.model, self.whole = model, 0

    def __enter__(self) -> None:
        self._handle = self.model.model.layers[-1].register_forward_pre_hook(self._note)

    def _note(self, *_: Any) -> None:
        self.whole += 1

    def __exit__(self, *_: Any) -> None:
        self._handle.remove()
