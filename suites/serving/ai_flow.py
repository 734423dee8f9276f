"""AI Flow: device and server share one inference; the device sends text, a small feature, or drafts to be verified.

Source: Shao and Li 2024, "AI Flow at the Network Edge", arXiv 2411.12469, a position paper: all of this is a
reconstruction. Drafts are verified greedily (Leviathan et al. 2023, arXiv 2211.17192), so that the text is the server's
own. The feature is that of a block in the middle, brought to few channels, rounded and range-coded by a learned prior.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.decoder import Decoder, DecoderCache, Generator, as_decoder
from suites.common.from_scratch import learned
from suites.common.speculation import Speculated, account, agreeing, model_draft, rolled_back, speculative_greedy
from suites.serving.factorised_prior import FactorisedPrior
from suites.serving.flow_decoder import flow_decoder
from suites.serving.payloads import header, packed, unpacked, without_header
from suites.serving.two_stage import adam, in_two, learning, modes, settled, squared, stage

#: Bytes of a request beside its tokens: which text it goes on with (4) and where (4).
REQUEST_BYTES = 8
#: Batches of 16 stretches of text that a device's model and a feature learn from: as many as the plain decoder.
STEPS = 150


# ------------------------------------------------------------------------------------------------ drafts


@dataclass
class _Session:
    """A text that both sides know up to its last token, and what each keeps of it."""

    ids: Tensor
    device: DecoderCache
    server: DecoderCache


class DraftRound(nn.Module):
    """One round of drafting: `k` tokens from the device's model, verified by the server's, which adds one of its own.

    Both sides keep caches of the text so far, as a service in the middle of a text does; `ready` brings them there.
    With k = 0 nothing is drafted: the server writes every token.
    """

    def __init__(self, server: Decoder, device: Decoder, k: int):
        super().__init__()
        self.server, self.device, self.k = server, device, k
        self.vocabulary = server.vocabulary
        self.example = server.example_inputs
        self._session: _Session | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the caches of a text."""
        return {**self.__dict__, "_session": None}

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Text to be gone on with."""
        return self.example(batch)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position: the server's, whose text this is."""
        return self.server(ids)

    def ready(self, ids: Tensor) -> None:
        """Caches of the text without its last token, on both sides.

        Raises:
            ValueError: more than one text.
        """
        if ids.shape[0] != 1:
            raise ValueError(f"one text at a time, not {ids.shape[0]}: each accepts another number of tokens")
        known = self._session
        if known is not None and not ids.is_meta and torch.equal(known.ids, ids):
            return
        before = ids[:, :-1]
        self._session = _Session(ids, self.device.prefill(before)[1], self.server.prefill(before)[1])

    def _known(self) -> _Session:
        if self._session is None:
            raise ValueError("neither side knows the text: call ready(ids) first")
        return self._session

    def head(self, ids: Tensor) -> Tensor:
        """The drafted tokens, [1, k]."""
        session, found = self._known(), [ids[:, -1:]]
        cache = rolled_back(session.device, ids.shape[1] - 1)
        for _ in range(self.k):
            logits, cache = self.device.decode(found[-1], cache)
            found.append(logits.argmax(-1, keepdim=True))
        return torch.cat([ids[:, :0], *found[1:]], dim=1)

    def encode(self, drafted: Tensor) -> bytes:
        """Which text, where in it, and the tokens in as many bits as the vocabulary needs."""
        place = self._known().ids.shape[1]
        codes = packed(drafted.flatten().cpu().numpy(), _token_bits(self.vocabulary))
        return (0).to_bytes(4, "little") + place.to_bytes(4, "little") + header(drafted.shape) + codes

    def decode(self, payload: bytes) -> Tensor:
        """The tokens."""
        shape, body = without_header(payload[REQUEST_BYTES:])
        codes = unpacked(body, _token_bits(self.vocabulary), shape[0] * shape[1])
        return torch.from_numpy(codes.astype("int64").reshape(shape)).to(self.server.embed.weight.device)

    def tail(self, drafted: Tensor) -> Tensor:
        """The tokens that are right, and the server's next one, [1, 1 to k + 1]; of shapes alone all of them."""
        session = self._known()
        chunk = torch.cat([session.ids[:, -1:], drafted], dim=1)
        features, _ = self.server.stepped(chunk, rolled_back(session.server, session.ids.shape[1] - 1))
        own = self.server.head(self.server.norm(features)).argmax(-1)
        if own.is_meta:
            return own
        right = agreeing(drafted[0].tolist(), own[0].tolist())
        return own[:, : right + 1]

    def encode_answer(self, answer: Tensor) -> bytes:
        """How many tokens, and the tokens."""
        return header(answer.shape) + packed(answer.flatten().cpu().numpy(), _token_bits(self.vocabulary))

    def device_params(self) -> int:
        """Of the model that drafts."""
        return sum(p.numel() for p in self.device.parameters())

    def denominators(self, ids: Tensor) -> dict[str, float | str]:
        """None: what is sent is no picture."""
        return {}


