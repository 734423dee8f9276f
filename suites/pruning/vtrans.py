"""VTrans: variational gates on hidden dimensions, heads, MLP features and layers close what carries no information.

Source: Dutta et al. 2024, arXiv:2406.05276; the layer as in its successor's description: z = mu + eps exp(logvar / 2)
multiplies activations, KL = 1/2 sum log(1 + mu^2 / exp(logvar)), a unit dies when logvar - log mu^2 > 0. Size by a
constraint l1 (s - t) + l2 (s - t)^2 with l1, l2 trained by ascent. Reconstruction: rates and schedule are ours, and
units that live are closed by their noise as well until the target is met, which gates alone take longer to reach.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate
from suites.common.finetuning import teacher_for
from suites.common.training import Loss, taught
from suites.pruning.learning import BATCH, Pace, fit, once, task_of
from suites.pruning.transformers import blocks_of, cut_hidden, cut_units

SHARPNESS = 10.0


class Bottleneck(nn.Module):
    """A gate per unit: drawn while it learns, mu afterwards."""

    charged_to = "method"

    def __init__(self, units: int):
        super().__init__()
        self.mu = nn.Parameter(1 + 0.01 * torch.randn(units))
        self.logvar = nn.Parameter(-9 + 0.01 * torch.randn(units))

    def forward(self) -> Tensor:
        """Gates, [units]."""
        if not self.training:
            return self.mu
        return self.mu + torch.randn_like(self.mu) * (0.5 * self.logvar).exp()

    def noise(self) -> Tensor:
        """log(variance / mu^2), [units]; above 0 the unit dies."""
        return self.logvar - (self.mu**2 + 1e-12).log()

    def divergence(self) -> Tensor:
        """1/2 sum log(1 + mu^2 / variance)."""
        return 0.5 * torch.log1p(self.mu**2 / self.logvar.exp()).sum()

    def alive(self) -> Tensor:
        """How open each unit is, softly, [units]."""
        return (-SHARPNESS * self.noise()).sigmoid()

    def soft(self) -> Tensor:
        """How many units are open, softly."""
        return self.alive().sum()


class Gates(nn.Module):
    """Gates at every site: hidden dimensions of the whole network, heads and features of each block, and its layers.

    `layers` are attention, MLP, attention, MLP, ... of the blocks in order.
    """

    def __init__(self, model: nn.Module, blocks: list[nn.Module]):
        super().__init__()
        self.hidden = Bottleneck(int(model.width))  # type: ignore[arg-type]
        self.heads = nn.ModuleList(Bottleneck(int(b.attn.heads)) for b in blocks)  # type: ignore[union-attr, arg-type]
        self.ffn = nn.ModuleList(Bottleneck(int(b.mlp.fc1.out_features)) for b in blocks)  # type: ignore[union-attr, arg-type]
        self.layers = Bottleneck(2 * len(blocks))

    def every(self) -> list[Bottleneck]:
        """All sites."""
        return [self.hidden, *self.heads, *self.ffn, self.layers]

    def size(self, blocks: list[nn.Module]) -> Tensor:
        """Soft share of the blocks' weights that is open."""
        d = self.hidden.soft() / len(self.hidden.mu)
        there = self.layers.alive().view(-1, 2)
        open_, total = self.hidden.mu.new_zeros(()), 0
        for block, heads, ffn, (attends, maps) in zip(blocks, self.heads, self.ffn, there, strict=True):
            a = block.attn.qkv.weight.numel() + block.attn.proj.weight.numel()  # type: ignore[union-attr, operator]
            m = block.mlp.fc1.weight.numel() + block.mlp.fc2.weight.numel()  # type: ignore[union-attr, operator]
            open_ = open_ + a * d * attends * heads.soft() / len(heads.mu)  # type: ignore[operator, arg-type]
            open_ = open_ + m * d * maps * ffn.soft() / len(ffn.mu)  # type: ignore[operator, arg-type]
            total += a + m
        return open_ / total

    def sites(self) -> dict[str, Bottleneck]:
        """All sites by name."""
        found = {"hidden": self.hidden, "layers": self.layers}
        for i, (heads, ffn) in enumerate(zip(self.heads, self.ffn, strict=True)):
            found[f"heads.{i}"], found[f"ffn.{i}"] = heads, ffn  # type: ignore[assignment]
        return found

    def write(self, blocks: list[nn.Module]) -> None:
        """Draw the gates of heads, features and layers into the blocks for one forward."""
        for block, heads, ffn, (attends, maps) in zip(
            blocks, self.heads, self.ffn, self.layers().view(-1, 2), strict=True
        ):
            block.attn.head_gate, block.mlp.gate = heads() * attends, ffn() * maps  # type: ignore[union-attr]


