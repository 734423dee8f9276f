"""Token reduction as one matrix per image, Y = W X: pruning has one-hot rows, merging rows that average a group.

The point of view of Token Transforming. Each function gives the W [batch, tokens left, tokens] that the method of that
name applies; the tests hold W X against the methods themselves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.vit_tokens.tome import match


def one_hot(index: Tensor, count: int) -> Tensor:
    """Rows that select: index [batch, m] becomes [batch, m, count]."""
    return F.one_hot(index, count).to(torch.get_default_dtype())


def tome_matrix(metric: Tensor, size: Tensor, r: int, protected: int) -> Tensor:
    """ToMe's W for a metric [batch, tokens, features] and sizes [batch, tokens]."""
    count = metric.shape[1]
    kept, merged, into = match(metric, r, protected)
    stay = one_hot(2 * kept, count)
    odd = torch.arange(1, count, 2, device=metric.device).expand(len(metric), -1)
    members = one_hot(odd, count)
    members = members.scatter_add(1, into[..., None].expand(-1, -1, count), one_hot(2 * merged, count))
    weights = members * size[:, None, :].to(members.dtype)
    return torch.cat([stay, weights / weights.sum(dim=-1, keepdim=True)], dim=1)


def evit_matrix(score: Tensor, keep: int, protected: int, fuse: bool) -> Tensor:
    """EViT's W for the class token's attention to the patches, [batch, patches]; the fused row is not normalised."""
    count = score.shape[1] + protected
    order = score.argsort(dim=-1, descending=True)
    special = torch.arange(protected, device=score.device).expand(len(score), -1)
    rows = [one_hot(torch.cat([special, order[:, :keep] + protected], dim=1), count)]
    if fuse:
        dropped = order[:, keep:]
        rows.append(
            (one_hot(dropped + protected, count) * score.gather(1, dropped)[..., None]).sum(dim=1, keepdim=True)
        )
    return torch.cat(rows, dim=1)


def diffrate_matrix(importance: Tensor, x: Tensor, prune: int, merge: int, protected: int) -> Tensor:
    """DiffRate's W for the importance of the patches [batch, patches] and the features x [batch, tokens, width]."""
    count = x.shape[1]
    index = importance.argsort(dim=-1, descending=True)[:, : prune - protected] + protected
    special = torch.arange(protected, device=x.device).expand(len(x), -1)
    sort = one_hot(torch.cat([special, index], dim=1), count)
    unit = F.normalize(sort.to(x.dtype) @ x, dim=-1)
    pick = (unit[:, merge:] @ unit[:, protected:merge].transpose(-2, -1)).argmax(dim=-1) + protected
    stay = torch.arange(merge, device=x.device).expand(len(x), -1)
    group = one_hot(torch.cat([stay, pick], dim=1), merge).transpose(1, 2)
    return (group / group.sum(dim=-1, keepdim=True)) @ sort
