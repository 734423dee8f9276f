"""Vision-language models of published sizes: a tower of transformers, a projector, and the house's decoder.

Built from configurations with random weights, to be counted on the meta device or timed where there is room; nothing is
downloaded. Pictures have no content: a visual token's id says nothing, and the tower sees the same grey picture each
time. Sizes are those of the released configurations; a tile or frame is a picture, and all stand together behind the
prefix. Newline tokens and unpadding of real inputs are left out of prompts; `suites.vlm_tokens.picture_sizes` counts
both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from bench.errors import UsageError, did_you_mean
from suites.common.decoder import Decoder
from suites.common.decoder_shape import DecoderShape
from suites.common.decoder_shapes import shape_of
from suites.common.hf_bridge import import_transformers
from suites.common.visual_decoder import View, VisualDecoder
from suites.vlm_tokens.picture_sizes import next_grid, qwen_tokens

#: Vision towers as fields of transformers' configurations.
CLIP_L_336 = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
SIGLIP_SO400M = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip


@dataclass(frozen=True)
class Released:
    """A published model.

    Attributes:
        decoder: name of its decoder's shape.
        tower: `clip`, `siglip`, or None where pictures come as features: no tower is counted.
        tokens: visual tokens of a picture.
        images: pictures of a prompt.
        vocabulary: of the decoder, where it is not the shape's.
        pool: side of the grid that a picture's features are pooled to, None for no pooling.
        newline: whether there is a vector for the end of a row of patches.
        between: words behind every picture but the last.
        base: of the rotary angles.
        sized: what the size of a picture decides: how many tiles, or how many tokens; None where nothing.
    """

    decoder: str
    tower: Literal["clip", "siglip"] | None
    tokens: int
    images: int = 1
    vocabulary: int | None = None
    pool: int | None = None
    newline: bool = False
    between: int = 0
    base: float = 10_000.0
    sized: Literal["tiles", "tokens"] | None = None


RELEASED: dict[str, Released] = {
    "llava_1_5_7b": Released("llama_7b", "clip", 576, vocabulary=32_064),
    "llava_1_5_13b": Released("llama_13b", "clip", 576, vocabulary=32_064),
    "llava_next_7b": Released("llama_7b", "clip", 576, images=5, vocabulary=32_064, newline=True, sized="tiles"),
    "llava_onevision_7b": Released("qwen2_7b", "siglip", 196, images=32, pool=14, newline=True, base=1_000_000.0),
    "llava_3d_7b": Released("llama_7b", None, 3096),
    "qwen2_vl_7b": Released("qwen2_7b", None, 1200, base=1_000_000.0, sized="tokens"),
    "qwen2_5_vl_3b": Released("qwen2_5_3b", None, 1200, images=3, between=1, base=1_000_000.0, sized="tokens"),
    "qwen2_5_vl_7b": Released("qwen2_5_7b", None, 1200, images=3, between=1, base=1_000_000.0, sized="tokens"),
    # A few thousand parameters, for tests: the same parts.
    "small_llava": Released("small", "clip", 16, vocabulary=64),
}

SMALL_TOWER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56,
    "patch_size": 14, "projection_dim": 32,
}  # fmt: skip


class TowerOfTransformers(nn.Module):
    """A CLIP or SigLIP vision model whose `features` are those of one layer; layers behind it are not run.

    LLaVA takes the last layer but one of CLIP and drops the class token. `whole` runs every layer, as transformers'
    own LLaVA does.
    """

    def __init__(self, kind: str, fields: dict[str, Any], whole: bool):
        super().__init__()
        transformers = import_transformers()
        config_of, model_of = (
            (transformers.CLIPVisionConfig, transformers.CLIPVisionModel)
            if kind == "clip"
            else (transformers.SiglipVisionConfig, transformers.SiglipVisionModel)
        )
        config = config_of(**fields)
        config._attn_implementation = "sdpa"
        self.model: Any = model_of(config)
        self.class_token, self.side = kind == "clip", config.image_size
        self.heads, layers = config.num_attention_heads, config.num_hidden_layers
        self.used = layers - 1 if self.class_token else layers
        self.runs = layers if whole else self.used

    @property
    def inner(self) -> Any:
        """The part that has embeddings and an encoder."""
        return getattr(self.model, "vision_model", self.model)

    def forward(self, ids: Tensor) -> View:
        """The view of one grey picture for every row of ids [pictures, tokens]."""
        weight = self.inner.embeddings.patch_embedding.weight
        pixels = torch.zeros(len(ids), 3, self.side, self.side, device=weight.device, dtype=weight.dtype)
        x = self.inner.embeddings(pixels)
        if self.class_token:
            x = self.inner.pre_layrnorm(x)
        features = q = k = x
        for index, layer in enumerate(self.inner.encoder.layers[: self.runs]):
            if index + 1 == self.used:
                q, k = (self._heard(layer.self_attn, name) for name in ("q_proj", "k_proj"))
            x = self._run(layer, x)
            if index + 1 == self.used:
                features, q, k = x, q.pop(), k.pop()
        if not self.class_token:
            features = self.inner.post_layernorm(features)
        size = q.shape[-1] // self.heads
        q, k = (part.unflatten(-1, (self.heads, size)).transpose(1, 2) for part in (q, k))
        return View(features[:, int(self.class_token) :], q, k, self.class_token)

    def _heard(self, attention: Any, name: str) -> Any:
        """What a linear map of an attention gives next, once it has run."""
        heard: list[Tensor] = []

        def note(_module: Any, _inputs: Any, output: Tensor) -> None:
            heard.append(output)
            handle.remove()

        handle = getattr(attention, name).register_forward_hook(note)
        return heard

    @staticmethod
    def _run(layer: Any, x: Tensor) -> Tensor:
        out = layer(x, attention_mask=None)
        return out[0] if isinstance(out, tuple) else out


class NoTower(nn.Module):
    """Pictures come as features: a grey one for every token, and no products."""

    def __init__(self, width: int):
        super().__init__()
        self.grey = nn.Parameter(torch.zeros(width), requires_grad=False)

    def forward(self, ids: Tensor) -> View:
        """Features [pictures, tokens, width] that are all the same."""
        features = self.grey.expand(*ids.shape, -1)
        heads = features[:, None]
        return View(features, heads, heads, False)


class Projector(nn.Module):
    """Two linear maps with a GELU between them; pooled to a grid where a model pools."""

    def __init__(self, tower: int, width: int, pool: int | None, newline: bool):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(tower, width), nn.Linear(width, width)
        self.pool = pool
        self.newline = nn.Parameter(torch.zeros(width)) if newline else None

    def forward(self, features: Tensor, pictures: int, index: Tensor | None = None) -> Tensor:
        """Visual tokens [batch x pictures, tokens, width]; which tokens these are (`index`) makes no difference.

        Raises:
            ValueError: tokens were taken out before features are pooled to a grid.
        """
        if index is not None and self.pool is not None:
            raise ValueError("the decoder gets pooled patches, which the tower's attention does not rank")
        x = self.linear_2(F.gelu(self.linear_1(features)))
        if self.pool is None:
            return x
        side = round(x.shape[1] ** 0.5)
        grid = x.transpose(1, 2).unflatten(-1, (side, side))
        grid = F.interpolate(grid, size=(self.pool, self.pool), mode="bilinear")
        return grid.flatten(2).transpose(1, 2)


class Straight(nn.Module):
    """Features as they are."""

    def forward(self, features: Tensor, pictures: int, index: Tensor | None = None) -> Tensor:
        """The same tokens."""
        return features


class OfFeatures(VisualDecoder):
    """A model whose pictures come as features: there is nothing that encodes them."""

    encode_pictures = None  # type: ignore[assignment]


def published_visual(
    *, name: str, tiles: PositiveInt | None = None, tokens: PositiveInt | None = None, history: Count | None = None,
    layers: PositiveInt | None = None, tower: bool = True, whole_tower: bool = False, prefix: Count = 35,
    picture: list[PositiveInt] | None = None,
) -> VisualDecoder:  # fmt: skip
    """The model of a name in evaluation mode with random weights.

    Args:
        name: a row of `RELEASED`.
        tiles: tiles or frames of a prompt; None for the model's own.
        tokens: visual tokens of a picture, of models without a tower.
        history: screens before the current one, of models with words between pictures.
        layers: the decoder's first so many layers; None for all.
        tower: False: pictures come as features, so that the decoder is counted alone.
        whole_tower: run the tower's last layer, whose output nobody reads.
        prefix: words before the pictures.
        picture: height and width in pixels of every picture, of models whose tiles or tokens depend on it; instead
            of `tiles` or `tokens`.

    Raises:
        UsageError: there is no such model.
        ValueError: a setting that this model has not.
        NotInstalled: transformers is missing.
    """
    if name not in RELEASED:
        raise UsageError(f'no vision-language model is called "{name}"; {did_you_mean(name, RELEASED)}')
    found = RELEASED[name]
    _check(found, tiles, tokens, history)
    if picture is not None:
        tiles, tokens = _of_picture(name, found, picture, tiles, tokens)
    images = found.images if tiles is None else tiles
    images = images if history is None else 1 + history
    shape = _shape(found, layers)
    eye: nn.Module = NoTower(shape.width)
    projector: nn.Module = Straight()
    if tower and found.tower is not None:
        fields = SMALL_TOWER if found.decoder == "small" else CLIP_L_336 if found.tower == "clip" else SIGLIP_SO400M
        eye = TowerOfTransformers(found.tower, dict(fields), whole_tower)
        projector = Projector(fields["hidden_size"], shape.width, found.pool, found.newline)
    made = OfFeatures if isinstance(eye, NoTower) else VisualDecoder
    return made(
        eye, projector, Decoder(shape, base=found.base), tokens=tokens or found.tokens, images=images,
        prefix=prefix, between=found.between,
    ).eval()  # fmt: skip


def _check(found: Released, tiles: int | None, tokens: int | None, history: int | None) -> None:
    if tokens is not None and found.tower is not None:
        raise ValueError(f"tokens={tokens}: a picture of this model is {found.tokens} tokens, as its tower gives them")
    if history is not None and not found.between:
        raise ValueError(f"history={history}: this model has no words between its pictures")
    if tiles is not None and history is not None:
        raise ValueError("tiles and history say the same thing: give one of them")


def _of_picture(
    name: str, found: Released, picture: list[int], tiles: int | None, tokens: int | None
) -> tuple[int | None, int | None]:
    """Tiles and tokens of a picture of that size.

    Raises:
        ValueError: the model makes as many tokens of every picture, or there are no two sides, or two ways to say it.
    """
    if found.sized is None:
        sized = ", ".join(each for each, released in RELEASED.items() if released.sized)
        raise ValueError(f"picture={picture}: {name} makes as many tokens of every picture; sizes decide in {sized}")
    if len(picture) != 2 or (tiles if found.sized == "tiles" else tokens) is not None:
        raise ValueError(f"picture={picture} has to be [height, width], without {found.sized}=... beside it")
    height, width = picture
    if found.sized == "tokens":
        return tiles, qwen_tokens(height, width)
    rows, columns = next_grid(height, width)
    return 1 + rows * columns, tokens


def _shape(found: Released, layers: int | None) -> DecoderShape:
    from suites.common.decoder_shape import uniform

    if found.decoder == "small":
        shape = uniform(width=48, layers=8, heads=4, hidden=96, vocabulary=64)
    else:
        shape = shape_of(found.decoder)
    if found.vocabulary is not None:
        shape = replace(shape, vocabulary=found.vocabulary)
    return shape if layers is None else replace(shape, layers=shape.layers[:layers])
