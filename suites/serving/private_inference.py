"""Private inference end to end, as a cost model: what storage and preparation do to latency under arrivals.

CryptoNite (arXiv 2111.02583; numbers recalled): in a hybrid protocol every ReLU is a garbled circuit, which the client
receives and keeps before it knows its input. One inference uses up ReLU elements x bytes per garbled ReLU; what fits
into the client's storage is prepared ahead, and a request that finds nothing prepared waits for it. No cryptography
runs here and nothing of this is measured: ReLUs are counted, bytes and times are modelled.

Reconstruction: preparation takes as long as its bytes on the link, one after another, and starts as soon as there is
room; an inference exchanges its wires' labels and waits a round trip per layer of ReLUs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.config.settings import Positive, PositiveInt
from bench.reading import Curve, Reading, reading, unavailable
from bench.workloads.queueing import unit_arrivals
from suites.common.torchvision_remedy import import_beside_torchvision

#: Bytes of a garbled ReLU that the client stores, and of the labels of an inference's 41 wires of 128 bits.
GARBLED, LABELS = 18_200, 656
#: Arrival rates of the curve, as shares of the rate at which inferences are prepared, and arrivals behind each point.
SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.1)
ARRIVALS = 4000
_RELUS = frozenset({"aten::relu", "aten::relu_", "aten::hardtanh", "aten::hardtanh_", "aten::relu6"})


class _CountRelus(TorchDispatchMode):
    """Counts outputs of ReLUs, and how many calls they are."""

    elements, calls = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.name().partition(".")[0] in _RELUS:
            self.elements += out.numel()
            self.calls += 1
        return out


def relus(network: nn.Module, side: int) -> tuple[int, int]:
    """Output elements of all ReLUs of one picture [3, side, side], and the calls that they are; on shapes alone."""
    on_shapes = copy.deepcopy(network).to("meta")
    with torch.inference_mode(), _CountRelus() as found:
        on_shapes(torch.zeros(1, 3, side, side, device="meta"))
    return found.elements, found.calls


def sojourns(arrivals: Sequence[float], store: int, prepare_s: float, online_s: float) -> list[float]:
    """Seconds in system of requests that each use up one prepared inference.

    The store is full at the beginning. Inference i is taken from it at c_i = max(arrival, ready_i, end of the last);
    what replaces it is ready at max(ready of the one before, the moment at which there was room) + prepare_s.

    Args:
        arrivals: seconds, ascending.
        store: prepared inferences that there is room for, at least one.
        prepare_s: to prepare one.
        online_s: of an inference that is prepared.

    Raises:
        ValueError: there is no room for one.
    """
    if store < 1:
        raise ValueError("there is no room for a single prepared inference: no request can be answered")
    taken, found = list[float](), list[float]()
    ready, end = 0.0, 0.0
    for index, arrival in enumerate(arrivals):
        if index >= store:
            ready = max(ready, taken[index - store]) + prepare_s
        taken.append(max(arrival, ready, end))
        end = taken[-1] + online_s
        found.append(end - arrival)
    return found


class PrivateInference(nn.Module):
    """A network in the clear, with the cost model of running it in private beside it.

    Attributes:
        elements: outputs of its ReLUs.
        layers: calls of ReLUs: rounds of an inference.
    """

    execution = "modelled"
    network_stage = "infer_in_the_clear"

    def __init__(
        self, network: nn.Module, side: int, *, store_gb: float, link_mbps: float, rtt_ms: float, garbled: float
    ):
        super().__init__()
        self.network, self.side = network, side
        self.elements, self.layers = relus(network, side)
        self.store_gb, self.link_mbps, self.rtt_ms, self.garbled = store_gb, link_mbps, rtt_ms, garbled

    @property
    def bytes_each(self) -> float:
        """Bytes of one prepared inference."""
        return self.elements * self.garbled

    @property
    def store(self) -> int:
        """Prepared inferences that the client has room for."""
        return int(1e9 * self.store_gb // self.bytes_each)

    @property
    def prepare_s(self) -> float:
        """Seconds to prepare one: its bytes on the link."""
        return 8 * self.bytes_each / (1e6 * self.link_mbps) + self.rtt_ms / 1e3

    @property
    def online_s(self) -> float:
        """Seconds of an inference that is prepared: labels on the link, and a round trip per layer of ReLUs."""
        return 8 * self.elements * LABELS / (1e6 * self.link_mbps) + self.layers * self.rtt_ms / 1e3

    def stages(self) -> list[tuple[str, Callable[[Any], Any]]]:
        """The network in the clear, for comparison."""
        return [("infer_in_the_clear", self.forward)]

    def example_request(self, index: int) -> Tensor:
        """A random picture."""
        like = next(self.parameters())
        picture = torch.rand(1, 3, self.side, self.side, generator=torch.Generator().manual_seed(index), device="cpu")
        return picture.to(like)

    def forward(self, images: Tensor) -> Tensor:
        """Logits in the clear."""
        return self.network(images)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures."""
        like = next(self.parameters())
        return (torch.rand(batch, 3, self.side, self.side).to(like),)

    def modelled(self) -> tuple[list[Reading], list[Curve]]:
        """Storage, and latency over the arrival rate; none where the storage holds not one prepared inference."""
        note = f"{self.garbled:g} B a ReLU; {self.store} prepared inferences fit into {self.store_gb:g} GB"
        found = [
            reading("relu_elements", self.elements, "counted", part="request", method_note=f"{self.layers} calls"),
            reading("private_store_bytes", self.bytes_each, "modelled", part="request", method_note=note),
        ]
        if self.store < 1:
            why = (
                f"{self.bytes_each / 1e9:.3g} GB are needed for one inference, and there is room for {self.store_gb:g}"
            )
            return [*found, unavailable("private_latency_ms", why, "request")], []
        rates = [share / self.prepare_s for share in SHARES]
        means = [self.mean_ms(rate) for rate in rates]
        told = f"{note}; prepared in {self.prepare_s:.4g} s each, used in {self.online_s:.4g} s"
        where = f"at half the rate of preparation, {0.5 / self.prepare_s:.3g} per second; {told}"
        half = means[SHARES.index(0.5)]
        if half is None:
            found.append(unavailable("private_latency_ms", f"the inference itself cannot keep up {where}", "request"))
        else:
            found.append(reading("private_latency_ms", half, "modelled", part="request", method_note=where))
        return found, [Curve("private_latency_ms", "rate", rates, means, "modelled", "request", told)]

    def mean_ms(self, rate: float) -> float | None:
        """Mean milliseconds in system at a rate of arrivals per second; None where the backlog grows for ever."""
        if rate * max(self.prepare_s, self.online_s) >= 1:
            return None
        arrivals = [moment / rate for moment in unit_arrivals(ARRIVALS, 0)]
        times = sojourns(arrivals, self.store, self.prepare_s, self.online_s)
        return 1e3 * sum(times) / len(times)


def private_resnet18(
    *,
    side: PositiveInt = 64,
    store_gb: Positive = 128.0,
    link_mbps: Positive = 1000.0,
    rtt_ms: Positive = 20.0,
    bytes_per_relu: Positive = float(GARBLED),
    classes: PositiveInt = 200,
) -> PrivateInference:
    """ResNet-18 with a 3 x 3 stem and no pooling behind it, random weights, with the model of its private inference.

    Args:
        side: of the picture in pixels.
        store_gb: the client's storage, 10^9 bytes.
        link_mbps: of the link, 10^6 bits per second.
        rtt_ms: its round trip.
        bytes_per_relu: of a garbled ReLU in the client's storage.
        classes: logits.
    """
    models = import_beside_torchvision("torchvision.models")
    network = models.resnet18(weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    made = PrivateInference(
        network.eval(), side, store_gb=store_gb, link_mbps=link_mbps, rtt_ms=rtt_ms, garbled=bytes_per_relu
    )
    return made.eval()
