"""Numbers as others printed them, with where they stand: (model, schedule) -> billions of multiply-accumulates.

Nothing in here was computed by this project.
"""

from suites.vit_tokens.analytic import Shape

T = Shape(192, 12, 16, 224, heads=3)
S = Shape(384, 12, 16, 224, heads=6)
B = Shape(768, 12, 16, 224, heads=12)
L = Shape(1024, 24, 16, 224, heads=16)
H = Shape(1280, 32, 14, 224, heads=16)
SWAG_L = Shape(1024, 24, 16, 512, heads=16)
SWAG_H = Shape(1280, 32, 14, 518, heads=16)

#: timm, results/benchmark-infer-amp-nchw-pt113-cu117-rtx3090.csv, column infer_gmacs: counted by fvcore, two decimals.
TIMM = {
    "deit_tiny_patch16_224": (T, 1.26),
    "deit_tiny_distilled_patch16_224": (Shape(192, 12, 16, 224, heads=3, special=2, head_count=2), 1.27),
    "deit_small_patch16_224": (S, 4.61),
    "deit_small_distilled_patch16_224": (Shape(384, 12, 16, 224, heads=6, special=2, head_count=2), 4.63),
    "vit_small_patch16_384": (Shape(384, 12, 16, 384, heads=6), 15.52),
    "vit_small_patch8_224": (Shape(384, 12, 8, 224, heads=6), 22.44),
    "vit_small_patch32_224": (Shape(384, 12, 32, 224, heads=6), 1.15),
    "vit_small_patch32_384": (Shape(384, 12, 32, 384, heads=6), 3.45),
    "deit_base_patch16_224": (B, 17.58),
    "deit_base_distilled_patch16_224": (Shape(768, 12, 16, 224, heads=12, special=2, head_count=2), 17.68),
    "deit_base_patch16_384": (Shape(768, 12, 16, 384, heads=12), 55.54),
    "deit_base_distilled_patch16_384": (Shape(768, 12, 16, 384, heads=12, special=2, head_count=2), 55.65),
    "flexivit_base": (Shape(768, 12, 16, 240, heads=12), 20.29),
    "vit_base_patch8_224": (Shape(768, 12, 8, 224, heads=12), 78.22),
    "vit_base_patch32_224": (Shape(768, 12, 32, 224, heads=12), 4.41),
    "vit_large_patch16_224": (L, 61.60),
    "flexivit_large": (Shape(1024, 24, 16, 240, heads=16), 70.99),
    "vit_large_patch16_384": (Shape(1024, 24, 16, 384, heads=16), 191.21),
    "vit_large_patch14_224": (Shape(1024, 24, 14, 224, heads=16), 81.08),
    "vit_large_patch32_384": (Shape(1024, 24, 32, 384, heads=16), 45.31),
    "beit_large_patch16_512": (SWAG_L, 362.24),
    "deit3_huge_patch14_224": (H, 167.40),
    "vit_huge_patch14_224, 21843 classes": (Shape(1280, 32, 14, 224, heads=16, classes=21843), 167.43),
    "vit_huge_patch14_clip_336": (Shape(1280, 32, 14, 336, heads=16), 390.97),
    "vit_giant_patch14_224": (Shape(1408, 40, 14, 224, heads=16, mlp_ratio=48 / 11), 267.18),
    "vit_gigantic_patch14_224": (Shape(1664, 48, 14, 224, heads=16, mlp_ratio=64 / 13), 483.95),
}

#: torchvision, GFLOPS of its weights as its model pages print them: products alone, two decimals.
TORCHVISION = {
    "vit_b_16": (B, 17.56),
    "vit_b_32": (Shape(768, 12, 32, 224, heads=12), 4.41),
    "vit_l_16": (L, 61.55),
    "vit_l_32": (Shape(1024, 24, 32, 224, heads=16), 15.38),
    "vit_h_14, SWAG at 518": (SWAG_H, 1016.72),
}

#: ToMe, DeiT rows of its result table (as the Papers with Code listing of the paper repeats them): r, one decimal.
TOME = [(T, 8, 0.9), (T, 12, 0.8), (T, 16, 0.6), (S, 8, 3.4), (S, 13, 2.7), (S, 16, 2.3)]

#: EViT's README, DeiT-S models: keep rate, with the fused token or without, MACs with one decimal.
EVIT = [
    (0.9, True, 4.0),
    (0.8, True, 3.5),
    (0.7, True, 3.0),
    (0.6, True, 2.6),
    (0.5, True, 2.3),
    (0.9, False, 4.0),
    (0.8, False, 3.5),
    (0.7, False, 3.0),
    (0.6, False, 2.6),
    (0.5, False, 2.3),
]

