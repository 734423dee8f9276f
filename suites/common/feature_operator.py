"""A layer or block as an operator on seeded feature maps, beside a slower reference where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from suites.common.operators import LOOSER


class FeatureOperator(nn.Module):
    """A module called on one or several maps.

    Attributes:
        form: what really runs, for the record.
    """

    def __init__(
        self, body: nn.Module, *sizes: tuple[int, ...], reference: Callable[..., Tensor] | None = None,
        tolerance: float = 1e-5, form: str = "layers",
    ):  # fmt: skip
        """Wrap a module.

        Args:
            body: what is called.
            sizes: of one sample of each argument, [channels, height, width].
            reference: the same function by other means, on the same arguments; it is given the body first.
            tolerance: largest relative distance from the reference that is still the same function, in single
                precision.
            form: see above.
        """
        super().__init__()
        self.body = body.eval()
        self.sizes = sizes
        self.tolerance_fp32 = tolerance
        self.form = form
        if reference is not None:
            self.reference = _Reference(self.body, reference)
        self.eval()

    @property
    def tolerance(self) -> float:
        """Largest relative distance from the reference that is still the same function, in the body's dtype."""
        return self.tolerance_fp32 * max(1.0, LOOSER.get(next(self.parameters()).dtype, 1.0))

    def forward(self, *features: Tensor) -> Any:
        """What the body gives."""
        return self.body(*features)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Normal features, on the body's device and in its dtype."""
        like = next(self.parameters())
        return tuple(torch.randn(batch, *size, device=like.device).to(like.dtype) for size in self.sizes)


class _Reference:
    """The reference with the body that it needs; no module, so that its weights count once."""

    def __init__(self, body: nn.Module, function: Callable[..., Tensor]):
        self.body, self.function = body, function

    def __call__(self, *features: Tensor) -> Tensor:
        """The reference's answer."""
        return self.function(self.body, *features)
