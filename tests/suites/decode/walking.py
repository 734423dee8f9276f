"""Small decoders and how tests walk through them."""

import torch

from suites.common.decoder import decoder
from tests.suites.conftest import spread

VOCABULARY = 61


def small(**changes):
    """Two layers, four query heads of 16 and two key heads, random weights that tell tokens apart."""
    settings = {"width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 48, "vocabulary": VOCABULARY}
    torch.manual_seed(0)
    return spread(decoder(**{**settings, **changes})).eval()


def ids_of(batch, tokens, seed=0):
    return torch.randint(VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def walk(model, ids, prompt, seen=None):
    """Logits of the prompt's last position and of each single step after it, [batch, steps + 1, vocabulary].

    `seen(tokens, cache)` is called after the prompt and after each step.
    """
    logits, cache = model.prefill(ids[:, :prompt])
    out = [logits]
    for place in range(prompt, ids.shape[1]):
        if seen is not None:
            seen(place, cache)
        logits, cache = model.decode(ids[:, place : place + 1], cache)
        out.append(logits)
    if seen is not None:
        seen(ids.shape[1], cache)
    return torch.stack(out, dim=1)


def keepers(model):
    return [block.attention.keeper for block in getattr(model, "decoder", model).blocks]
