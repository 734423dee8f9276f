"""A decoder written out position by position and head by head, in double precision: slow, and obvious."""

import torch


def rms(x, norm):
    return x / torch.sqrt((x * x).mean() + 1e-6) * norm.weight


def turned(x, place, base=10_000.0):
    """Pairs (i, i + size / 2) as complex numbers, multiplied by exp(i angle)."""
    half = len(x) // 2
    angles = torch.tensor([place * base ** (-2 * i / len(x)) for i in range(half)], dtype=x.dtype)
    z = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([z.real, z.imag])


def silu(x):
    return x / (1 + torch.exp(-x))


def gated(network, x):
    return network.down.weight @ (silu(network.gate.weight @ x) * (network.up.weight @ x))


def linear(layer, x):
    return layer.weight @ x if layer.bias is None else layer.weight @ x + layer.bias


def plain_heads(attention, xs):
    """Queries, keys and values as lists by head and position."""
    q, k, v = [], [], []
    for place, x in enumerate(xs):
        parts = [linear(part, x).split(attention.head) for part in (attention.q, attention.k, attention.v)]
        queries, keys = parts[0], parts[1]
        if attention.q_norm is not None:
            queries = [rms(h, attention.q_norm) for h in queries]
            keys = [rms(h, attention.k_norm) for h in keys]
        q.append([turned(h, place) for h in queries])
        k.append([turned(h, place) for h in keys])
        v.append(parts[2])
    share = attention.heads // attention.kv_heads
    return [
        ([row[h] for row in q], [row[h // share] for row in k], [row[h // share] for row in v])
        for h in range(attention.heads)
    ], attention.head**-0.5


def latent_heads(attention, xs):
    size = attention.size
    heads = [([], [], []) for _ in range(attention.heads)]
    for place, x in enumerate(xs):
        inner = x if attention.q_down is None else rms(attention.q_down.weight @ x, attention.q_norm)
        queries = (attention.q.weight @ inner).reshape(attention.heads, -1)
        down = attention.down.weight @ x
        c, pe = rms(down[: size.rank], attention.norm), turned(down[size.rank :], place)
        both = (attention.up.weight @ c).reshape(attention.heads, -1)
        for h, (q, k, v) in enumerate(heads):
            q.append(torch.cat([queries[h, : size.nope], turned(queries[h, size.nope :], place)]))
            k.append(torch.cat([both[h, : size.nope], pe]))
            v.append(both[h, size.nope :])
    return heads, (size.nope + size.rope) ** -0.5


def attended(attention, xs, sees):
    """The attention's output at each position; `sees(i, j)` says whether position i looks at j."""
    heads, scale = (latent_heads if hasattr(attention, "up") else plain_heads)(attention, xs)
    out = []
    for i in range(len(xs)):
        parts = []
        for q, k, v in heads:
            seen = [j for j in range(i + 1) if sees(i, j)]
            weights = torch.stack([torch.exp(q[i] @ k[j] * scale) for j in seen])
            weights = weights / weights.sum()
            parts.append(sum(w * v[j] for w, j in zip(weights, seen, strict=True)))
        out.append(attention.out.weight @ torch.cat(parts))
    return out


def mixture(network, x):
    """Gate by definition, one expert after the other."""
    e = network.experts
    logits = network.router.weight @ x
    scores = 1 / (1 + torch.exp(-logits)) if e.gate == "sigmoid" else torch.exp(logits) / torch.exp(logits).sum()
    ranking = (scores if network.router.bias is None else scores + network.router.bias).tolist()
    size = e.count // e.groups
    best = 2 if e.gate == "sigmoid" else 1
    strength = [sum(sorted(ranking[g * size : (g + 1) * size])[-best:]) for g in range(e.groups)]
    groups = sorted(range(e.groups), key=lambda g: -strength[g])[: e.kept_groups]
    candidates = [i for i in range(e.count) if i // size in groups]
    chosen = sorted(candidates, key=lambda i: -ranking[i])[: e.chosen]
    total = sum(scores[i] for i in chosen) if e.gate == "sigmoid" else 1.0
    out = torch.zeros_like(x)
    for i in chosen:
        gate, up = (network.gate_up[i] @ x).chunk(2)
        out = out + e.scale * scores[i] / total * (network.down[i] @ (silu(gate) * up))
    return out if network.shared is None else out + gated(network.shared, x)


def logits(model, ids, sees=lambda i, j: True):
    """Logits of every position of one sequence, [tokens, vocabulary]."""
    xs = [model.embed.weight[i] for i in ids.tolist()]
    for block in model.blocks:
        added = attended(block.attention, [rms(x, block.norm1) for x in xs], sees)
        xs = [x + a for x, a in zip(xs, added, strict=True)]
        network = mixture if hasattr(block.network, "router") else gated
        xs = [x + network(block.network, rms(x, block.norm2)) for x in xs]
    return torch.stack([model.head.weight @ rms(x, model.norm) for x in xs])
