"""Tokens per layer and their cost, against what is printed and against sums worked out by hand."""

import pytest

from suites.common.decoder_shapes import shape_of
from suites.vlm_tokens import closed_forms, schedules

LLAVA, QWEN7, QWEN3 = (shape_of(name) for name in ("llama_7b", "qwen2_7b", "qwen2_5_3b"))


def tera(products):
    return round(products / 1e12, 4)


def test_pyramiddrop_counts_each_stage_from_the_first_number():
    assert schedules.pyramiddrop(576, 32) == [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8
    assert schedules.pyramiddrop(576, 32, 0.4)[16] == 92  # int(92.16), and not int(230 * 0.4)
    assert schedules.stage_cuts(3, 32) == [10, 20]
    assert schedules.pyramiddrop(576, 32, 0.5, cuts=[2]) == [576] * 2 + [288] * 30


def test_published_counts_of_image_tokens_alone():
    cost = closed_forms.image_tokens_only
    assert tera(cost(LLAVA, [576] * 32)) == 3.8172
    assert tera(cost(LLAVA, schedules.pyramiddrop(576, 32))) == 1.7774
    assert tera(cost(LLAVA, schedules.pyramiddrop(5184, 32))) == 18.0758
    assert tera(cost(LLAVA, schedules.fastv(576, 32))) == 2.0075
    assert round(cost(LLAVA, [2880] * 32) / 1e12, 1) == 20.8
    assert round(cost(LLAVA, schedules.pyramiddrop(2880, 32)) / 1e12, 2) == 9.46
    assert round(cost(LLAVA, schedules.fastv(2880, 32)) / 1e12, 1) == 10.6


def test_a_prompt_with_words_and_the_head():
    assert tera(closed_forms.prefill_macs(LLAVA, 64, [576] * 32, head=False)) == 4.2520
    whole = closed_forms.prefill_macs(LLAVA, 64, [576] * 32)
    assert whole - closed_forms.prefill_macs(LLAVA, 64, [576] * 32, head=False) == 4096 * 32_000


def test_towers_by_hand():
    assert round(closed_forms.clip_macs(24) / 1e9, 2) == 190.96
    assert round(closed_forms.clip_macs() / 1e9, 2) == 183.02
    assert round(closed_forms.llava_projector_macs() / 1e9, 3) == 12.080


def test_the_profilers_convention_gives_visiondrops_baseline():
    assert round(closed_forms.profiler_flops(LLAVA, 76, [576] * 32) / 1e12, 2) == 9.06


def test_a_video_in_llm_viewers_convention():
    frames = schedules.plain(6272, 28)
    assert tera(closed_forms.prefill_macs(QWEN7, 100, frames, head=False)) == 49.7282
    assert closed_forms.llm_viewer_flops(QWEN7, 100, frames) / 1e12 == pytest.approx(99.63, abs=0.06)
    reduced = schedules.aim(6272, 28, frames=32, merge=0.25, first=14, span=8, lag=0)
    assert reduced[:14] == [1568] * 14 and reduced[14] == int(0.875 * 1568 + 100) - 100 and reduced[21:] == [0] * 7
    assert closed_forms.llm_viewer_flops(QWEN7, 100, reduced) / 1e12 == pytest.approx(14.76, abs=0.06)


def test_history_compression_of_two_screens():
    full, text = schedules.ahc(3, 1200, 36, 36), 300
    cost = closed_forms.prefill_macs
    whole = cost(QWEN3, text, full, head=False)
    assert whole / 1e12 == pytest.approx(13.063, abs=5e-4)
    short = cost(QWEN3, text, schedules.ahc(3, 1200, 36, 3), head=False)
    assert short / 1e12 == pytest.approx(5.2077, abs=5e-5)
    assert 1 - short / whole == pytest.approx(0.601, abs=5e-4)
    later = cost(QWEN3, text, schedules.ahc(3, 1200, 36, 6), head=False)
    assert 1 - later / whole == pytest.approx(0.547, abs=5e-4) and whole / later == pytest.approx(2.21, abs=5e-3)


def test_visiondrops_released_split_is_32_on_average():
    from suites.vlm_tokens.visiondrop import RELEASED, shared_out

    counts = schedules.visiondrop(576, 32, RELEASED)
    assert counts == [48] * 8 + [35] * 8 + [26] * 8 + [19] * 8 and sum(counts) / 32 == 32
    assert shared_out(576, 32 / 576) == [list(part) for part in RELEASED]


def test_before_the_decoder_every_picture_has_as_many():
    """A quarter of 4 x 16 tokens: 16 x 1.5 / 4 = 6 of a picture, one of them contextual; then 17.5, 13 and 9.5."""
    from suites.vlm_tokens.visiondrop import shared_out

    assert shared_out(64, 0.25, 4) == [[20, 4], [15, 3], [11, 2], [8, 2]]
    assert shared_out(2880, 1 / 9, 5) == shared_out(2880, 1 / 9) == [[420, 60], [300, 50], [220, 40], [160, 30]]
    for percent in range(1, 101):
        counts = [5184, *map(sum, shared_out(5184, percent / 100, 9))]
        assert counts == sorted(counts, reverse=True) and counts[1] % 9 == 0


def test_merging_halves_until_the_share_is_left():
    assert schedules.merge_rounds(576, 0.125) == [288, 144, 72]
    assert schedules.merge_rounds(196, 0.25) == [98, 49]
    assert schedules.merge_rounds(10, 0.7) == [3] and schedules.merge_rounds(10, 1.0) == []
    assert closed_forms.merging_macs(4, [2, 1], 10) == (2 * 2 + 1 * 1) * 10


def test_aims_shares_lag_by_one_layer_in_the_released_model():
    printed, released = schedules.aim_shares(32, 13, lag=0), schedules.aim_shares(32, 13, lag=1)
    assert printed[12:21] == [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0] and printed[21:] == [0] * 11
    assert released == [1.0, *printed[:-1]]


def test_sparsevlm_means_are_not_the_labels_of_its_table():
    means = {
        label: sum(schedules.sparsevlm(576, 32, kept, [2, 6, 15])) / 32
        for label, kept in {192: (300, 200, 110), 128: (303, 110, 36), 64: (66, 30, 17)}.items()
    }
    # (2 x 576 + 4 x 300 + 9 x 200 + 17 x 110) / 32, and so on
    assert means == {192: 6022 / 32, 128: 3966 / 32, 64: 1975 / 32}


def test_representatives_and_pruned_tokens():
    assert schedules.csp(576, 32) == [144] * 8 + [576] * 8 + [72] * 16
    assert schedules.csp(64, 8, 10, 5, 0, 0) == [5] * 8
    with pytest.raises(ValueError, match="do not fit"):
        schedules.csp(64, 8, 65)


def test_what_pyramiddrops_ranking_costs():
    d, stages = 4096, [(576, 288), (288, 144), (144, 72)]
    released = [closed_forms.last_row_macs(LLAVA, 64, *cut, "released") for cut in stages]
    assert [round(x / 1e9, 1) for x in released] == [32.2, 17.7, 10.5]
    assert closed_forms.last_row_macs(LLAVA, 64, 576, 288, "minimal") == 640 * d * d + d * d + 640 * d
    assert closed_forms.last_row_macs(LLAVA, 64, 576, 288) == 288 * d * d + d * d + 640 * d


def test_core_neurons_and_tokens_in_decode():
    plain = closed_forms.decode_macs(LLAVA, 64, [576] * 32, 0, head=False)
    core = closed_forms.decode_macs(LLAVA, 0, [128] * 32, 0, neurons=0.4, head=False)
    assert round(plain / 1e9, 2) == 6.64 and round(core / 1e9, 2) == 3.91 and round(plain / core, 2) == 1.70


def test_dropped_tokens_keep_their_place_in_the_cache_of_earlier_layers():
    full = closed_forms.cache_bytes(LLAVA, 0, [576] * 32)
    assert full == 576 * 32 * 2 * 4096 * 2
    kept = closed_forms.cache_bytes(LLAVA, 0, schedules.pyramiddrop(576, 32))
    assert kept / full == 270 / 576  # 46.9 %


def test_spatial_tokens_behind_two_layers():
    cost = closed_forms.prefill_macs
    whole = cost(LLAVA, 100, [3096] * 32, head=False)
    assert 1 - cost(LLAVA, 100, schedules.share(3096, 32, 0.30, 2), head=False) / whole == pytest.approx(0.66, abs=5e-3)
    assert 1 - cost(LLAVA, 100, schedules.share(3096, 32, 0.37, 2), head=False) / whole == pytest.approx(0.60, abs=5e-3)


def test_ratios_round_up_and_never_grow():
    assert schedules.from_ratios(10, [1.0, 0.55, 0.9, 0.01]) == [10, 6, 6, 1]


def test_rounding_of_floating_point_is_no_token():
    """Of 3100 stay 30 % = 930, of 100 go 29 % = 29; in floating point 930.0000000000001 and 28.999999999999996."""
    assert schedules.from_ratios(3100, [1.0, 1 - 0.7]) == [3100, 930]
    assert schedules.fastv(100, 3, 2, 0.29) == [100, 100, 71]
    assert schedules.pyramiddrop(1200, 4, 0.7) == [1200, 840, 588, 411]  # 0.7 ** 2 is 0.48999999999999994
    assert schedules.share(100, 1, 0.29) == [29] and schedules.merge_rounds(100, 0.29) == [50, 21]
    assert schedules.aim(196, 7, merge=0.25, first=0, span=7, lag=0) == [42, 35, 28, 21, 14, 7, 0]


def test_one_cut_keeps_as_many_by_the_share_that_goes_and_by_that_which_stays():
    for percent in range(91):
        for v in (10, 64, 100, 576, 600, 2880, 3100):
            kept = schedules.fastv(v, 3, 2, percent / 100)
            assert kept == schedules.share(v, 3, 1 - percent / 100, 2) == [v, v, v * (100 - percent) // 100]


def test_cuts_out_of_order_are_refused():
    with pytest.raises(ValueError, match="ascend"):
        schedules.cut([4, 2, 1], [3, 2], 8)
    assert schedules.scaled([2, 6, 15], 32) == [2, 6, 15] and schedules.scaled([2, 6, 15], 8) == [1, 2, 3]


def test_a_plan_is_found_by_its_methods_name():
    assert schedules.plan("pyramiddrop", 576, 32, stages=2) == [576] * 16 + [288] * 16
    assert schedules.plan("random", 64, 4, keep=0.3) == [19] * 4 and schedules.plan("none", 5, 2) == [5, 5]