def _token_bits(vocabulary: int) -> int:
    return max(1, (vocabulary - 1).bit_length())


class FlowText(Generator):
    """Whole answers by drafts over a link; prompt and single steps are the server's own."""

    def __init__(self, server: Decoder, device: Decoder, k: int):
        super().__init__()
        self.server, self.device, self.k = server, device, k
        self.vocabulary = server.vocabulary
        self._last: list[Speculated] = []

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position: the server's."""
        return self.server(ids)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """The server's text."""
        return self.server.example_inputs(batch)

    def example_ids(self, batch: int, context: int, seed: int) -> Tensor | None:
        """The server's prompts, where they are longer than its examples."""
        longer = getattr(self.server, "example_ids", None)
        return None if longer is None else longer(batch, context, seed)

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position and the cache."""
        return self.server.prefill(ids)

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position and the cache."""
        return self.server.decode(ids, cache)

    def write(self, ids: Tensor, new: int) -> Tensor:
        """`new` tokens after ids [batch, tokens], the server's greedy text, [batch, new]."""
        self._last = [speculative_greedy(self.server, model_draft(self.device), row[None], new, self.k) for row in ids]
        return torch.cat([found.ids for found in self._last])

    def written(self) -> dict[str, float | None]:
        """Tokens per round and acceptance over the sequences of the last answer."""
        return account(self._last)

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        return self.server.cache_bits()


# ------------------------------------------------------------------------------------------------ text and features


class CloudText(nn.Module):
    """The device sends its text, one byte or two a token; the server reads it and answers with the next token."""

    def __init__(self, server: Decoder):
        super().__init__()
        self.server = server
        self.vocabulary, self.example = server.vocabulary, server.example_inputs

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Text to be gone on with."""
        return self.example(batch)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position."""
        return self.server(ids)

    def head(self, ids: Tensor) -> Tensor:
        """The tokens."""
        return ids

    def encode(self, ids: Tensor) -> bytes:
        """Shape and tokens."""
        return header(ids.shape) + packed(ids.flatten().cpu().numpy(), _token_bits(self.vocabulary))

    def decode(self, payload: bytes) -> Tensor:
        """The tokens."""
        shape, body = without_header(payload)
        codes = unpacked(body, _token_bits(self.vocabulary), shape[0] * shape[1])
        return torch.from_numpy(codes.astype("int64").reshape(shape)).to(self.server.embed.weight.device)

    def tail(self, ids: Tensor) -> Tensor:
        """Logits of the next token, [batch, vocabulary]."""
        return self.server.prefill(ids)[0]

    def encode_answer(self, logits: Tensor) -> bytes:
        """The next token of each text, two bytes."""
        return logits.argmax(-1).cpu().numpy().astype("<u2").tobytes()

    def device_params(self) -> int:
        """None."""
        return 0


