"""Layers and heads that are edited together, each choice a cell of a grid, and the measure of several at once."""

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from ..attention.context_token import existing
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..notation import number_ranges
from ..strict import flag, whole_number
from .edits import Edit, Where, where_of
from .grid import CauseGrid, Cell, filled, run_of
from .scored import MeasuredPrompt

# Makes the edit of copies of a prompt, of each in layers and heads of its own.
MakeEdit = Callable[[Sequence[Where], Prompt], Edit]


def measure_edits(mllm: Mllm, scored: MeasuredPrompt, edit: MakeEdit, cells: Sequence[Where]) -> list[float]:
    """The measure in several copies of a prompt, each with its own layers and heads edited."""
    begin = min(layer for cell in cells for layer, _ in cell)
    return scored(len(cells), lambda runs: lambda: edit(cells, runs.answered).opened(mllm), begin)


class Cells:
    """Which layers and heads each cell of a grid edits."""

    def __init__(
        self,
        mllm: Mllm,
        layers: Iterable[int] | None,
        heads: Iterable[int] | None,
        together: bool,
        window: int,
        step: int,
    ):
        numbers = mllm.attention_layers if layers is None else existing(layers, mllm.attention_layers, "Layers")
        self.mllm = mllm
        self.windows = windows_of(numbers, window, step)
        chosen = range(mllm.heads) if heads is None else existing(heads, range(mllm.heads), "Heads")
        self.heads: list[tuple[int, ...] | None] = [(head,) for head in chosen]
        if flag(together, "together"):
            self.heads = [None if heads is None else tuple(chosen)]

    def grid(
        self,
        scored: MeasuredPrompt,
        what: str,
        edit: MakeEdit,
        max_copies: int,
        path: str | PathLike[str] | None,
        run: dict[str, Any],
        progress: bool,
    ) -> CauseGrid:
        """The grid; see `grid.filled`."""
        copies = whole_number(max_copies, "max_copies", 1) if self.mllm.family.batch else 1
        rows = tuple(number_ranges(each) for each in self.windows)
        columns = tuple("all" if each is None else number_ranges(each) for each in self.heads)
        empty = np.full((len(rows), len(columns)), np.nan)
        grid = CauseGrid(what, scored.measure, tuple(map(str, scored.texts)), empty, scored.before, rows, columns)
        prompt = scored.runs[0].answered
        told = run_of(prompt, self.mllm.name, ids=[each.ids for each in scored.runs], rows=rows, columns=columns, **run)

        def measure(cells: Sequence[Cell]) -> list[float]:
            where = [where_of(self.mllm, self.windows[row], self.heads[column]) for row, column in cells]
            return measure_edits(self.mllm, scored, edit, where)

        firsts = [each[0] for each in self.windows]
        return filled(grid, firsts, measure, copies=copies, path=path, run=told, progress=progress)


def windows_of(numbers: Sequence[int], window: int, step: int) -> list[tuple[int, ...]]:
    """So many of the numbers in a row, each time so many further, up to one that has the last; that one may be shorter.

    Raises:
        SettingsError: for a window that is longer than all of them, or no whole number.
    """
    window, step = whole_number(window, "window", 1, len(numbers)), whole_number(step, "step", 1)
    end = min(len(numbers), len(numbers) - window + step)
    return [tuple(numbers[at : at + window]) for at in range(0, end, step)]
