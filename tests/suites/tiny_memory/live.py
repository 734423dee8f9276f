"""Bytes that are alive, as the instrument sees them."""

from bench.meters.live import record


def live_peak(module, *inputs):
    """Largest sum of what a forward without gradients allocates, in bytes; weights and inputs apart."""
    known = {part.untyped_storage()._cdata for part in [*module.parameters(), *module.buffers(), *inputs]}
    return record(module, inputs, {}, known).peak({}).total
