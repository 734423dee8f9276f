"""What a layer keeps of the past, in four forms that hold the same numbers and move different bytes.

Time is the third axis. The slice of time t stands at place t mod length.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Form = Literal["pointer", "mirror", "roll", "cat"]
TIME = 2

#: What a layer remembers: how many slices it was given, and its tensors; none before the first slice.
Entry = list[Any]


def empty() -> Entry:
    """The entry of a layer that has seen nothing."""
    return [0]


class Ring:
    """The last `length` slices; the tensor of an entry is its second element.

    `pointer` overwrites the oldest slice in place; `mirror` writes every slice twice, so that the past is one
    contiguous view; `roll` moves everything by one place and `cat` puts it together anew.
    """

    def __init__(self, length: int, form: Form = "pointer"):
        self.length, self.form = length, form

    def past(self, entry: Entry, like: Tensor) -> list[Tensor]:
        """The kept slices in order of time, in one view or two; zeros where nothing has been seen."""
        if not self.length:
            return []
        if len(entry) == 1:
            places = self.length * (2 if self.form == "mirror" else 1)
            entry.append(like.new_zeros(*like.shape[:TIME], places, *like.shape[TIME + 1 :]))
        kept, oldest = entry[1], entry[0] % self.length
        if self.form == "mirror":
            return [kept.narrow(TIME, oldest, self.length)]
        if self.form == "pointer" and oldest:
            return [kept.narrow(TIME, oldest, self.length - oldest), kept.narrow(TIME, 0, oldest)]
        return [kept]

    def push(self, entry: Entry, new: Tensor) -> None:
        """Keep the new slices; the entry's count rises by as many. `past` comes before."""
        count = new.shape[TIME]
        entry[0] += count
        if not self.length:
            return
        new = new.narrow(TIME, max(0, count - self.length), min(count, self.length))
        if self.form == "cat":
            rest = entry[1].narrow(TIME, new.shape[TIME], self.length - new.shape[TIME])
            entry[1] = torch.cat([rest, new], TIME)
        elif self.form == "roll":
            entry[1] = entry[1].roll(-new.shape[TIME], TIME)
            entry[1].narrow(TIME, self.length - new.shape[TIME], new.shape[TIME]).copy_(new)
        else:
            for half in range(entry[1].shape[TIME] // self.length):
                self._write(entry[1].narrow(TIME, half * self.length, self.length), entry[0], new)

    def _write(self, kept: Tensor, seen: int, new: Tensor) -> None:
        """Write slices whose last has the time `seen` - 1, around the end where they reach it."""
        count = new.shape[TIME]
        start = (seen - count) % self.length
        first = min(count, self.length - start)
        kept.narrow(TIME, start, first).copy_(new.narrow(TIME, 0, first))
        if first < count:
            kept.narrow(TIME, 0, count - first).copy_(new.narrow(TIME, first, count - first))


@torch.inference_mode()  # where it was written in inference mode it can be changed in no other
def forget(state: Any, stream: int) -> None:
    """Zero what the state holds of one stream of the batch, in place; the others are not touched."""
    if isinstance(state, Tensor):
        state[stream] = 0
    elif isinstance(state, list | tuple):
        for each in state:
            forget(each, stream)
