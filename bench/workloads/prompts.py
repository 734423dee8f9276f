"""The prompts of `generate`: ids that a subject reads before it writes, of held-out text where it has learned a text.

A network that has learned a text answers noise otherwise than text: other drafts are accepted, other inputs are large,
other experts are chosen. Random ids are for networks of random weights, which do not know the difference.
"""

from __future__ import annotations

from typing import Any

from bench.errors import UsageError
from bench.workloads.workload import Built, Shape, ask

#: Held-out inputs that are asked of a task at once; prompts are cut from them.
PIECES = 64
#: The score of tasks whose inputs are a text, which may be cut anywhere.
TEXT_SCORE = "bits_per_byte"


def prompt_of(subject: Built, shape: Shape) -> Any:
    """The ids [B, N] of the prompt, on the subject's device.

    They are the module's own (`example_ids`), else held-out text of its task, else inputs of its forward, else drawn.

    Raises:
        UsageError: nothing says what ids it reads.
    """
    batch, context = shape["batch"], shape["context"]
    ids = ask(subject.module, "example_ids", batch, context, subject.seed)
    if ids is None:
        ids = held_out(subject, batch, context)
    if ids is None:
        ids = _given_ids(subject, batch, context)
    if ids is None:
        ids = _random_ids(subject.module, batch, context, subject.seed)
    return ids.to(subject.device)


def origin_of(subject: Built, shape: Shape) -> str:
    """Where `prompt_of` takes its ids from, for the record."""
    batch, context = shape["batch"], shape["context"]
    if ask(subject.module, "example_ids", batch, context, subject.seed) is not None:
        return "the subject's own"
    if held_out(subject, 1, context) is not None:
        return f"held-out text of {getattr(subject.task, 'name', 'the task')}"
    return "inputs of its forward" if _given_ids(subject, batch, context) is not None else "random ids"


def held_out(subject: Built, count: int, context: int) -> Any:
    """`count` prompts [count, N] of the task's held-out text, at even distances; None where it has none.

    Pieces that are shorter than a prompt are joined end to end; where there are too few they begin again.
    """
    pieces = _pieces(subject.task)
    if pieces is None:
        return None
    import torch

    if pieces.shape[1] >= context:
        return pieces[torch.arange(count) * len(pieces) // count % len(pieces), :context]
    text = pieces.flatten()
    start = torch.arange(count)[:, None] * len(text) // count
    return text[(start + torch.arange(context)) % len(text)]


def _pieces(task: Any) -> Any:
    """The first held-out pieces of a task's text, ids [pieces, tokens] on the host; None for any other task."""
    if getattr(task, "metric", "") != TEXT_SCORE:
        return None
    import torch

    first = next(iter(task.batches(PIECES)), None)
    ids = first[0] if isinstance(first, list | tuple) and first else None
    if not isinstance(ids, torch.Tensor) or ids.dtype is not torch.int64 or ids.dim() != 2 or ids.is_meta:
        return None
    return ids.cpu() if ids.numel() else None


def _given_ids(subject: Built, batch: int, context: int) -> Any:
    """The inputs of a forward cut to size, if they are ids and enough of them."""
    import torch

    given: Any = subject.args[0] if subject.args else None
    is_ids = isinstance(given, torch.Tensor) and given.dtype is torch.int64 and given.dim() == 2
    if not is_ids or given.shape[0] < batch or given.shape[1] < context:
        return None
    return given[:batch, :context]


def _random_ids(module: Any, batch: int, context: int, seed: int) -> Any:
    import torch

    vocabulary = getattr(module, "vocabulary", None)
    if not isinstance(vocabulary, int):
        raise UsageError(
            f"{type(module).__name__} says nothing of the ids it reads: give it example_ids(batch, context, seed), an "
            f"int vocabulary, or an input of at least {batch} x {context} ids"
        )
    return torch.randint(vocabulary, (batch, context), generator=torch.Generator().manual_seed(seed))
