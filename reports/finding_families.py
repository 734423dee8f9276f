"""What a row of the findings does less of, and what then multiplies: the families and kernels of the atlas.

Both are read from the row as its page writes it (suite, case, conditions): the first pattern that fits decides, so that
a family stands in one place, and a row that none fits is `OTHER` in the table.
"""

from __future__ import annotations

import re

from reports.finding_line import Line

OTHER = "other"
#: Family -> what the row's suite and case look like.
FAMILIES: tuple[tuple[str, str], ...] = (
    ("fewer tokens", r"^(?:vit_tokens|vlm_tokens) |\bflexdit\("),
    ("fewer channels, heads or features", r"^pruning .*(?:\boptin|channel_slim|\bspa\(|slim=)|\bsqa_layer|_gqa|_mqa"),
    ("zeros among the weights", r"^pruning "),
    ("factors of a matrix", r"^lowrank "),
    ("attention by another rule", r"^attention |\b(?:rettention|sparse_vdit|scale_dit|vin)\("),
    ("early exits and parts of a network", r"^dynamic |sorted_exit"),
    ("fewer or smaller steps", r"^diffusion .*(?:bottleneck|\bsun\()|\bdrpo\("),
    ("work kept from the step before", r"^streaming |cachequant|_cache\(|prefixkv|sliding_window"),
    ("a network taught by another", r"^distill |kv_prediction"),
    ("gradients that are not formed", r"^training "),
    ("another network for the same task", r"^(?:convnets|ssm|diffusion|decode) "),
    ("another algorithm for the same function", r"^ops "),
)
#: What multiplies -> what the row's case and conditions look like.
KERNELS: tuple[tuple[str, str], ...] = (
    ("single places, CSR", r"kernel='csr'|\bfast_sparse\("),
    ("blocks, BSR", r"kernel='bsr'"),
    ("blocks, gathered", r"kernel='gather'|\bblock_sparse\(|\bsparsebytenn\("),
    ("the dense kernel, over zeros", r"kernel='mask'|\bglobal_magnitude\(|\bspdf\(|\bnm_flow\("),
    (
        "torch's operators in place of a fused kernel",
        r"\b(?:ecoformer|kernel|s2)_attention|\bretention|\bnetmamba|'winograd'|\brgat\(|\bflashsvd",
    ),
    ("a compiled graph", r", compile\b"),
    ("another runtime", r"\b(?:onnxruntime|openvino)\b"),
)
#: The kernel of all others: as their other side has it, for less work.
SAME = "the same kernels, for less"


def family(line: Line) -> str:
    """What the row does less of; `OTHER` where no family is known."""
    return _first(FAMILIES, f"{line.suite} {line.case}", OTHER)


def kernel(line: Line) -> str:
    """What multiplies in the row."""
    return _first(KERNELS, f"{line.case.partition(' (against')[0]} {line.conditions}", SAME)


def _first(rules: tuple[tuple[str, str], ...], text: str, otherwise: str) -> str:
    return next((name for name, pattern in rules if re.search(pattern, text)), otherwise)
