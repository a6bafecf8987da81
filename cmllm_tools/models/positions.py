"""Some positions of an axis: visual tokens mostly follow one another, and are then a view, whose gradient costs nothing."""

from collections.abc import Sequence

import torch


def picked(values: torch.Tensor, axis: int, positions: Sequence[int]) -> torch.Tensor:
    """`values` at these positions of an axis: a view where they follow one another."""
    if _follow(positions):
        return values.narrow(axis, positions[0], len(positions))
    return values.index_select(axis, torch.tensor(list(positions), dtype=torch.long, device=values.device))


def added(values: torch.Tensor, axis: int, positions: Sequence[int], change: torch.Tensor) -> torch.Tensor:
    """`values` with `change`, which has its size but on the axis, added at these positions of it."""
    if not _follow(positions):
        return values.index_add(axis, torch.tensor(list(positions), dtype=torch.long, device=values.device), change)
    begin, end = positions[0], positions[-1] + 1
    parts = values.tensor_split((begin, end), axis)
    return torch.cat([parts[0], parts[1] + change, parts[2]], axis)


def _follow(positions: Sequence[int]) -> bool:
    return len(positions) > 0 and list(positions) == list(range(positions[0], positions[0] + len(positions)))
