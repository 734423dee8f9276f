"""The tables that HAWQV3 prints for the inner convolutions of ResNet-18 (Yao et al. 2021, arXiv 2011.10680; read).

Nineteen of them in execution order, a shortcut's 1x1 after the last convolution of its unit; times are of a T4.
"""

from __future__ import annotations

#: Trace of the Hessian over the number of weights.
TRACE = (
    0.06857826, 0.03162379, 0.03298575, 0.01205663, 0.02222431, 0.00596336, 0.06931772, 0.00807129, 0.00372905,
    0.00530698, 0.00209011, 0.00737569, 0.00210454, 0.00151197, 0.00158041, 0.00078146, 0.00451841, 0.00098745,
    0.00072944,
)  # fmt: skip
#: Squared error of the weights at 8 and at 4 bits.
ERROR_8 = (
    0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023, 0.0287, 0.0148, 0.0333, 0.0682, 0.0027, 0.0448, 0.0336,
    0.0576, 0.1130, 0.0102, 0.0947, 0.0532,
)  # fmt: skip
ERROR_4 = (
    6.743, 3.9691, 3.3281, 2.6796, 4.7277, 10.5966, 0.6827, 9.0942, 4.8857, 10.7599, 21.7546, 0.8603, 14.5324, 10.9651,
    18.7706, 36.4044, 3.1572, 29.6994, 17.4016,
)  # fmt: skip
#: Milliseconds of a layer in 4 and in 8 bits.
MS_4 = (
    0.21094404, 0.21092674, 0.21104113, 0.21086851, 0.13642465, 0.19167506, 0.02532183, 0.19148203, 0.19142914,
    0.11395316, 0.20556011, 0.01917474, 0.20566918, 0.20566509, 0.13185102, 0.22287786, 0.01790088, 0.22304611,
    0.22286099,
)  # fmt: skip
MS_8 = (
    0.36189111, 0.36211718, 0.31141909, 0.30454471, 0.19184896, 0.38948934, 0.0334169, 0.38904905, 0.3892859,
    0.19134735, 0.34307431, 0.02802354, 0.34313329, 0.34310756, 0.21117103, 0.37376585, 0.02896843, 0.37398187,
    0.37405185,
)  # fmt: skip


def sensitivity() -> list[float]:
    """What each layer adds to the objective at 8 bits over 4: trace/n x (error at 8 - error at 4)."""
    return [t * (eight - four) for t, eight, four in zip(TRACE, ERROR_8, ERROR_4, strict=True)]
