"""Tokens of a picture of any size are those of transformers' processors, and a tower's products its network's."""

import random

import pytest
import torch

from bench.meters import macs
from suites.vlm_tokens import picture_sizes as sizes
from suites.vlm_tokens.published import published_visual

pytest.importorskip("transformers")

SIZES = [(random.Random(0).randint(20, 2000), random.Random(1).randint(20, 2000)), (1, 1), (1000, 300), (672, 672)]
SIZES += [tuple(random.Random(seed).choices(range(30, 2500), k=2)) for seed in range(300)]


def test_tiles_and_tokens_of_llava_next_are_those_of_its_processor():
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    grids = [[rows * 336, columns * 336] for rows, columns in sizes.GRIDS]
    for height, width in SIZES:
        rows, columns = sizes.next_grid(height, width)
        assert select_best_resolution((height, width), grids) == (rows * 336, columns * 336), (height, width)
        shown, newlines = LlavaNextProcessor._get_unpadded_features(None, height, width, 24, 24, rows, columns)
        assert sizes.next_tokens(height, width) == 576 + shown + newlines, (height, width)
    # by hand: 480 x 640 is shown in 2 x 2 tiles, 36 of 48 rows of patches, each with a newline
    assert sizes.next_tokens(480, 640) == 576 + 36 * 48 + 36


def test_tokens_of_qwen2_vl_are_those_of_its_processor():
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    for height, width in SIZES:
        rows, columns = (side // 14 for side in smart_resize(height, width))
        assert sizes.qwen_patches(height, width) == (rows, columns), (height, width)
        assert sizes.qwen_tokens(height, width) == rows * columns // 4
    assert sizes.qwen_tokens(333, 777) == 12 * 28


def tower(kind, **fields):
    if kind == "qwen2_vl":
        from transformers.models.qwen2_vl import modeling_qwen2_vl as module

        made, config = module.Qwen2VisionTransformerPretrainedModel, module.Qwen2VLVisionConfig
    else:
        from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as module

        made, config = module.Qwen2_5_VisionTransformerPretrainedModel, module.Qwen2_5_VLVisionConfig
    return made._from_config(config(depth=3, num_heads=2, **fields), attn_implementation="sdpa").eval()


@pytest.mark.parametrize("rows, columns", [(4, 6), (10, 18)])
def test_products_of_the_towers_are_those_of_their_networks(rows, columns):
    pixels, grid = torch.randn(rows * columns, 2 * 3 * 14**2), torch.tensor([[1, rows, columns]])
    whole = tower("qwen2_vl", embed_dim=16, hidden_size=24, mlp_ratio=4)
    found = macs.count(whole, (pixels, grid), {}, second_count=False, inspect_values=False)
    assert found.macs == sizes.qwen2_tower_macs(rows, columns, out=24, width=16, layers=3)
    windows = tower("qwen2_5_vl", hidden_size=16, out_hidden_size=24, intermediate_size=20, fullatt_block_indexes=[1])
    found = macs.count(windows, (pixels, grid), {}, second_count=False, inspect_values=False)
    wanted = sizes.qwen2_5_tower_macs(rows, columns, out=24, width=16, layers=3, hidden=20, whole=1)
    assert found.macs == wanted


def test_a_model_takes_the_size_of_its_pictures():
    with torch.device("meta"):
        assert published_visual(name="llava_next_7b", picture=[1000, 300], layers=1, tower=False).images == 4
        assert published_visual(name="qwen2_vl_7b", picture=[333, 777], layers=1).visual == 336
    with pytest.raises(ValueError, match="sizes decide in llava_next_7b, qwen2_vl_7b"):
        published_visual(name="llava_1_5_7b", picture=[336, 336])
    with pytest.raises(ValueError, match=r"\[height, width\], without tiles"):
        published_visual(name="llava_next_7b", picture=[336, 336], tiles=3)
    with pytest.raises(ValueError, match="0 x 5 pixels"):
        sizes.next_grid(0, 5)