class FlowFeature(nn.Module):
    """The device runs the first blocks and sends few rounded channels of every token; the server runs the others."""

    def __init__(self, decoder: Decoder, cut: int, channels: int):
        super().__init__()
        width = decoder.embed.embedding_dim
        self.decoder, self.cut, self.channels = decoder, cut, channels
        self.down, self.up = nn.Linear(width, channels, bias=False), nn.Linear(channels, width, bias=False)
        self.prior = FactorisedPrior(channels)
        self.vocabulary, self.example = decoder.vocabulary, decoder.example_inputs

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Text to be gone on with."""
        return self.example(batch)

    def features(self, ids: Tensor) -> Tensor:
        """Features behind the first blocks, [batch, tokens, width]."""
        x, by = self.decoder.embed(ids), self.decoder.rotation(0, ids.shape[1])
        for block in self.decoder.blocks[: self.cut]:
            x = block(x, by)
        return x

    def head(self, ids: Tensor) -> Tensor:
        """The latent, [batch, channels, tokens]."""
        return self.down(self.features(ids)).transpose(1, 2)

    def encode(self, latent: Tensor) -> bytes:
        """Strings of the rounded latent."""
        return self.prior.encode(latent)

    def decode(self, payload: bytes) -> Tensor:
        """The rounded latent."""
        return self.prior.decode(payload).to(self.up.weight)

    def after(self, latent: Tensor) -> Tensor:
        """Normalised features of all positions, of a latent."""
        x = self.up(latent.transpose(1, 2))
        by = self.decoder.rotation(0, x.shape[1])
        for block in self.decoder.blocks[self.cut :]:
            x = block(x, by)
        return self.decoder.norm(x)

    def tail(self, latent: Tensor) -> Tensor:
        """Logits of the next token, [batch, vocabulary]."""
        return self.decoder.head(self.after(latent)[:, -1])

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position, through the rounded latent."""
        return self.decoder.head(self.after(self.head(ids).round()))

    def encode_answer(self, logits: Tensor) -> bytes:
        """The next token of each text, two bytes."""
        return logits.argmax(-1).cpu().numpy().astype("<u2").tobytes()

    def device_parts(self) -> list[nn.Module]:
        """What stands on the device."""
        return [self.decoder.embed, *self.decoder.blocks[: self.cut], self.down]

    def device_params(self) -> int:
        """Of embedding, first blocks and the map to few channels."""
        return sum(p.numel() for part in self.device_parts() for p in part.parameters())

    def denominators(self, ids: Tensor) -> dict[str, float | str]:
        """The features as floats."""
        return {"vs_fp32_cut": 4 * ids.numel() * self.down.in_features}


# ------------------------------------------------------------------------------------------------ methods


def ai_flow(
    model: nn.Module,
    *,
    setting: Literal["draft", "feature", "device", "cloud"] = "draft",
    k: Count = 4,
    width: PositiveInt = 128,
    layers: PositiveInt = 2,
    heads: PositiveInt = 4,
    hidden: PositiveInt = 344,
    cut: PositiveInt = 2,
    channels: PositiveInt = 16,
    beta: Positive = 0.5,
    steps: Count | None = None,
) -> nn.Module:
    """One request of a service that writes, shared between device and server.

    Args:
        model: the server's decoder.
        setting: draft (a round of `k` drafted tokens), feature (few channels behind block `cut`), device (a small model
            alone) or cloud (the text goes up).
        k: drafted tokens of a round; 0 lets the server write each token.
        width: of the device's own model.
        layers: of it.
        heads: of it.
        hidden: of it.
        cut: blocks that the device runs of the server's model, for a feature.
        channels: of a feature.
        beta: price of a bit beside the squared errors of a feature.
        steps: batches of 16 that device model or feature learn from; None for 150 where the model has a task.

    Raises:
        ValueError: not a plain decoder, or nothing is left behind the cut.
    """
    server = as_decoder(model, "ai_flow")
    if setting == "cloud":
        return CloudText(server).eval()
    count = _steps_for(model, steps)
    if setting == "feature":
        return _with_feature(server, cut, channels, beta, count)
    device = device_model(server, width=width, layers=layers, heads=heads, hidden=hidden, steps=count)
    if setting == "device":
        return device
    found = DraftRound(server, device, k).eval()
    return _untrained_as(found, device)


