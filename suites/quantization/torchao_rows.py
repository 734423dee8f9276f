"""Linear layers in torchao's own formats (BSD-3 licence): weight-only int8 and int4, and dynamic int8 products."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from bench.errors import UsageError
from suites.quantization.cost import costed
from suites.quantization.network import folded, layers_of, on_meta

#: Label of each form, and its nominal bits of weights and activations.
FORMS = {"weight_only": ("dequant", 8, 32), "dynamic": ("real-int", 8, 8)}


@costed
def torchao_int8(model: nn.Module, *, form: Literal["weight_only", "dynamic"] = "dynamic") -> nn.Module:
    """The network with its linear layers in a format of torchao.

    Args:
        model: of linear layers; convolutions stay.
        form: int8 weights unpacked in the product, or int8 products with a scale for each token.

    Raises:
        UsageError: torchao is not installed.
        ValueError: no linear layer.
        NotImplementedError: on the meta device.
    """
    if not any(isinstance(layer, nn.Linear) for layer in layers_of(model).values()):
        raise ValueError(f"torchao_int8 changes linear layers, and {type(model).__name__} has none")
    if on_meta(model):
        raise NotImplementedError("torchao's tensors are made of values, which the meta device has none of")
    library = _library()
    task, model.task = getattr(model, "task", None), None  # type: ignore[assignment]
    folded(model)
    config = (
        library.Int8WeightOnlyConfig() if form == "weight_only" else library.Int8DynamicActivationInt8WeightConfig()
    )
    library.quantize_(model, config)
    model.task = task  # type: ignore[assignment]
    label, weights, activations = FORMS[form]
    model.execution, model.nominal_bits = label, float(weights)  # type: ignore[assignment]
    model.nominal_activation_bits = float(activations)  # type: ignore[assignment]
    return model


def _library() -> Any:
    try:
        import torchao.quantization as library
    except ImportError as error:
        raise UsageError(
            f'torchao_int8 needs torchao: python -m pip install "waterline-bench[quantised]" ({error})'
        ) from error
    return library