#: Tables of Expedit-SWAG's README (Liang et al. 2022, "Expediting Large-Scale Vision Transformer"): ToMe and EViT on
#: large models at 512 and 518 pixels. Its counter adds norms and softmax: 364.8 and 1023.2 for the plain models.
SWAG_PLAIN = [(SWAG_L, 364.8), (SWAG_H, 1023.2)]
SWAG_TOME = [
    (SWAG_L, 10, 317.5),
    (SWAG_L, 20, 271.2),
    (SWAG_L, 40, 184.3),
    (SWAG_H, 10, 890.0),
    (SWAG_H, 20, 760.0),
    (SWAG_H, 40, 516.9),
]
SWAG_EVIT = [
    (SWAG_L, 0.8, 264.9),
    (SWAG_L, 0.7, 227.1),
    (SWAG_L, 0.5, 170.2),
    (SWAG_H, 0.7, 632.3),
    (SWAG_H, 0.6, 544.4),
    (SWAG_H, 0.5, 472.0),
]

#: DynamicViT's README, DeiT rows at rho 0.7, one decimal; 256 wide is a model of its own with 4 heads.
DYNAMICVIT = [(Shape(256, 12, 16, 224, heads=4), 1.3), (S, 2.9)]

#: DiffRate: the learned rates released with it (compression_rate.json) and the FLOPs that its README prints for them.
DIFFRATE = {
    "ViT-S (DeiT) 2.9": (
        S, 2.905,
        [197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58, 3],
        [197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3],
    ),
    "ViT-B (DeiT) 11.5": (
        B, 11.517,
        [197, 197, 197, 188, 170, 154, 139, 123, 107, 72, 43, 3],
        [197, 197, 192, 178, 158, 145, 127, 111, 94, 50, 35, 3],
    ),
    "ViT-B (MAE) 11.5": (
        B, 11.517,
        [197, 196, 182, 172, 162, 147, 131, 109, 101, 94, 70, 49],
        [197, 192, 178, 164, 150, 133, 115, 101, 96, 82, 49, 49],
    ),
    "ViT-L (MAE) 42.3": (
        L, 42.290,
        [197, 197, 197, 195, 194, 193, 191, 187, 182, 180, 173, 149, 142, 134, 125, 121, 111, 106, 91, 87, 77, 39, 38,
        32], [197, 197, 196, 194, 193, 192, 187, 183, 181, 173, 154, 146, 137, 127, 123, 114, 105, 98, 87, 75, 43, 45,
        32, 32],
    ),
    "ViT-H (MAE) 103.4": (
        H, 103.337,
        [
            257, 256, 255, 251, 245, 235, 204, 197, 194, 189, 185, 177, 169, 160, 152, 144,
            146, 139, 139, 136, 135, 133, 131, 128, 126, 126, 124, 121, 114, 96, 82, 53,
        ],
        [
            257, 256, 253, 247, 238, 211, 201, 195, 193, 185, 179, 171, 162, 154, 150, 145,
            141, 138, 137, 135, 134, 133, 130, 127, 125, 125, 122, 114, 101, 90, 53, 53,
        ],
    ),
}  # fmt: skip
#: Further released rates and the budgets, one decimal, that they were learned for.
DIFFRATE_BUDGETS = {
    "ViT-T (DeiT)": (
        T,
        0.8,
        [197, 197, 196, 186, 166, 147, 117, 103, 92, 80, 74, 3],
        [197, 196, 190, 172, 154, 125, 107, 96, 84, 78, 70, 3],
    ),
    "ViT-S (DeiT)": (
        S,
        2.3,
        [197, 192, 168, 143, 121, 105, 92, 74, 62, 45, 33, 3],
        [197, 180, 156, 127, 109, 98, 80, 66, 52, 37, 31, 3],
    ),
    "ViT-L (MAE)": (
        L,
        31.0,
        [197, 195, 188, 179, 168, 157, 146, 143, 131, 121, 111, 102, 93, 85, 76, 70, 61, 53, 47, 35, 31, 26, 21, 14],
        [197, 191, 184, 172, 161, 151, 145, 135, 125, 117, 106, 96, 89, 80, 72, 64, 54, 50, 40, 27, 27, 23, 14, 14],
    ),
}
