"""Some positions of an axis: visual tokens mostly follow one another, and are then a view, whose gradient costs nothing."""

from collections.abc import Sequence

import torch


def at_positions(values: torch.Tensor, axis: int, positions: Sequence[int]) -> torch.Tensor:
    """`values` at these positions of an axis: a view where they follow one another."""
    if _follow(positions):
        return values.narrow(axis, positions[0], len(positions))
    return values.index_select(axis, torch.tensor(list(positions), dtype=torch.long, device=values.device))


def added_at(values: torch.Tensor, axis: int, positions: Sequence[int], change: torch.Tensor) -> torch.Tensor:
    """`values` with `change`, which has the shape of `at_positions`, added there."""
    if not _follow(positions):
        return values.index_add(axis, torch.tensor(list(positions), dtype=torch.long, device=values.device), change)
    begin, end = positions[0], positions[0] + len(positions)
    before, after = values.narrow(axis, 0, begin), values.narrow(axis, end, values.shape[axis] - end)
    return torch.cat([before, values.narrow(axis, begin, len(positions)) + change, after], axis)


def _follow(positions: Sequence[int]) -> bool:
    return (
        len(positions) > 0
        and positions[0] >= 0
        and list(positions) == list(range(positions[0], positions[0] + len(positions)))
    )
