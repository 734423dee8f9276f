"""Slow and obvious versions of what suites/ does fast: one image, one token at a time, explicit softmax."""

from __future__ import annotations

import math
from itertools import pairwise

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


def token_transforming(rate, temperature, at, protected=1):
    """Token Transforming as reconstructed here: softmax of cosines of keys, rows centred on what is attended most."""

    def reduce(number, x, size, bias, probabilities, k):
        n = len(x)
        keep = math.ceil(rate * (n - protected))
        if number not in at or keep == n - protected:
            return x, size, bias
        received = {i: float(probabilities[:, :, i].sum()) for i in range(protected, n)}
        chosen = sorted(sorted(received, key=received.get, reverse=True)[:keep])
        keys = k.reshape(n, -1)
        out = [x[i] for i in range(protected)]
        for i in chosen:
            cosine = torch.stack([F.cosine_similarity(keys[i], keys[j], dim=0) for j in range(n)])
            weight = (cosine / temperature).softmax(0)
            out.append(sum(weight[j] * x[j] for j in range(n)))
        return torch.stack(out), torch.ones(len(out)), torch.zeros(len(out), dtype=x.dtype)

    return reduce


def eet(rate, balance, at, protected=1):
    """EET's pruning by feature response and class attention."""

    def reduce(number, x, size, bias, probabilities, k):
        n = len(x)
        keep = math.ceil(rate * (n - protected))
        if number not in at or keep == n - protected:
            return x, size, bias
        attention = torch.stack([probabilities[:, 0, i].mean() for i in range(protected, n)])
        response = torch.stack([x[i].square().sum().sqrt() for i in range(protected, n)])
        score = balance * response / response.sum() + (1 - balance) * attention / attention.sum()
        kept = sorted(score.argsort(descending=True)[:keep].tolist())
        x = x[[*range(protected), *(i + protected for i in kept)]]
        return x, torch.ones(len(x)), torch.zeros(len(x), dtype=x.dtype)

    return reduce


def answer(model, x):
    """Logits of the final tokens [N, C]."""
    x = model.norm(x)
    if model.head_dist is not None:
        return (model.head(x[0]) + model.head_dist(x[1])) / 2
    return model.head(x[0])


def plain_block(block, x):
    """One block with nothing removed."""
    x = x + attention(block, x, torch.zeros(len(x), dtype=x.dtype))[0]
    return x + block.mlp(block.norm2(x))


def dynamicvit(model, image, rho, at):
    """Logits of one image with int(P rho^s) patches kept before the s-th block of `at`."""
    x, special = model.embed(image[None]).x[0], model.protected
    patches = len(x) - special
    for number, block in enumerate(model.blocks, start=1):
        if number in at:
            predictor = block.enter.predictor
            hidden = predictor.enter(x[special:])
            half = hidden.shape[1] // 2
            mean = hidden[:, half:].mean(0)
            score = torch.stack([predictor.leave(torch.cat([h[:half], mean])).log_softmax(0)[0] for h in hidden])
            keep = max(1, int(patches * rho ** (at.index(number) + 1)))
            kept = sorted(score.argsort(descending=True)[:keep].tolist())
            x = x[[*range(special), *(i + special for i in kept)]]
        x = plain_block(block, x)
    return answer(model, x)


def spatten(model, image, at, tokens, heads, values):
    """Logits of one image; pruned heads are silenced instead of removed, importances add up over blocks."""
    x, special = model.embed(image[None]).x[0], model.protected
    count = model.blocks[0].attn.heads
    alive, seen, loud = list(range(count)), torch.zeros(len(x), dtype=x.dtype), torch.zeros(count, dtype=x.dtype)
    for number, block in enumerate(model.blocks, start=1):
        n, d = len(x), x.shape[1] // count
        _, probabilities, (_, _, v) = attention(block, x, torch.zeros(n, dtype=x.dtype))
        joined = torch.zeros(n, count, d, dtype=x.dtype)
        for h in alive:
            rows = probabilities[h].sum(0).argsort(descending=True)[: math.ceil(values * n)]
            joined[:, h] = sum(probabilities[h][:, j, None] * v[j, h] for j in rows.tolist())
            seen = seen + probabilities[h].sum(0)
            loud[h] += joined[:, h].abs().sum()
        x = x + block.attn.proj(joined.flatten(1))
        if number in at:
            keep = math.ceil(tokens * (n - special))
            best = sorted(seen[special:].argsort(descending=True)[:keep].tolist())
            index = [*range(special), *(i + special for i in best)]
            x, seen = x[index], seen[index]
            alive = sorted(alive, key=lambda h: float(loud[h]), reverse=True)[: math.ceil(heads * len(alive))]
        x = x + block.mlp(block.norm2(x))
    return answer(model, x)


