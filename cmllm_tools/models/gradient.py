"""Gradients through a model that may compute in float16, whose smallest numbers a gradient easily falls below."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .finite import all_finite

# Factor on what is differentiated: a power of two, so that nothing is rounded by it. Where a gradient overflows with it,
# it is tried with ever smaller ones.
SCALE = 2.0**16
SMALLER = 2.0**-4


def computes_in_half(model: Any) -> bool:
    """Whether some of a model's computations are in float16: all of them, or those of quantised weights."""
    kinds = (each.dtype for each in model.parameters())
    return torch.float16 in kinds or any(getattr(each, "compute_dtype", None) == torch.float16 for each in model.modules())


def gradients(
    value: torch.Tensor, inputs: Sequence[torch.Tensor], half: bool, retain_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    """The gradient of `value` at each of the inputs, as `rescaled` takes it.

    Args:
        value: a scalar; or (run,), summed, for runs in one batch that do not depend on each other.
        inputs: tensors that it depends on, (run, ...) where it has runs.
        half: see `computes_in_half`.
        retain_graph: keep the graph for another gradient.

    Returns:
        For each input a tensor of its shape.
    """
    # Of a value that is no number, no scale makes the gradient one.
    known = torch.isfinite(value.detach())

    def at(scale: float) -> tuple[torch.Tensor, ...]:
        # A graph is gone after its first use, and an overflow needs another: kept, it takes a little more memory.
        return torch.autograd.grad(value.sum() * scale, inputs, retain_graph=retain_graph or half)

    def good(found: Sequence[torch.Tensor]) -> bool:
        return not bool(known.any()) or _finite([each[known] if value.dim() else each for each in found])

    return rescaled(at, half, good)


def rescaled(
    differentiate: Callable[[float], Sequence[torch.Tensor]],
    half: bool,
    good: Callable[[Sequence[torch.Tensor]], bool] | None = None,
) -> tuple[torch.Tensor, ...]:
    """What a value times a factor gives when it is differentiated, divided by the factor in float32 or wider.

    In float16 a gradient's parts fall below the smallest number, 6e-8, and are lost; in bfloat16 and wider nothing is
    scaled, as their smallest numbers are those of float32.

    Args:
        differentiate: from a factor to the gradients of the value times it.
        half: whether float16 is on the way; see `computes_in_half`.
        good: whether gradients have not overflowed; whether all of them are finite when None.
    """
    if not half:
        return tuple(differentiate(1.0))
    scale, good = SCALE, good or _finite
    while not good(found := differentiate(scale)) and scale > 1:
        scale *= SMALLER
    return tuple(each.to(torch.promote_types(each.dtype, torch.float32)) / scale for each in found)


def _finite(tensors: Sequence[torch.Tensor]) -> bool:
    return all(map(all_finite, tensors))
