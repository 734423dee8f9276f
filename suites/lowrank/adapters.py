"""Adapters behind the parts of a BERT layer (Houlsby et al. 2019, arXiv 1902.00751), which alone train."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.finetuning import finetuned, teacher_for
from suites.common.initial import draw
from suites.common.training import classification
from suites.lowrank.digits_bert import layers_of


class Adapter(nn.Module):
    """x + up(gelu(down x)) with an up that starts at zero (Houlsby et al. 2019, 1902.00751); down may be an SNNK."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        first = nn.Linear(width, bottleneck)
        self.down: nn.Module = nn.Sequential(first, nn.GELU())
        self.up = nn.Linear(bottleneck, width)
        draw(first.weight)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return x + self.up(self.down(x))


class Adapted(nn.Module):
    """Attention with an adapter behind it."""

    def __init__(self, attention: nn.Module, behind: Adapter):
        super().__init__()
        self.attention, self.behind = attention, behind

    def forward(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, None]:
        """Attended features [batch, tokens, width]."""
        return self.behind(self.attention(x, seen)[0]), None


def adapter(model: nn.Module, *, bottleneck: PositiveInt = 48, training_steps: Count = 0) -> nn.Module:
    """The BERT with dense adapters after attention and network; they and a classifier train, all else is frozen.

    Args:
        model: a BERT.
        bottleneck: features between down and up.
        training_steps: batches of 32 to learn from; 0 gives a cost and no quality.

    Raises:
        ValueError: a model without BERT layers, or no task to learn from.
    """
    teacher = teacher_for(model, training_steps)
    fresh = with_adapters(model, bottleneck)
    train_only(model, fresh)
    return finetuned(
        model, teacher, adapter, {"bottleneck": bottleneck}, training_steps, loss=classification(model),
        fresh=parameters_of(fresh),
    )  # fmt: skip


def with_adapters(model: nn.Module, bottleneck: int) -> list[Adapter]:
    """The new adapters, put behind attention and network of every BERT layer of the model.

    Raises:
        ValueError: a model without BERT layers, or one with a part cut away.
    """
    made = []
    for layer in layers_of(model):
        like = layer.norm1.weight
        if layer.attn is None or layer.mlp is None:
            raise ValueError("an adapter stands behind attention and network, and a layer lacks one of them")
        first, second = (Adapter(len(like), bottleneck).to(like) for _ in range(2))
        layer.attn, layer.mlp = Adapted(layer.attn, first), nn.Sequential(layer.mlp, second)
        made += [first, second]
    return made


def parameters_of(parts: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters of all parts."""
    return [value for part in parts for value in part.parameters()]


def train_only(model: nn.Module, parts: Iterable[nn.Module]) -> None:
    """Freeze everything but these parts and a classifier."""
    model.requires_grad_(False)
    head = getattr(model, "head", None)
    for part in [*parts, *([head] if isinstance(head, nn.Module) else [])]:
        part.requires_grad_(True)
