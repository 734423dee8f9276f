"""Inverted bottlenecks: 1x1 to a wider map, k x k depthwise, 1x1 back, with a shortcut where the shape stays.

Source: Sandler et al. 2018, MobileNetV2, arXiv:1801.04381, section 3.3; the gate as in MobileNetV3, arXiv:1905.02244.
"""

from __future__ import annotations

from torch import Tensor, nn

from suites.common.conv_blocks import SqueezeExcite, conv_norm


class InvertedBottleneck(nn.Module):
    """[batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]; without a first 1x1 where hidden is inputs."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: int,
        kernel: int = 3,
        stride: int = 1,
        act: type[nn.Module] = nn.ReLU,
        gate: int = 0,
        gate_act: type[nn.Module] = nn.Hardsigmoid,
        groups: int = 1,
        widen: bool | None = None,
        leave_act: bool = False,
        bias: bool = False,
    ):
        """Build the block.

        Args:
            inputs: channels that come in.
            outputs: channels that go out.
            hidden: channels in between.
            kernel: of the depthwise layer.
            stride: of the depthwise layer.
            act: after the first two layers, and after the last with `leave_act`.
            gate: hidden width of a squeeze-and-excite gate behind the depthwise layer; 0 is none.
            gate_act: what makes the gate of its answer.
            groups: of the 1x1 layers.
            widen: whether there is a first 1x1 layer; None is where hidden differs from inputs.
            leave_act: see `act`.
            bias: of convolutions, beside their norms.
        """
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs if widen is None else widen:
            layers += conv_norm(inputs, hidden, act=act, groups=groups, bias=bias)
        layers += conv_norm(hidden, hidden, kernel, stride, groups=hidden, act=act, bias=bias)
        if gate:
            layers.append(SqueezeExcite(hidden, gate, gate=gate_act))
        layers += conv_norm(hidden, outputs, groups=groups, act=act if leave_act else None, bias=bias)
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x + self.layers(x) if self.shortcut else self.layers(x)