def ai_flow_text(
    model: nn.Module,
    *,
    k: PositiveInt = 4,
    width: PositiveInt = 128,
    layers: PositiveInt = 2,
    heads: PositiveInt = 4,
    hidden: PositiveInt = 344,
    steps: Count | None = None,
) -> FlowText:
    """The server's decoder whose answers are drafted by the device's model, for the workload `generate`.

    Args:
        model: the server's decoder.
        k: drafted tokens of a round.
        width: of the device's model.
        layers: of it.
        heads: of it.
        hidden: of it.
        steps: batches of 16 that it learns from; None for 150 where the model has a task.

    Raises:
        ValueError: not a plain decoder.
    """
    server = as_decoder(model, "ai_flow_text")
    count = _steps_for(model, steps)
    device = device_model(server, width=width, layers=layers, heads=heads, hidden=hidden, steps=count)
    return FlowText(server, device, k).eval()


def device_model(server: Decoder, *, width: int, layers: int, heads: int, hidden: int, steps: int) -> Decoder:
    """A small decoder that learned from the server's text for so many steps."""
    small = flow_decoder(width=width, layers=layers, heads=heads, hidden=hidden)
    settings = {"width": width, "layers": layers, "heads": heads, "hidden": hidden}
    learned(small, server, device_model, settings, steps)
    return small


def _steps_for(model: nn.Module, steps: int | None) -> int:
    if steps is not None:
        return steps
    return STEPS if hasattr(getattr(model, "task", None), "training_batches") else 0


def _untrained_as(found: nn.Module, device: nn.Module) -> nn.Module:
    """A round's quality is the server's, whoever drafts: only what is learned of the device is told."""
    learnt = getattr(device, "learned", None)
    if learnt is not None:
        found.learned = learnt
    return found


def _with_feature(server: Decoder, cut: int, channels: int, beta: float, steps: int) -> FlowFeature:
    if cut >= len(server.blocks):
        raise ValueError(f"cut={cut}: of {len(server.blocks)} blocks at least one is the server's")
    task, server.task = getattr(server, "task", None), None  # type: ignore[assignment]
    own = copy.deepcopy(server)
    server.task = task  # type: ignore[assignment]
    found = FlowFeature(own, cut, channels)
    settings = {"cut": cut, "channels": channels, "beta": beta}
    learned(found, server, ai_flow, settings, steps, _Feature(server, beta))
    if not steps and not found.up.weight.is_meta:
        found.prior.update()
    return found.eval()


class _Feature:
    """The feature's own maps and prior first; then the server's blocks, on rounded features."""

    def __init__(self, server: Decoder, beta: float):
        self.server, self.beta = server, beta

    def __call__(self, found: Any, batches: Any, steps: int) -> list[float]:
        """The loss of each step."""
        given, half = in_two(batches, steps)

        def imitation(ids: Tensor, following: Tensor) -> Tensor:
            with torch.no_grad():
                features = found.features(ids)
            latent = found.down(features).transpose(1, 2)
            noisy = latent + torch.rand_like(latent) - 0.5
            return squared([found.up(noisy.transpose(1, 2))], [features]) + self.beta * found.prior.bits(noisy)

        modes(found, [found.decoder])
        losses = stage(adam(learning([found.down, found.up]), learning([found.prior])), given, imitation, half, [0.8])
        found.prior.update()
        device = [*found.device_parts(), found.prior]
        modes(found, device)

        def following_bytes(ids: Tensor, following: Tensor) -> Tensor:
            return F.cross_entropy(found(ids).flatten(0, 1), following.flatten())

        losses += stage(adam(learning([found.up, found.decoder])), given, following_bytes, steps - half, [0.8])
        settled(found)
        return losses
