"""Gradient checkpointing of the replayed layers: their activations are computed again in the backward pass, not kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint


class _Renewed(AbstractContextManager):
    """A context made anew each time it is entered, as a graph that is kept is computed again in every backward pass."""

    def __init__(self, make: Callable[[], AbstractContextManager]):
        self.make = make

    def __enter__(self) -> None:
        self.context = self.make()
        self.context.__enter__()

    def __exit__(self, *raised: Any) -> bool | None:
        return self.context.__exit__(*raised)


@contextmanager
def checkpointed(layers: Sequence[Any], again: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """While open, the layers' forward calls keep their inputs only.

    transformers' own switch works in training mode only, which would turn dropout on.

    Args:
        layers: modules whose forward is to be checkpointed.
        again: makes the context in which a layer is computed again; it must do there just what it did the first time.
    """
    own = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, context_fn=lambda: (nullcontext(), _Renewed(again))
            )
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            if forward is None:
                vars(layer).pop("forward", None)
            else:
                layer.forward = forward
