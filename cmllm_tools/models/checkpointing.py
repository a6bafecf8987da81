"""Gradient checkpointing of the replayed layers: their activations are computed again in the backward pass, not kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from .hooks import forwards_replaced
from .interrupts import Restoring, restoring


@restoring
def checkpointed(layers: Sequence[Any], again: Callable[[], Restoring[None]]) -> Iterator[None]:
    """While open, the layers' forward calls keep their inputs only.

    transformers' own switch works in training mode only, which would turn dropout on.

    Args:
        layers: modules whose forward is to be checkpointed.
        again: makes the context in which a layer is computed again; it must do there just what it did the first time. It is
            entered anew in every backward pass through a graph that is kept.
    """

    def kept_small(layer: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        return partial(checkpoint, forward, use_reentrant=False, context_fn=lambda: (nullcontext(), again()))

    with forwards_replaced(layers, kept_small):
        yield