def vtrans(
    model: nn.Module,
    *,
    keep: KeepRate = 0.5,
    variant: Literal["full", "fast", "faster"] = "faster",
    hidden: bool = True,
    steps: Count = 300,
    tuning: Count = 200,
    beta: float = 1e-5,
) -> nn.Module:
    """A transformer without the units whose gates closed while a constraint on its size was learned.

    Args:
        model: a ViT, BERT or GPT, loaded by a task.
        keep: target share of the blocks' weights.
        variant: `full` trains weights and gates, `fast` does so on 3 % of the batches, `faster` trains gates alone.
        hidden: whether hidden dimensions of the whole network may go.
        steps: batches of gates; 0 leaves all of them open.
        tuning: batches of the cut network.
        beta: weight of the divergence.

    Raises:
        ValueError: another network, or steps without a task.
    """
    blocks = blocks_of(model, "vtrans")
    kept: dict[str, Tensor] = {}

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        kept.update(_learn(model, blocks, keep, variant, hidden, steps, beta, cost) if steps else _all(model, blocks))
        apply_gates(model, blocks, kept)
        cost.samples += tuning * BATCH
        if tuning:
            teacher = kept_teacher.pop()
            batches = task_of(model, "vtrans").training_batches(BATCH, tuning, 8)
            fit(model, batches, told(model, teacher), Pace(tuning, 1e-3))
        return {**{f"kept.{name}": places for name, places in kept.items()}, **model.state_dict()}

    teacher = teacher_for(model, tuning)
    kept_teacher = [] if teacher is None else [teacher]
    key = {"keep": keep, "variant": variant, "hidden": hidden, "steps": [steps, tuning], "beta": beta}
    found = once(model, vtrans, key, make)
    places = {name.removeprefix("kept."): found.pop(name) for name in list(found) if name.startswith("kept.")}
    if not kept:
        apply_gates(model, blocks, places)
    model.load_state_dict(found)
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def told(model: nn.Module, teacher: nn.Module) -> Loss:
    """Cross-entropy and the teacher's answers, of pictures and of every place of a text alike."""

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(inputs).flatten(0, -2)
        return taught(model(inputs).flatten(0, -2), labels.flatten(), wanted)

    return loss


def _all(model: nn.Module, blocks: list[nn.Module]) -> dict[str, Tensor]:
    """Every unit of every site."""
    found = {"hidden": torch.arange(int(model.width), device="cpu")}  # type: ignore[arg-type]
    for i, block in enumerate(blocks):
        found[f"heads.{i}"] = torch.arange(int(block.attn.heads), device="cpu")  # type: ignore[union-attr, arg-type]
        found[f"ffn.{i}"] = torch.arange(int(block.mlp.fc1.out_features), device="cpu")  # type: ignore[union-attr, arg-type]
    return found


def _learn(
    model: nn.Module, blocks: list[nn.Module], keep: float, variant: str, hidden: bool, steps: int, beta: float,
    cost: costs.Cost,
) -> dict[str, Tensor]:  # fmt: skip
    """Train gates (and weights); the open units of every site, their mu folded into the next weights."""
    torch.manual_seed(0)
    gates, plain = Gates(model, blocks), nn.CrossEntropyLoss()
    pull = nn.Parameter(torch.zeros(2))  # l1 and l2 climb: their gradient is turned round
    pull.register_hook(torch.neg)
    task, done = task_of(model, "vtrans(steps)"), 0
    count = max(1, int(steps * 0.03)) if variant == "fast" else steps
    hooks = _gate_hidden(model, gates) if hidden else []
    learns = [p.requires_grad for p in model.parameters()]
    if variant == "faster":
        model.requires_grad_(False)

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal done
        done += 1
        target = 1 - (1 - keep) * min(1.0, done / (0.6 * count))
        gates.write(blocks)
        value = plain(model(inputs).flatten(0, -2), labels.flatten())
        over = gates.size(blocks) - target
        return value + beta * sum(g.divergence() for g in gates.every()) + pull[0] * over + (1 + pull[1]) * 50 * over**2

    learner = nn.ModuleList([model, gates])
    learner.register_parameter("pull", pull)
    cost.samples += count * BATCH
    fit(learner, task.training_batches(BATCH, count, 6), loss, Pace(count, 3e-4, 5e-2), [*gates.parameters(), pull])
    for parameter, learned in zip(model.parameters(), learns, strict=True):
        parameter.requires_grad_(learned)
    for hook in hooks:
        hook.remove()
    return _absorbed(model, blocks, gates, keep, hidden)


