"""Which heads: numbers, the same in every layer, or (layer, head) pairs."""

from collections.abc import Iterable
from typing import Any

from ..errors import CaptureError, CmllmError
from ..strict import several, shown, whole_number, whole_numbers

Heads = Iterable[int] | Iterable[tuple[int, int]]
Chosen = tuple[int, ...] | tuple[tuple[int, int], ...]


def as_heads(heads: Heads | None, error: type[CmllmError] = CaptureError) -> Chosen | None:
    """Numbers or pairs as a tuple that can be read again, each once; None for all.

    Raises:
        error: for anything else: texts, masks of booleans, numbers and pairs mixed.
    """
    if heads is None:
        return None
    found = several(heads, "Heads must be several numbers, or (layer, head) pairs, as (0, 1)", error)
    throughout = "Heads must be numbers, or (layer, head) pairs throughout"
    pairs = [several(head, throughout, error) for head in found if _is_pair(head)]
    if not pairs:
        return tuple(dict.fromkeys(whole_numbers(found, "the heads", error=error)))
    if len(pairs) < len(found) or any(len(pair) != 2 for pair in pairs):
        raise error(f"{throughout}; got {shown(list(found))}.")
    read = (
        (
            whole_number(layer, "The layer of each (layer, head) pair", error=error),
            whole_number(head, "The head of each (layer, head) pair", error=error),
        )
        for layer, head in pairs
    )
    return tuple(dict.fromkeys(read))


def pairs_within(
    heads: Heads | None, layers: Iterable[int] | None
) -> tuple[tuple[tuple[int, int], ...] | None, list[int] | None]:
    """The (layer, head) pairs in `layers` (all when None), or the head numbers; None for each that `heads` are not.

    Raises:
        CaptureError: for what are no heads, or pairs of which none is in these layers.
    """
    found: Any = as_heads(heads)
    if found is None:
        return None, None
    if not found or not isinstance(found[0], tuple):
        return None, list(found)
    wanted = None if layers is None else set(whole_numbers(layers, "the layers", error=CaptureError))
    within = tuple(pair for pair in found if wanted is None or pair[0] in wanted)
    if not within:
        raise CaptureError(
            f"At least one (layer, head) pair must be in layers {sorted(wanted or ())}; got {shown(list(found))}."
        )
    return within, None


def _is_pair(head: Any) -> bool:
    """Whether it is several values: an array's row too, but no array of one value."""
    return isinstance(head, Iterable) and not isinstance(head, str | bytes) and getattr(head, "shape", None) != ()
