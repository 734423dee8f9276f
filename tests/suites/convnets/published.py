"""Counts that papers, released definitions and closed forms give: (model, resolution) -> parameters, MACs (matmul).

None: not given.
"""

from __future__ import annotations

#: Own networks.
OWN: dict[tuple[str, int | None], tuple[int | None, int | None]] = {
    ("van_b0", 224): (4_105_800, 864_224_000),
    ("hornet_tiny_7x7", 224): (22_409_512, 3_968_389_312),
    ("unireplknet_a", 224): (4_437_300, 639_843_520),
    ("unireplknet_a(form='train')", 224): (4_649_060, 674_684_480),
    ("unireplknet_t", 224): (31_037_980, 4_898_993_920),
    ("lsnet_t", 224): (11_409_832, 315_824_768),
    ("lsnet_t(form='fused')", 224): (11_370_488, 315_718_784),
    ("spartan", 256): (3_820_296, 1_044_147_968),
    ("skipnet_m", None): (5_532_352, 236_622_048),
    ("simplenet_5m", 224): (5_752_808, 1_341_761_536),
    ("simplenet_cifar_5m", 32): (5_498_378, 652_151_296),
    ("fbnet_a", 224): (4_304_584, 244_452_664),
    ("cfsr_x4(wide=True)", 180): (306_912, 17_161_113_600),
    ("mobiledet_cpu(head=False)", 320): (3_006_440, 408_006_272),
    ("leyolo_n", 320): (1_120_480, 308_112_000),
    ("yolov13n", 640): (2_494_151, 3_624_015_104),
    # parameters as the makers print them of every size; their GFLOPs miss the products of attention
    ("yolov11n", 640): (2_624_080, 3_271_251_200),
    ("yolov11n(scale='x')", 64): (56_966_176, None),
    ("yolov12n", 640): (2_602_288, 3_735_481_600),
    ("yolov12n(scale='l')", 64): (26_450_784, None),
    # printed 0.91 M and 1.08 GFLOPs, norms included
    ("yolox_nano", 416): (912_159, 522_553_408),
    ("bevanet_s", 720): (15_089_752, 19_895_597_000),
    # printed 5.7 M and 36.3 G
    ("ddrnet_23_slim(wide=True, classes=19)", 1024): (5_695_987, 36_281_319_424),
    ("p3d63", 160): (25_745_232, 8_441_856_000),
    ("xshift_rgb", 224): (2_006_010, 4_261_670_208),
    # printed of BEVANet's and CFSR's baselines: 7.6 M (19 classes), 411 K and 28 G, 394 K and 91 G
    ("pidnet_s", 720): (7_624_683, 15_621_642_240),
    ("pidnet_s(classes=19)", 720): (7_625_715, None),
    ("shufflemixer_x4(wide=True)", 180): (411_347, 27_681_177_600),
    ("shufflemixer_x2(wide=True)", 360): (394_963, 90_847_641_600),
    ("cfsr_x2(wide=True)", 360): (291_324, 65_061_273_600),
    # 0.8 G and 4.3 M are printed; 91 classes here: 81 would be 4.34 M and 0.79 G
    ("mobilenetv2_ssdlite", 320): (4_500_543, 804_397_504),
    # 64 x 64 x 9 x (14 x 14 + kernels) and the gates 64 x 16 + 16 x 4, and 64 x 8
    ("mixed_layer", 14): (4 * 36_864 + 64 * 16 + 17 * 4, 36_864 * (196 + 4) + 1_088),
    ("mixed_layer(kind='condconv')", 14): (8 * 36_864 + 65 * 8, 36_864 * (196 + 8) + 512),
    ("rcnet", 512): (7_665_346, 6_597_768_448),
    ("fpn", 512): (7_997_440, 4_421_844_992),
    ("shallow_parallel", 8): (37_450, 2_368_672),
    ("shallow_parallel(form='loop')", 8): (37_450, 2_368_672),
    ("neighbour_decoder", None): (631_044, 6_245_888),
    ("ska(width=64)", 14): (None, 9 * 64 * 14 * 14),
    ("lka(width=64)", 56): (None, 56 * 56 * 64 * (25 + 49 + 64)),
    ("convfirst_block(ratio=6)", 64): (None, 28_185_722_880 // 128),
    ("mbconv_block(width=256)", 16): (None, 19_595_788_288 // 128),
}

#: Those that are put together from networks of timm, torchvision or transformers.
OVER_LIBRARIES: dict[tuple[str, int | None], tuple[int | None, int | None]] = {
    ("convnext_dcls_tiny", 224): (28_587_688, 4_970_337_024),
    ("convnext_depthwise", 224): (28_324_168, 4_369_730_304),
    ("mobilenetv2_ulsam", 224): (3_067_904, 262_659_328),
    ("eca_resnet50", 224): (25_557_032 + 80, None),
    ("fdconv_resnet50", 224): (25_557_032 + 3_647_120, None),
    # printed 102.02 and 45.86 M; products of the ResNets and of kernels mixed for one image
    ("kernelwarehouse_resnet50", 224): (102_015_144, 4_089_184_256 + 8_147_443_632),
    ("kernelwarehouse_resnet18", 224): (45_862_085, 1_814_073_344 + 1_540_303_296),
    ("swinir_light_x4(wide=True)", 180): (929_628, 62_710_732_800),
    # printed 3,440,060 and 0.583 G by torchvision, 13.7 M and 15.9 G of SegFormer
    ("mobilenetv3_ssdlite", 320): (3_440_060, None),
    ("segformer_b1", 512): (13_715_798, 15_878_062_080),
    ("halo_attention", 32): (None, 41_811_968),
    ("nasnet_mobile", 224): (5_289_978, None),
    ("codenet(kind='3x3')", 512): (7_894_780, 11_673_688_064),
    ("codenet", 512): (2_009_346, 2_082_101_248),
    ("ccnext", 384): (18_190_612, 68_979_916_800),
    ("simplenet_ad", 288): (24_862_528 + 2_360_832 + 1_576_960, None),
}

#: Networks of timm, exact.
TIMM: dict[tuple[str, int], tuple[int, int]] = {
    ("resnet18", 224): (11_689_512, 1_814_073_344),
    ("resnet50", 160): (25_557_032, 2_087_321_600),
    ("resnet50", 224): (25_557_032, 4_089_184_256),
    ("resnet101", 224): (44_549_160, 7_801_405_440),
    ("resnet50d", 224): (25_576_264, 4_328_824_832),
    ("resnext50_32x4d", 224): (25_028_904, 4_230_479_872),
    ("seresnet50", 224): (28_088_024, 4_091_699_200),
    ("vgg16", 224): (138_357_544, 15_470_264_320),
    ("mnasnet_100", 224): (4_383_312, 314_415_872),
    ("efficientnet_b0", 224): (5_288_548, 385_814_752),
    ("efficientnet_b2", 288): (9_109_994, 1_087_529_456),
    ("efficientnet_lite0", 224): (4_652_008, 385_187_552),
    ("mobilenetv1_100", 224): (4_231_976, 568_740_352),
    ("mobilenetv2_100", 224): (3_504_872, 300_774_272),
    ("fbnetc_100", 224): (5_572_200, 384_960_160),
    ("ghostnet_100", 224): (5_182_508, 141_150_512),
    ("ghostnetv2_100", 224): (6_156_908, 167_048_288),
    ("tinynet_a", 192): (6_187_972, 336_867_712),
    ("tinynet_d", 152): (2_338_446, 51_580_656),
    ("convnext_atto", 224): (3_695_520, 547_332_480),
    ("convnext_tiny", 224): (28_589_128, 4_455_531_264),
    ("convnext_tiny", 288): (28_589_128, 7_364_764_416),
    ("convnext_base", 224): (88_591_464, 15_354_729_472),
    ("inception_next_tiny", 224): (28_055_680, 4_188_634_272),
    ("inception_next_base", 224): (86_672_136, 14_841_072_000),
}
