"""How much a weight, a channel or a unit is worth: the scores of this suite, each a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suites.pruning.groups import Group


def magnitude(weight: Tensor) -> Tensor:
    """|w|."""
    return weight.detach().abs()


#: How single weights are chosen: by size, or at random with a fixed seed, which is the control.
Choice = Literal["magnitude", "random"]


def chosen_by(choice: Choice, weight: Tensor) -> Tensor:
    """|w|, or numbers that know nothing of the weight and are the same for the same shape on every machine."""
    if choice == "magnitude" or weight.is_meta:
        return magnitude(weight)
    generator = torch.Generator().manual_seed(weight.numel())
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def wanda(weight: Tensor, square_sums: Tensor) -> Tensor:
    """|w| x ||x_column||_2 of a linear layer (Sun et al. 2024, arXiv:2306.11695, formula 1).

    Args:
        weight: [outputs, inputs].
        square_sums: sum over calibration tokens of the squared inputs, [inputs].
    """
    return weight.detach().abs() * square_sums.sqrt()


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """|w g|, the first-order change of the loss."""
    return (weight.detach() * gradient).abs()


def filter_l1(model: nn.Module, group: Group) -> Tensor:
    """Sum of |w| of each filter over all members that make the group's channels, [size] (Li et al. 2017)."""
    return filter_sums({path: magnitude(model.get_submodule(path).weight) for path, _, _ in group.outs}, group)  # type: ignore[arg-type]


def filter_sums(worth: Mapping[str, Tensor], group: Group) -> Tensor:
    """Sum of each filter's `worth`, of weights by the name of their layer, over the group's members, [size]."""
    stretches = [worth[path][offset : offset + group.size] for path, _, offset in group.outs]
    return torch.stack([stretch.flatten(1).sum(1) for stretch in stretches]).sum(0)


def gains(model: nn.Module, group: Group) -> Tensor:
    """|gamma| of each channel, the largest over the group's members, [size].

    Raises:
        ValueError: a member has no norm.
    """
    found = []
    for path, norm, offset in group.outs:
        if not norm:
            raise ValueError(f"{path} has no batch norm: a score of gains needs one behind every convolution")
        weight = model.get_submodule(norm).weight.detach()  # type: ignore[operator]
        found.append(weight[offset : offset + group.size].abs())
    return torch.stack(found).amax(0)


def beta_rank(conv: nn.Conv2d, x: Tensor, as_released: bool = False) -> Tensor:
    """Mean over weights of the sum over places of |W_k| a / b, min-max normalised, [outputs].

    a(k, y, x) is the deviation over the batch of output k at a place, b(y, x) that of the input window that feeds it
    over channels, rows, columns and batch; places where b is not above zero are skipped.

    Source: arXiv:2304.07461, section 3.

    Args:
        conv: of one group.
        x: its input, [batch, channels, height, width].
        as_released: windows over channels and rows instead of rows and columns, as the authors' code slices them;
            places without such a channel are skipped.
    """
    with torch.no_grad():
        outputs = conv(x).float()
        a = outputs.std(dim=0, unbiased=False)
        b = window_deviation(conv, x.float(), as_released)
        ratio = torch.where(b > 0, a / b.clamp(min=torch.finfo(b.dtype).tiny), torch.zeros_like(a))
        score = conv.weight.float().abs().flatten(1).mean(1) * ratio.sum(dim=(1, 2))
    return min_max(score)


def window_deviation(conv: nn.Conv2d, x: Tensor, as_released: bool = False) -> Tensor:
    """Deviation of the window that feeds each place, over channels, window and batch, [height, width]."""
    size = conv(x[:1].to(conv.weight.dtype)).shape[-2:]
    if as_released:
        return _released_deviation(conv, x, size)
    windows = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # type: ignore[arg-type]
    return windows.transpose(0, 1).flatten(0, 1).std(dim=0, unbiased=False).view(size)


def _released_deviation(conv: nn.Conv2d, x: Tensor, size: torch.Size) -> Tensor:
    """The same of windows that begin at channel y and row x of the padded maps, zero where there is no such channel."""
    padded = F.pad(x, [int(conv.padding[1])] * 2 + [int(conv.padding[0])] * 2)
    (high, wide), (down, right) = conv.kernel_size, conv.stride
    found = x.new_zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            channels, rows = slice(row * down, row * down + high), slice(column * right, column * right + wide)
            window = padded[:, channels, rows]
            if window.numel():
                found[row, column] = window.std(unbiased=False)
    return found


def min_max(score: Tensor) -> Tensor:
    """Scores on 0 .. 1; zeros where all are equal."""
    span = score.max() - score.min()
    return (score - score.min()) / span if span > 0 else torch.zeros_like(score)


def hessian_group(weights_and_gradients: Iterable[tuple[Tensor, Tensor]]) -> float:
    """(sum of w g over all linked weights)^2: summed first, then squared (NViT, arXiv:2110.04869, formula 8)."""
    return float(sum((weight * gradient).sum() for weight, gradient in weights_and_gradients)) ** 2


def top(scores: Tensor, count: int) -> Tensor:
    """Places of the `count` largest scores, in rising order."""
    return scores.topk(count).indices.sort().values