def _gate_hidden(model: nn.Module, gates: Gates) -> list[torch.utils.hooks.RemovableHandle]:
    """One vector multiplies what every norm gives on, which is what all hidden features pass through."""
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    return [norm.register_forward_hook(lambda _m, _i, out: out * gates.hidden()) for norm in norms]


@torch.no_grad()
def _absorbed(model: nn.Module, blocks: list[nn.Module], gates: Gates, keep: float, hidden: bool) -> dict[str, Tensor]:
    """Fold mu into the weights behind each gate and say which units stay: those that live, none in a closed layer."""
    gates.eval()
    lives = living(gates, blocks, keep, hidden)
    found = {"hidden": torch.arange(len(gates.hidden.mu))}
    if hidden:
        for norm in (part for part in model.modules() if isinstance(part, nn.LayerNorm)):
            norm.weight.mul_(gates.hidden.mu)
            norm.bias.mul_(gates.hidden.mu)
        found["hidden"] = lives["hidden"].nonzero()[:, 0]
    for i, block in enumerate(blocks):
        heads, ffn = gates.heads[i], gates.ffn[i]
        attends, maps = gates.layers.mu[2 * i], gates.layers.mu[2 * i + 1]
        spread = (heads.mu * attends).repeat_interleave(int(block.attn.v))  # type: ignore[union-attr, arg-type, operator]
        block.attn.proj.weight.mul_(spread)  # type: ignore[union-attr, operator]
        block.mlp.fc2.weight.mul_(ffn.mu * maps)  # type: ignore[union-attr, operator]
        block.attn.head_gate, block.mlp.gate = None, None  # type: ignore[union-attr]
        for place, site in enumerate((f"heads.{i}", f"ffn.{i}")):
            found[site] = (lives[site] & lives["layers"][2 * i + place]).nonzero()[:, 0]
    return found


def living(gates: Gates, blocks: list[nn.Module], keep: float, hidden: bool) -> dict[str, Tensor]:
    """Which units of each site live: those of less noise than signal, and of them the least noisy, down to the target.

    Args:
        gates: as learned.
        blocks: of the transformer.
        keep: share of the blocks' weights.
        hidden: whether hidden dimensions may go.
    """
    noise = {name: site.noise().detach() for name, site in gates.sites().items() if hidden or name != "hidden"}
    lives = {name: value <= 0 for name, value in noise.items()}
    lives.setdefault("hidden", torch.ones(len(gates.hidden.mu), dtype=torch.bool))
    for name, value in noise.items():
        lives[name][value.argmin()] = True
    order = sorted(((float(v), name, i) for name, value in noise.items() for i, v in enumerate(value)), reverse=True)
    for _, name, unit in order:
        if share_of(blocks, lives) <= keep:
            break
        if int(lives[name].sum()) > 1:
            lives[name][unit] = False
    return lives


def share_of(blocks: list[nn.Module], lives: dict[str, Tensor]) -> float:
    """Share of the blocks' weights that units which live have."""
    open_, total = 0.0, 0
    for i, block in enumerate(blocks):
        for place, (part, site) in enumerate(((block.attn, f"heads.{i}"), (block.mlp, f"ffn.{i}"))):
            linears = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]
            size = sum(layer.weight.numel() for layer in linears)
            open_ += size * float(lives[site].float().mean()) * float(lives["layers"][2 * i + place])
            total += size
    return open_ / total * float(lives["hidden"].float().mean())


def apply_gates(model: nn.Module, blocks: list[nn.Module], kept: dict[str, Tensor]) -> None:
    """Cut a transformer to the given units of every site."""
    if len(kept["hidden"]) < int(model.width):  # type: ignore[arg-type]
        cut_hidden(model, kept["hidden"])
    for i, block in enumerate(blocks):
        cut_units(block, kept[f"heads.{i}"], kept[f"ffn.{i}"])
