"""Bytes that are alive, as the instrument sees them."""

from bench.meters.live import record


def live_peak(module, *inputs):
    """Largest sum of what a forward without gradients allocates, in bytes; weights and inputs apart."""
    known = {part.untyped_storage()._cdata for part in [*module.parameters(), *module.buffers(), *inputs]}
    return record(module, inputs, {}, known).peak({}).total


def saved_bytes(call, without=()):
    """Bytes of distinct storages that autograd keeps after the call, and what the call gave."""
    import torch

    seen, known = {}, {part.untyped_storage().data_ptr() for part in without}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = call()
    return sum(size for size, _ in seen.values()), out
