"""What drafting over a link costs, in closed form, and where it pays.

A round drafts k tokens on the device, sends them, has them verified, and gets 1 to k + 1 tokens back (Leviathan et al.
2023, arXiv 2211.17192, equation 1, with each draft accepted independently with probability a).
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.workloads.split import link_ms


def expected_tokens(acceptance: float, k: int) -> float:
    """Tokens of a round in the mean: (1 - a^(k + 1)) / (1 - a), and k + 1 where every draft is accepted.

    Raises:
        ValueError: the acceptance is no share, or fewer than no tokens are drafted.
    """
    if not 0 <= acceptance <= 1 or k < 0:
        raise ValueError(f"acceptance={acceptance}, k={k}: a share of 0 to 1, and 0 or more tokens are wanted")
    return float(sum(acceptance**place for place in range(k + 1)))


@dataclass(frozen=True)
class Service:
    """Times in milliseconds and bytes of one service that writes.

    Attributes:
        draft_ms: of a token on the device.
        verify_ms: of k drafted tokens and one more on the server, taken as the same for all k here.
        step_ms: of one token on the server by itself.
        token_bytes, request_bytes: on the wire.
        bandwidth_mbps, rtt_ms: of the link.
    """

    draft_ms: float
    verify_ms: float
    step_ms: float
    bandwidth_mbps: float
    rtt_ms: float
    token_bytes: float = 1.0
    request_bytes: float = 13.0

    def round_ms(self, k: int, acceptance: float) -> float:
        """Milliseconds of a round."""
        up = self.request_bytes + k * self.token_bytes
        down = 5.0 + expected_tokens(acceptance, k) * self.token_bytes
        return k * self.draft_ms + link_ms(up, down, self.bandwidth_mbps, self.rtt_ms) + self.verify_ms

    def ms_per_token(self, k: int, acceptance: float) -> float:
        """Milliseconds of a token by rounds of k drafts."""
        return self.round_ms(k, acceptance) / expected_tokens(acceptance, k)

    def cloud_ms_per_token(self, tokens: int) -> float:
        """Milliseconds of a token where the server writes so many by itself and the link is gone once.

        Raises:
            ValueError: no token is written.
        """
        if tokens < 1:
            raise ValueError(f"tokens={tokens}: an answer has one token at least")
        link = link_ms(self.request_bytes, 5.0 + tokens * self.token_bytes, self.bandwidth_mbps, self.rtt_ms)
        return (link + tokens * self.step_ms) / tokens

    def best_k(self, acceptance: float, most: int = 16) -> int:
        """The drafts of a round that make a token quickest, 0 (none) to `most`."""
        return min(range(most + 1), key=lambda k: self.ms_per_token(k, acceptance))
