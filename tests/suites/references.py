"""Slow and obvious versions of what suites/ does fast: one image, one token at a time, explicit softmax."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def attention(block, x, bias):
    """Output and (q, k, v) of one block's attention on tokens x [N, C]; bias [N] is added to the logits of the keys."""
    n, c = x.shape
    heads = block.attn.heads
    d = c // heads
    qkv = F.linear(block.norm1(x), block.attn.qkv.weight, block.attn.qkv.bias)
    q, k, v = qkv[:, :c], qkv[:, c : 2 * c], qkv[:, 2 * c :]
    out = torch.zeros(n, c, dtype=x.dtype)
    probabilities = torch.zeros(heads, n, n, dtype=x.dtype)
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        for i in range(n):
            logits = torch.stack([(q[i, part] * k[j, part]).sum() / math.sqrt(d) + bias[j] for j in range(n)])
            probabilities[h, i] = logits.softmax(0)
            out[i, part] = (probabilities[h, i][:, None] * v[:, part]).sum(0)
    split = [t.reshape(n, heads, d) for t in (q, k, v)]
    return F.linear(out, block.attn.proj.weight, block.attn.proj.bias), probabilities, split


def forward(model, image, reduce):
    """Logits of one image [3, H, W]; `reduce(block number, x, size, bias, probabilities, keys)` gives x, size, bias."""
    patches = F.conv2d(image[None], model.patch_embed.proj.weight, model.patch_embed.proj.bias, stride=model.patch)
    patches = patches[0].flatten(1).T
    special = [t[0] for t in (model.cls_token, model.dist_token) if t is not None]
    x = torch.cat([*special, patches]) + model.pos_embed[0]
    size, bias = torch.ones(len(x), dtype=x.dtype), torch.zeros(len(x), dtype=x.dtype)
    counts = []
    for number, block in enumerate(model.blocks, start=1):
        attended, probabilities, (_, k, _) = attention(block, x, bias)
        x = x + attended
        x, size, bias = reduce(number, x, size, bias, probabilities, k)
        x = x + block.mlp(block.norm2(x))
        counts.append(len(x))
    x = model.norm(x)
    if model.head_dist is not None:
        return (model.head(x[0]) + model.head_dist(x[1])) / 2, counts
    return model.head(x[0]), counts


def nothing(number, x, size, bias, probabilities, k):
    return x, size, bias


def tome(merges, protected=1, proportional=True):
    """ToMe with `merges[l]` tokens merged in block l + 1."""

    def reduce(number, x, size, bias, probabilities, k):
        n = len(x)
        r = min(merges[number - 1], (n - protected) // 2)
        if r == 0:
            return x, size, bias  # nothing to merge: the order stays
        metric = k.mean(1)
        even, odd = list(range(0, n, 2)), list(range(1, n, 2))
        best = []
        for a in even:
            if a == 0 and protected > 0:
                continue
            scores = {
                b: float(F.cosine_similarity(metric[a], metric[b], dim=0))
                for b in odd
                if not (b == 1 and protected > 1)
            }
            if scores:
                b = max(scores, key=scores.get)
                best.append((scores[b], a, b))
        going = {a: b for _, a, b in sorted(best, reverse=True)[:r]}
        rows, sizes = [x[a] for a in even if a not in going], [size[a] for a in even if a not in going]
        for b in odd:
            sources = [a for a in going if going[a] == b]
            total = size[b] + sum(size[a] for a in sources)
            rows.append((size[b] * x[b] + sum(size[a] * x[a] for a in sources)) / total)
            sizes.append(total)
        x, size = torch.stack(rows), torch.stack(sizes)
        return x, size, size.log() if proportional else torch.zeros_like(size)

    return reduce


def evit(rate, at, fuse=True, protected=1):
    """EViT with one keep rate at the blocks `at`."""

    def reduce(number, x, size, bias, probabilities, k):
        n = len(x)
        keep = math.ceil(rate * (n - protected))
        if number not in at or keep == n - protected:
            return x, size, bias
        score = {i: float(probabilities[:, 0, i].mean()) for i in range(protected, n)}
        order = sorted(score, key=score.get, reverse=True)
        rows = [x[i] for i in range(protected)] + [x[i] for i in order[:keep]]
        if fuse:
            rows.append(sum(probabilities[:, 0, i].mean() * x[i] for i in order[keep:]))
        x = torch.stack(rows)
        return x, torch.ones(len(x), dtype=x.dtype), torch.zeros(len(x), dtype=x.dtype)

    return reduce


def diffrate(prune, merge, protected=1):
    """DiffRate with given kept counts per block."""

    def reduce(number, x, size, bias, probabilities, k):
        n = len(x)
        p, m = min(n, prune[number - 1]), min(n, prune[number - 1], merge[number - 1])
        if number == 1 or m == n:
            return x, size, bias
        score = {i: float(probabilities[:, 0, i].mean()) for i in range(protected, n)}
        order = [*range(protected), *sorted(score, key=score.get, reverse=True)][:p]
        x, size, bias = x[order], size[order], bias[order]
        if m == p:
            return x, size, bias
        groups = {i: [i] for i in range(m)}
        sizes = [size[i] for i in range(m)]
        for source in range(m, p):
            cosines = {i: float(F.cosine_similarity(x[source], x[i], dim=0)) for i in range(protected, m)}
            into = max(cosines, key=cosines.get)
            groups[into].append(source)
            sizes[into] = sizes[into] + size[source] * cosines[into]
        x = torch.stack([x[members].mean(0) for members in groups.values()])
        size = torch.stack(sizes).clamp(min=1e-6)
        return x, size, size.log()

    return reduce
