"""The rows beside the systems: everything, last blocks alone, autocast, and activations kept on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from bench.config.settings import Count, PositiveInt
from suites.common.counted_run import CountedRun
from suites.common.from_scratch import learned
from suites.common.gpt import Gpt, as_gpt


def frozen(model: nn.Module, *, last: PositiveInt = 2, training_steps: Count = 0) -> Gpt:
    """The GPT of which the last blocks, the last norm and the head train; a tied table trains as a head alone.

    Args:
        model: a GPT of suites.common.gpt.
        last: how many blocks.
        training_steps: batches of 16 to fine-tune on; 0 gives a cost.

    Raises:
        ValueError: not such a model, more blocks than there are, or no task to learn from.
    """
    gpt = as_gpt(model, "frozen")
    if last > len(gpt.blocks):
        raise ValueError(f"last={last}: the model has {len(gpt.blocks)} blocks")
    gpt.requires_grad_(False)
    gpt.detach_lookup = True
    for part in [*gpt.blocks[-last:], gpt.norm, gpt.head]:
        part.requires_grad_(True)
    found = learned(gpt, gpt, frozen, {"last": last}, training_steps, CountedRun(), from_start=False)
    return as_gpt(found, "frozen")


def full(model: nn.Module, *, training_steps: Count = 0) -> nn.Module:
    """The network of which everything trains: the control, which learns as long.

    Args:
        model: any network.
        training_steps: batches of 16 to fine-tune on; 0 leaves it as it is.

    Raises:
        ValueError: no task to learn from.
    """
    return learned(model, model, full, {}, training_steps, CountedRun(), from_start=False).eval()


class Wrapped(nn.Module):
    """A module whose forward runs inside a context; loss, targets and the rest are its own."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def context(self) -> Any:
        """What the forward runs inside."""
        raise NotImplementedError(f"{type(self).__name__} does not define context")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module gives."""
        with self.context():
            return self.inner(*args, **kwargs)


class _Autocast(Wrapped):
    def context(self) -> Any:
        """Products in bfloat16."""
        kind = next(self.inner.parameters()).device.type
        return torch.autocast("cpu" if kind == "meta" else kind, dtype=torch.bfloat16)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module gives, in the dtype of its weights, so that the loss is taken in it."""
        return super().forward(*args, **kwargs).to(next(self.inner.parameters()).dtype)


class _OnHost(Wrapped):
    def __init__(self, inner: nn.Module):
        super().__init__(inner)
        self.saved, self.copied = 0, 0

    def context(self) -> Any:
        """Saved tensors on the host; what torch's hooks are given is counted, since no others are called inside."""
        first = next(self.inner.parameters())
        hooks = torch.autograd.graph.save_on_cpu(pin_memory=first.is_cuda)
        weights = {part.untyped_storage()._cdata for part in [*self.inner.parameters(), *self.inner.buffers()]}
        pack, seen = hooks.pack_hook, dict[int, StorageWeakRef]()  # an address that is held is no other storage's
        self.saved, self.copied = 0, 0

        def counted(tensor: Tensor) -> Any:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights and storage._cdata not in seen and tensor.is_floating_point():
                seen[storage._cdata] = StorageWeakRef(storage)
                self.saved += storage.nbytes()
            self.copied += tensor.nbytes if tensor.is_cuda else 0
            return pack(tensor)

        hooks.pack_hook = counted
        return hooks

    def saved_elsewhere(self) -> dict[str, Any]:
        """What the last forward saved, and copied to the host, for `training_step`."""
        note = "copied each time that it is saved, weights too; nothing is where the network is on the host itself"
        return {"saved": self.saved, "offloaded": self.copied, "waited_s": None, "note": note}


def bf16(model: nn.Module) -> nn.Module:
    """The model under autocast to bfloat16; weights and optimizer stay as they are."""
    return _Autocast(model).eval()


def save_on_cpu(model: nn.Module) -> nn.Module:
    """The model whose saved tensors are copied to the host until the backward, parameters too; torch's own."""
    return _OnHost(model).eval()
