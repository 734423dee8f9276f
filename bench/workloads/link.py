"""How long bytes take on a link, in closed form."""

from __future__ import annotations


def one_way_ms(size: float, bandwidth_mbps: float, rtt_ms: float, loss: float = 0.0, jitter_ms: float = 0.0) -> float:
    """Milliseconds of so many bytes one way, in the mean: 8 bits a byte over the bandwidth, and half a round trip.

    Args:
        size: bytes.
        bandwidth_mbps: 10^6 bits per second.
        rtt_ms: round trip.
        loss: share of packets that are lost, each by itself. A lost one goes again until it arrives, so that the link
            clocks it out 1 / (1 - loss) times; that it is missed is noticed at once, so this is a lower bound.
        jitter_ms: mean of what a way takes longer than half a round trip.

    Raises:
        ValueError: nothing arrives, or a share or time is negative.
    """
    if not 0 <= loss < 1 or jitter_ms < 0:
        raise ValueError(f"loss={loss}, jitter_ms={jitter_ms}: a share from 0 to below 1, and a time of 0 or more")
    return 8e3 * size / (bandwidth_mbps * 1e6 * (1 - loss)) + rtt_ms / 2 + jitter_ms


def link_ms(
    payload_bytes: float, answer_bytes: float, bandwidth_mbps: float, rtt_ms: float, loss: float = 0.0,
    jitter_ms: float = 0.0,
) -> float:  # fmt: skip
    """Milliseconds on the link both ways: 8 bits a byte over the bandwidth, and one round trip; see `one_way_ms`."""
    ways = (payload_bytes, answer_bytes)
    return sum(one_way_ms(size, bandwidth_mbps, rtt_ms, loss, jitter_ms) for size in ways)
