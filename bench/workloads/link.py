"""How long bytes take on a link, in closed form."""

from __future__ import annotations


def one_way_ms(size: float, bandwidth_mbps: float, rtt_ms: float) -> float:
    """Milliseconds of so many bytes one way: 8 bits a byte over the bandwidth, and half a round trip."""
    return 8e3 * size / (bandwidth_mbps * 1e6) + rtt_ms / 2


def link_ms(payload_bytes: float, answer_bytes: float, bandwidth_mbps: float, rtt_ms: float) -> float:
    """Milliseconds on the link both ways: 8 bits a byte over the bandwidth, and one round trip."""
    return one_way_ms(payload_bytes, bandwidth_mbps, rtt_ms) + one_way_ms(answer_bytes, bandwidth_mbps, rtt_ms)