def cross(block, query, context):
    """Explicit cross-attention with a plain block's weights, per head."""
    c, heads = query.shape[1], block.attn.heads
    w, b = block.attn.qkv.weight, block.attn.qkv.bias
    q = F.linear(block.norm1(query), w[:c], b[:c])
    k, v = (F.linear(block.norm1(context), w[i * c : (i + 1) * c], b[i * c : (i + 1) * c]) for i in (1, 2))
    d = c // heads
    parts = [slice(h * d, (h + 1) * d) for h in range(heads)]
    return block.attn.proj(torch.cat([(q[:, p] @ k[:, p].T / math.sqrt(d)).softmax(1) @ v[:, p] for p in parts], dim=1))


def cells(grid, side):
    """Means of the cells that a pooling to side x side makes of a square grid of tokens [n, n, C]."""
    n = len(grid)
    edge = [(i * n // side, -(-(i + 1) * n // side)) for i in range(side)]
    return torch.stack([grid[a:b, c:d].mean((0, 1)) for a, b in edge for c, d in edge])


def stvit(model, image, side, base):
    """Logits of one image of a model whose blocks after `base` work on side x side semantic tokens."""
    x = model.embed(image[None]).x[0]
    for block in model.blocks[:base]:
        x = plain_block(block, x)
    first, second = model.blocks[base], model.blocks[base + 1]
    s = cells(x.reshape(model.grid, model.grid, -1), side)
    s = s + cross(first, s, x)
    s = s + first.mlp(first.norm2(s))
    s = s + cross(second, s + second.semantic[0], torch.cat([s, x]))
    s = s + second.mlp(second.norm2(s))
    for block in model.blocks[base + 2 :]:
        s = plain_block(block, s)
    return model.head(model.fc_norm(s.mean(0)))


def lookupvit(model, image, side):
    """Logits of one image: compressed tokens look up, think and write back by the transposed map."""
    lookup = model.embed(image[None]).x[0]
    c = lookup.shape[1]
    square = lookup.T.reshape(1, c, model.grid, model.grid)
    small = F.interpolate(square, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    compressed = small[0].flatten(1).T
    for block in model.blocks:
        q, kv = block.q(block.norm_compressed(compressed)), block.kv(block.norm_lookup(lookup))
        d = c // block.heads
        parts = [slice(h * d, (h + 1) * d) for h in range(block.heads)]
        maps = [(q[:, p] @ kv[:, :c][:, p].T / math.sqrt(d)).softmax(1) for p in parts]
        gathered = [a @ kv[:, c:][:, p] for a, p in zip(maps, parts, strict=True)]
        compressed = plain_block(block.block, compressed + block.out(torch.cat(gathered, 1)))
        v = block.v_back(block.norm_back(compressed))
        back = [a.T / a.T.sum(1, keepdim=True) @ v[:, p] for a, p in zip(maps, parts, strict=True)]
        lookup = lookup + block.out_back(torch.cat(back, 1))
        lookup = lookup + block.mlp(block.norm_mlp(lookup))
    both = model.reader
    by_compressed = both.head(both.norm(compressed.mean(0)))
    return (by_compressed + both.head_lookup(both.norm_lookup(lookup.mean(0)))) / 2


def scan(direction, x, gaps):
    """One direction of a selective scan over x [N, inner], token by token; its state decays once per step of a gap."""
    n, inner = x.shape
    padded = torch.cat([torch.zeros(3, inner, dtype=x.dtype), x])
    weight = direction.conv.weight[:, 0]
    x = F.silu(torch.stack([(padded[t : t + 4] * weight.T).sum(0) + direction.conv.bias for t in range(n)]))
    state, out = torch.zeros(inner, direction.state, dtype=x.dtype), []
    for t in range(n):
        low, b, c = direction.select(x[t]).split([direction.rank, direction.state, direction.state])
        step = F.softplus(direction.step(low))
        for _ in range(int(gaps[t])):
            state = torch.exp(-step[:, None] * direction.log_a.exp()) * state
        state = state + (step * x[t])[:, None] * b
        out.append(state @ c + direction.skip * x[t])
    return torch.stack(out)


def topvim(model, image, rate, at, alignment):
    """Logits of one image of a scan network that drops its least active patches after the blocks `at`."""
    x = (model.patch_embed(image[None]) + model.pos_embed)[0]
    place = list(range(len(x)))
    for number, block in enumerate(model.blocks, start=1):
        inner, gate = block.enter(block.norm(x)).chunk(2, dim=-1)
        steps = [b - a for a, b in pairwise(place)] if alignment == "decay" else [1] * (len(x) - 1)
        y = scan(block.forth, inner, [1, *steps])
        y = y + scan(block.back, inner.flip(0), [1, *steps[::-1]]).flip(0)
        x = x + block.leave(y * F.silu(gate))
        if number in at:
            score = torch.tensor([sum(max(0.0, float(v)) for v in token) for token in y])
            kept = sorted(score.argsort(descending=True)[: math.ceil(rate * len(x))].tolist())
            x, place = x[kept], [place[i] for i in kept]
    return model.head(model.norm(x).mean(0))
