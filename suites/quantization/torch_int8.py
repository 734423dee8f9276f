"""torch's own int8 kernels behind one door, for their removal from torch is announced.

A traced network with static ranges, and one linear layer whose inputs are quantised in every call. Their weights are
packed for the processor, and they have kernels for processors without units for int8, which `torch._int_mm` has not.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from suites.quantization.grids import SMALLEST
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


class DynamicInt8(nn.Module):
    """A linear layer without a bias: int8 weights per output channel, inputs of 7 bits with one range, int32 sums.

    The range is that of all inputs of a call, affine. Seven bits, as torch sets them: two products then fit into 16
    bits, so that kernels for processors without VNNI do not saturate.

    Args:
        weight: [outputs, inputs], on a CPU.

    Raises:
        UsageError: this torch has no such layer.
    """

    execution = "real-int"

    def __init__(self, weight: Tensor):
        super().__init__()
        try:
            from torch.ao.nn.quantized.dynamic import Linear
        except ImportError as error:
            raise UsageError(f"this torch has no packed int8 layer ({error})") from error
        scale = (weight.abs().amax(dim=1).double() / 127).clamp(min=SMALLEST)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zeros = torch.zeros(len(weight), dtype=torch.long)  # floating zero points are another scheme
            codes = torch.quantize_per_channel(weight.float(), scale, zeros, 0, torch.qint8)
            self.layer = Linear(weight.shape[1], weight.shape[0], bias_=False)
            self.layer.set_weight_bias(codes, None)
        self.nominal_bits, self.nominal_activation_bits = 8.0, 7.0

    def forward(self, x: Tensor) -> Tensor:
        """[..., outputs], fp32.

        Raises:
            NotImplementedError: the inputs are on a GPU.
        """
        if x.is_cuda:
            raise NotImplementedError("torch's packed int8 layers run on a CPU: take form='int8' on a GPU")
        return self.layer(x)

    def dense(self) -> Tensor:
        """The weight that the codes stand for."""
        return self.layer.weight().dequantize()

    @staticmethod
    def rounded_inputs(x: Tensor) -> Tensor:
        """The inputs that are multiplied, in floats."""
        scale, zero = torch._choose_qparams_per_tensor(x, True)
        return ((torch.round(x / scale) + zero).clamp(0, 127) - zero) * scale


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
