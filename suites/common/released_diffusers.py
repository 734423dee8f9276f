"""Released configurations of diffusion networks: the fields that differ from diffusers' defaults; no weights."""

from __future__ import annotations

from typing import Any

_CROSS_DOWN = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
_CROSS_UP = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3

CONFIGS: dict[str, dict[str, Any]] = {
    # None that was released: a U-Net of diffusers as small as the house's own.
    "small_diffuser": {
        "_class_name": "UNet2DConditionModel", "sample_size": 8, "in_channels": 1, "out_channels": 1,
        "cross_attention_dim": 16, "attention_head_dim": 2, "block_out_channels": [16, 32], "norm_num_groups": 8,
        "layers_per_block": 1, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    },
    "sd15_unet": {
        "_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280], "down_block_types": _CROSS_DOWN, "up_block_types": _CROSS_UP,
    },
    "sd21_unet": {
        "_class_name": "UNet2DConditionModel", "sample_size": 96, "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20], "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": _CROSS_DOWN, "up_block_types": _CROSS_UP, "use_linear_projection": True,
    },
    "sdxl_unet": {
        "_class_name": "UNet2DConditionModel", "sample_size": 128, "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    # Latent diffusion on ImageNet: one word, the class.
    "ldm4_unet": {
        "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 3, "out_channels": 3,
        "cross_attention_dim": 512, "attention_head_dim": [6, 12, 18, 30], "block_out_channels": [192, 384, 576, 960],
        "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3,
        "up_block_types": ["CrossAttnUpBlock2D"] * 3 + ["UpBlock2D"],
    },
    "pixart_alpha_256": {
        "_class_name": "PixArtTransformer2DModel", "sample_size": 32, "num_layers": 28, "caption_channels": 4096,
        "cross_attention_dim": 1152, "use_additional_conditions": False,
    },
    "pixart_alpha_512": {
        "_class_name": "PixArtTransformer2DModel", "sample_size": 64, "num_layers": 28, "caption_channels": 4096,
        "cross_attention_dim": 1152, "use_additional_conditions": False,
    },
    "pixart_alpha_1024": {
        "_class_name": "PixArtTransformer2DModel", "sample_size": 128, "num_layers": 28, "caption_channels": 4096,
        "cross_attention_dim": 1152, "use_additional_conditions": False,
    },
    "flux_dev": {
        "_class_name": "FluxTransformer2DModel", "num_layers": 19, "num_single_layers": 38, "guidance_embeds": True,
    },
    "flux_schnell": {
        "_class_name": "FluxTransformer2DModel", "num_layers": 19, "num_single_layers": 38, "guidance_embeds": False,
    },
    "sd3_medium": {
        "_class_name": "SD3Transformer2DModel", "sample_size": 128, "num_layers": 24, "num_attention_heads": 24,
        "caption_projection_dim": 1536, "pos_embed_max_size": 192,
    },
    "hunyuan_video": {
        "_class_name": "HunyuanVideoTransformer3DModel", "num_layers": 20, "num_single_layers": 40,
        "guidance_embeds": True,
    },
    "cogvideox1_5_5b": {
        "_class_name": "CogVideoXTransformer3DModel", "num_layers": 42, "num_attention_heads": 48,
        "patch_size_t": 2, "patch_bias": False, "sample_height": 96, "sample_width": 170, "sample_frames": 81,
        "use_rotary_positional_embeddings": True, "time_embed_dim": 512,
    },
    # Sizes, frames and patches are the defaults of diffusers: 49 frames of 480 x 720 px.
    "cogvideox_2b": {"_class_name": "CogVideoXTransformer3DModel", "num_layers": 30},
    "cogvideox_5b": {
        "_class_name": "CogVideoXTransformer3DModel", "num_layers": 42, "num_attention_heads": 48,
        "use_rotary_positional_embeddings": True,
    },
    "wan2_1_14b": {"_class_name": "WanTransformer3DModel", "num_layers": 40},
    "wan2_1_1_3b": {
        "_class_name": "WanTransformer3DModel", "num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960,
    },
    # The prior of Kandinsky 2.2, and the network that makes latents of its image embedding.
    "kandinsky22_prior": {
        "_class_name": "PriorTransformer", "num_layers": 20, "num_attention_heads": 32, "attention_head_dim": 64,
        "embedding_dim": 1280, "num_embeddings": 77, "additional_embeddings": 4,
    },
    "kandinsky22_unet": {
        "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4, "out_channels": 8,
        "layers_per_block": 3, "block_out_channels": [384, 768, 1152, 1536], "cross_attention_dim": 768,
        "attention_head_dim": 64, "resnet_time_scale_shift": "scale_shift", "addition_embed_type": "image",
        "encoder_hid_dim": 1280, "encoder_hid_dim_type": "image_proj",
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
        "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    },
}  # fmt: skip
