"""Example inputs of diffusers' networks: what each class is called with, from its configuration.

The first input is what a sampler makes; the second is always the time. Sizes are those of latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Size:
    """What is drawn: latent frames (of a video), rows and columns, and tokens of text."""

    frames: int
    height: int
    width: int
    words: int


@dataclass(frozen=True)
class Kind:
    """How a class of network is called.

    Attributes:
        size: frames, rows and columns of its own latent, from its configuration.
        words: tokens of its text.
        make: its inputs, of a configuration, a batch and a size.
        pixels: of a latent's side.
        steps_of_time: what it is told as 1 where schedulers say 1000.
    """

    size: Callable[[Any], tuple[int, int, int]]
    words: int
    make: Callable[[Any, int, Size], Inputs]
    pixels: int = 8
    steps_of_time: float = 1.0


def _times(batch: int) -> Tensor:
    return torch.full((batch,), 500.0)


def _sampled(config: Any) -> tuple[int, int, int]:
    own = config.sample_size or 64
    height, width = own if isinstance(own, list | tuple) else (own, own)
    return 1, height, width


def _unet(config: Any, batch: int, size: Size) -> Inputs:
    made = {"sample": torch.randn(batch, config.in_channels, size.height, size.width), "timestep": _times(batch)}
    wide = getattr(config, "cross_attention_dim", None)
    if wide is not None:
        wide = wide[0] if isinstance(wide, list | tuple) else wide
        made["encoder_hidden_states"] = torch.randn(batch, size.words, wide)
    if getattr(config, "addition_embed_type", None) == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        made |= {"text_embeds": torch.randn(batch, pooled), "time_ids": torch.zeros(batch, 6)}
    if getattr(config, "addition_embed_type", None) == "image":
        made["image_embeds"] = torch.randn(batch, config.encoder_hid_dim)
    return made


def _dit(config: Any, batch: int, size: Size) -> Inputs:
    picture = torch.randn(batch, config.in_channels, size.height, size.width)
    return {"hidden_states": picture, "timestep": _times(batch), "class_labels": torch.zeros(batch, dtype=torch.long)}


def _pixart(config: Any, batch: int, size: Size) -> Inputs:
    made = {
        "hidden_states": torch.randn(batch, config.in_channels, size.height, size.width),
        "timestep": _times(batch),
        "encoder_hidden_states": torch.randn(batch, size.words, config.caption_channels),
    }
    if config.use_additional_conditions or (config.use_additional_conditions is None and config.sample_size == 128):
        made |= {"resolution": torch.full((batch, 2), 1024.0), "aspect_ratio": torch.ones(batch, 1)}
    return made


def places(height: int, width: int) -> Tensor:
    """Where patches of so many rows and columns stand, as Flux is told it, [patches, 3]."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()


def _flux(config: Any, batch: int, size: Size) -> Inputs:
    height, width = size.height // 2, size.width // 2  # patches of two by two latents
    made = {
        "hidden_states": torch.randn(batch, height * width, config.in_channels),
        "timestep": _times(batch) / 1000,
        "encoder_hidden_states": torch.randn(batch, size.words, config.joint_attention_dim),
        "pooled_projections": torch.randn(batch, config.pooled_projection_dim),
        "img_ids": places(height, width),
        "txt_ids": torch.zeros(size.words, 3),
    }
    return {**made, "guidance": torch.full((batch,), 3.5)} if config.guidance_embeds else made


def _sd3(config: Any, batch: int, size: Size) -> Inputs:
    return {
        "hidden_states": torch.randn(batch, config.in_channels, size.height, size.width),
        "timestep": _times(batch),
        "encoder_hidden_states": torch.randn(batch, size.words, config.joint_attention_dim),
        "pooled_projections": torch.randn(batch, config.pooled_projection_dim),
    }


def _hunyuan(config: Any, batch: int, size: Size) -> Inputs:
    made = {
        "hidden_states": torch.randn(batch, config.in_channels, size.frames, size.height, size.width),
        "timestep": _times(batch).long(),
        "encoder_hidden_states": torch.randn(batch, size.words, config.text_embed_dim),
        "encoder_attention_mask": torch.ones(batch, size.words, dtype=torch.long),
        "pooled_projections": torch.randn(batch, config.pooled_projection_dim),
    }
    return {**made, "guidance": torch.full((batch,), 6000.0)} if config.guidance_embeds else made


def _cogvideox(config: Any, batch: int, size: Size) -> Inputs:
    made = {
        "hidden_states": torch.randn(batch, size.frames, config.in_channels, size.height, size.width),
        "timestep": _times(batch).long(),
        "encoder_hidden_states": torch.randn(batch, size.words, config.text_embed_dim),
    }
    return {**made, "ofs": torch.full((1,), 2.0)} if config.ofs_embed_dim else made


def _wan(config: Any, batch: int, size: Size) -> Inputs:
    return {
        "hidden_states": torch.randn(batch, config.in_channels, size.frames, size.height, size.width),
        "timestep": _times(batch).long(),
        "encoder_hidden_states": torch.randn(batch, size.words, config.text_dim),
    }


def _prior(config: Any, batch: int, size: Size) -> Inputs:
    return {
        "hidden_states": torch.randn(batch, config.embedding_dim),
        "timestep": _times(batch).long(),
        "proj_embedding": torch.randn(batch, config.embedding_proj_dim or config.embedding_dim),
        "encoder_hidden_states": torch.randn(batch, config.num_embeddings, config.embedding_dim),
    }


def _cogvideox_size(config: Any) -> tuple[int, int, int]:
    """Latent frames in whole patches of time, rows and columns."""
    along = config.patch_size_t or 1
    frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
    return -(-frames // along) * along, config.sample_height, config.sample_width


def _of(frames: int, height: int, width: int) -> Callable[[Any], tuple[int, int, int]]:
    return lambda config: (frames, height, width)


#: The classes of diffusers that there are examples for; videos of a size that no configuration says have 129 frames of
#: 720 p (HunyuanVideo) and 81 of 720 p (Wan).
KINDS: Mapping[str, Kind] = {
    "UNet2DModel": Kind(_sampled, 0, _unet),
    "UNet2DConditionModel": Kind(_sampled, 77, _unet),
    "DiTTransformer2DModel": Kind(_sampled, 0, _dit),
    "PixArtTransformer2DModel": Kind(_sampled, 120, _pixart),
    "FluxTransformer2DModel": Kind(_of(1, 128, 128), 512, _flux, steps_of_time=1000.0),
    "SD3Transformer2DModel": Kind(_sampled, 333, _sd3),
    "HunyuanVideoTransformer3DModel": Kind(_of(33, 90, 160), 256, _hunyuan),
    "CogVideoXTransformer3DModel": Kind(_cogvideox_size, 226, _cogvideox),
    "WanTransformer3DModel": Kind(_of(21, 90, 160), 512, _wan),
    "PriorTransformer": Kind(_of(1, 1, 1), 77, _prior),
}
#: Inputs that a class takes inside this dictionary.
ADDED = ("text_embeds", "time_ids", "image_embeds", "resolution", "aspect_ratio")
#: Inputs that say how a picture is made and not what it shows: the empty condition has them too.
STATED = ("img_ids", "txt_ids", "ofs", "guidance", "time_ids", "resolution", "aspect_ratio", "encoder_attention_mask")
#: Inputs that all images of a batch share.
UNBATCHED = ("img_ids", "txt_ids", "ofs")
