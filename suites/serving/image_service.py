"""An image classifier in service: encoded bytes in, five best classes out, every stage by itself.

Beyond Inference: Performance Analysis of DNN Server Overheads for Computer Vision (arXiv 2403.12981): what decoding,
resizing, normalising, moving and answering cost around a network. The network is random, its cost is not; what
pre-processing does to accuracy is shown by `suites.serving.digits_service`.

With a transport other than `direct` the files are in another process, the client's, which sends them and waits for
the answer: stages `receive` and `respond`. `given='tensor'` is the same network fed with inputs that are ready. A
segmenter answers with the file of its mask.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.serving import images
from suites.serving.networks import answered
from suites.serving.networks import network as network_of
from suites.serving.preprocessing import Preprocessing
from suites.serving.served import Served

#: Different pictures of a class that are sent in turn; of large ones fewer, which take a second each to make.
PICTURES, LARGE_PICTURES = 8, 2
LARGE_PIXELS = 4_000_000


class ImageService(Served):
    """A chain of stages around a classifier."""

    def __init__(self, network: nn.Module, how: Preprocessing, *, image: str, transport: str, given: str):
        wanted = images.picture(image)
        count = LARGE_PICTURES if wanted.width * wanted.height > LARGE_PIXELS else PICTURES
        super().__init__(network, how, count=count, transport=transport, given=given)
        self.image = image

    def make_file(self, index: int) -> bytes:
        """A seeded picture of the class."""
        return images.file(self.image, index)

    def post(self, said: Tensor) -> Tensor:
        """The five best classes, or of a segmenter the file of the mask."""
        return answered(said)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures, for a forward of the network alone."""
        like = next(self.parameters())
        return (torch.rand(batch, 3, self.how.side, self.how.side, device=like.device, dtype=like.dtype),)


def image_service(
    *,
    network: str = "mobilenet_v2",
    image: str = "medium",
    decode: Literal["pillow", "pillow_draft", "torchvision", "simplejpeg", "opencv"] = "pillow",
    resize: Literal["pillow", "torch", "torch_plain", "opencv_area", "opencv_linear"] = "pillow",
    transport: Literal["direct", "pipe", "shared_memory", "http", "http_json", "redis", "fsync_log"] = "direct",
    given: Literal["bytes", "tensor"] = "bytes",
    side: PositiveInt = 224,
) -> ImageService:
    """A classifier with the stages around it, in evaluation mode with random weights.

    Args:
        network: mobilenet_v2, resnet50, vit_s, or `torchvision:NAME` (a segmenter as well), `timm:NAME`.
        image: small (60 x 70), medium (500 x 375), large (3564 x 2880), or of one's own: `1920x1080q90`.
        decode: library that decodes; `pillow_draft` at a reduced size.
        resize: library and way that resizes.
        transport: how a request comes from its client and the answer goes back.
        given: `tensor` leaves all stages before the network out: its input is ready.
        side: of the network's square input in pixels.

    Raises:
        ValueError: no such picture, or a ready input with a transport.
        UsageError: no such network.
        NotInstalled: a library is not there; a Redis server likewise.
    """
    made: Any = network_of(network, side)
    return ImageService(made, Preprocessing(decode, resize, side), image=image, transport=transport, given=given).eval()
