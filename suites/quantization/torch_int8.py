"""torch's own static int8 of a traced network, behind one door: its removal from torch is announced."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from suites.quantization.layers import pads_same, same_padding
from suites.quantization.network import layers_of, replaced, shown, watched


class StaticInt8(nn.Module):
    """The network in torch's int8 kernels (engine x86, or what the processor has)."""

    execution = "real-int"

    def __init__(self, network: nn.Module, like: nn.Module):
        super().__init__()
        self.network = network
        self.nominal_bits = self.nominal_activation_bits = 8.0
        for name in ("resolution", "channels", "classes", "task"):
            if hasattr(like, name):
                setattr(self, name, getattr(like, name))

    def forward(self, *args: Tensor) -> Tensor:
        """The network's outputs."""
        return self.network(*args)


def static_int8(model: nn.Module, batches: list[tuple[Tensor, ...]]) -> StaticInt8:
    """A folded network calibrated and converted; inputs of the network are quantised inside.

    Raises:
        UsageError: this torch has no such flow, or cannot follow the network's graph.
        NotImplementedError: on the meta device, where packed weights cannot be made.
    """
    if not batches:
        raise NotImplementedError("packed int8 weights of torch cannot be made on the meta device")
    try:
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
    except ImportError as error:
        raise UsageError(f'this torch has no static int8 ({error}): take kernel="int8"') from error
    engine = "x86" if "x86" in torch.backends.quantized.supported_engines else "qnnpack"
    task, model.task = getattr(model, "task", None), None  # type: ignore[assignment]
    mapping: Any = get_default_qconfig_mapping(engine)
    _with_fixed_padding(model, batches[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            prepared = prepare_fx(model.eval(), mapping, batches[0])
        except Exception as error:  # whatever the network's own code says to a proxy
            raise UsageError(f"torch's static int8 cannot follow {type(model).__name__}: {error}") from error
        with torch.no_grad():
            for args in batches:
                prepared(*args)
        converted = convert_fx(prepared)
    made = StaticInt8(converted, model).eval()
    made.task = task  # type: ignore[assignment]
    return made


def _with_fixed_padding(model: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Convolutions that pad by their input's size become a fixed pad before a plain one, as the flow knows no other."""
    wanted = {path: layer for path, layer in layers_of(model).items() if pads_same(layer)}
    sides: dict[str, list[int]] = {}

    def see(path: str, x: Tensor) -> None:
        layer = wanted[path]
        assert isinstance(layer, nn.Conv2d)
        sides[path] = same_padding(x.shape[-2:], layer.kernel_size, layer.stride, layer.dilation)

    with watched(wanted, see):
        shown(model, [args])
    for path, found in sides.items():
        old = wanted[path]
        assert isinstance(old, nn.Conv2d)
        plain = nn.Conv2d(
            old.in_channels, old.out_channels, old.kernel_size, old.stride, 0, old.dilation, old.groups,  # type: ignore[arg-type]
            bias=old.bias is not None,
        )  # fmt: skip
        plain.weight, plain.bias = old.weight, old.bias
        left, right, top, bottom = found
        replaced(model, path, nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain).eval())
