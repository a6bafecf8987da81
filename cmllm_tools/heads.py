"""Which heads: numbers, the same in every layer, or (layer, head) pairs."""

from collections.abc import Iterable
from typing import Any

from .errors import CaptureError

Heads = Iterable[int] | Iterable[tuple[int, int]]


def pairs_within(
    heads: Heads | None, layers: Iterable[int] | None
) -> tuple[tuple[tuple[int, int], ...] | None, list[int] | None]:
    """The (layer, head) pairs in `layers` (all when None), or the head numbers; None for each that `heads` are not.

    Raises:
        CaptureError: for numbers and pairs mixed, or pairs of which none is in these layers.
    """
    if heads is None:
        return None, None
    several: list[Any] = list(heads)
    pairs = [head for head in several if isinstance(head, tuple | list)]
    if not pairs:
        return None, [int(head) for head in several]
    if len(pairs) < len(several) or any(len(pair) != 2 for pair in pairs):
        raise CaptureError(f"Heads must be numbers, or (layer, head) pairs throughout; got {several}.")
    wanted = None if layers is None else set(layers)
    within = tuple(dict.fromkeys((int(layer), int(head)) for layer, head in pairs if wanted is None or layer in wanted))
    if not within:
        raise CaptureError(f"At least one (layer, head) pair must be in layers {sorted(wanted or ())}; got {several}.")
    return within, None
