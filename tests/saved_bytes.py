"""Bytes that autograd keeps for a backward, seen by its own hooks."""

import torch


def saved_bytes(call, without=()):
    """Bytes of distinct storages that autograd keeps after the call, and what the call gave."""
    seen, known = {}, {part.untyped_storage().data_ptr() for part in without}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = call()
    return sum(size for size, _ in seen.values()), out
