"""A measure under each of many changes, as a grid; gone on with after whatever ended it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import appending, reason, said
from ..models.prompt import Prompt
from ..progress import progress_bar
from ..shown import Fact, Shown
from ..stored import finite, is_whole_line, open_plain, parse_json, record
from ..strict import shown, whole_number

FORMAT = "1"
# How the first line begins, and the others.
_STARTS = (json.dumps({"causes": FORMAT})[:-1].encode(), b'{"cell": ')
_whole = partial(is_whole_line, starts=_STARTS, what="A file of causes must have a cell in each line")

Cell = tuple[int, int]


@dataclass(frozen=True, eq=False, repr=False)
class CauseGrid(Shown):
    """A measure under each of many changes inside the model.

    Args:
        what: is changed, in words.
        measure: "log-odds" of the first answer against the others, or its "log-probability"; in nats.
        answers: the answer, or the candidates.
        values: (row, column), the measure under each change; nan where it has not been taken yet.
        before: the measure without a change; of patching, on the corrupted prompt.
        rows, columns: names of each.
        axes: what rows and columns are, as ("layer", "head").
        clean: of patching, the measure on the clean prompt; None otherwise.
        interrupted: whether an interrupt ended it with what there was.

    Examples:
        >>> grid = cm.causes.knockout_grid(mllm, prompt, "last", together=True, window=3, step=3, progress=False)
        >>> grid.rows, grid.columns, grid.change.shape
        (('0..2', '3..5'), ('all',), (2, 1))
    """

    what: str
    measure: str
    answers: tuple[str, ...]
    values: np.ndarray
    before: float
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    axes: tuple[str, str] = ("layer", "head")
    clean: float | None = None
    interrupted: bool = False

    @property
    def change(self) -> np.ndarray:
        """(row, column): the measure under each change less that without, in nats."""
        difference: np.ndarray = self.values - self.before
        return difference

    @property
    def effect(self) -> np.ndarray:
        """(row, column) of patching: (patched - corrupted) / (clean - corrupted), 0 for the corrupted prompt.

        Raises:
            DataError: where nothing was patched, or both prompts measure the same.
        """
        span = 0.0 if self.clean is None else self.clean - self.before
        if not span:
            raise DataError(
                "An effect is normalised by what clean and corrupted prompt measure, which must differ; here "
                f"{'nothing was patched' if self.clean is None else 'they do not'}. Take `change`."
            )
        normalised: np.ndarray = self.change / span
        return normalised

    def strongest(self, count: int = 5) -> list[tuple[str, str, float]]:
        """Row, column and change of those that change the measure most, first the strongest."""
        change = self.change
        order = np.argsort(-np.abs(np.nan_to_num(change)), axis=None, kind="stable")
        order = order[: whole_number(count, "count", 1)]
        places = zip(*np.unravel_index(order, change.shape), strict=True)
        return [
            (self.rows[row], self.columns[column], float(change[row, column]))
            for row, column in places
            if np.isfinite(change[row, column])
        ]

    def facts(self) -> list[Fact]:
        done = int(np.isfinite(self.values).sum())
        row, column = self.axes
        return [
            ("", self.what),
            (f"{self.measure} of", repr(self.answers[0])),
            *[("against", ", ".join(map(repr, self.answers[1:])))] * (len(self.answers) > 1),
            ("unchanged", f"{self.before:.3f} nats"),
            *([] if self.clean is None else [("clean", f"{self.clean:.3f} nats")]),
            ("", f"{row} x {column} = {self.values.shape[0]} x {self.values.shape[1]}"),
            *[("done", f"{done} of {self.values.size}")] * (done < self.values.size),
            *(
                ("most", f"{change:+.3f} at {row} {first}, {column} {second}")
                for first, second, change in self.strongest(1)
            ),
        ]


def filled(
    grid: CauseGrid,
    firsts: Sequence[int],
    measured: Callable[[Sequence[Cell]], Sequence[float]],
    *,
    copies: int,
    path: str | PathLike[str] | None,
    run: Mapping[str, Any],
    progress: bool,
) -> CauseGrid:
    """The grid with every cell measured, some together; an interrupt ends it with what there is.

    Args:
        grid: whose values are all nan.
        firsts: of each row, the first layer that its cells change: those of one begin together.
        measured: takes cells, and gives the measure of each.
        copies: how many cells at most are measured together.
        path: file that each value is added to, and those of an earlier run are taken from; kept nowhere when None.
        run: what tells this run from others.
        progress: whether a bar is shown.

    Raises:
        DataError: for a file of another run.
        OutputError: when the file cannot be written, or another process writes it.
    """
    values, interrupted = grid.values, False
    with _kept(path, run, values) as add:
        every = [(row, column) for row in range(values.shape[0]) for column in range(values.shape[1])]
        left = sorted((cell for cell in every if not np.isfinite(values[cell])), key=lambda cell: firsts[cell[0]])
        with progress_bar(None, "cells", progress, total=len(every), initial=len(every) - len(left), unit="cell") as bar:
            try:
                while left:
                    # From one first layer on: a cell that begins lower would have all begin there.
                    first = firsts[left[0][0]]
                    together = [cell for cell in left[:copies] if firsts[cell[0]] == first]
                    found = measured(together)
                    for cell, value in zip(together, found, strict=True):
                        add(cell, value)
                        values[cell] = value
                    left = left[len(together) :]
                    bar.update(len(together))
            except KeyboardInterrupt:
                interrupted = True
    return replace(grid, interrupted=interrupted)


def run_of(prompt: Prompt, name: str, **more: Any) -> dict[str, Any]:
    """What tells a run from others: model, image and text, and more, as a file gives it back."""
    digest = hashlib.sha256(prompt.image.tobytes())
    digest.update(repr((prompt.image.size, prompt.text)).encode("utf-8", "backslashreplace"))
    found: dict[str, Any] = json.loads(json.dumps({"model": name, "prompt": digest.hexdigest(), **more}))
    return found


@contextmanager
def _kept(
    path: str | PathLike[str] | None, run: Mapping[str, Any], values: np.ndarray
) -> Iterator[Callable[[Cell, float], None]]:
    """What adds a cell to the run's file, while that is held; the values that it has are filled in."""
    if path is None:
        yield lambda cell, value: None
        return
    with appending(path, _whole) as add:
        begun = _read(path, run, values)
        if not begun:
            add(json.dumps({"causes": FORMAT, "run": dict(run)}).encode())
        yield lambda cell, value: add(json.dumps({"cell": cell, "value": value}, allow_nan=False).encode())


def _read(path: str | PathLike[str], run: Mapping[str, Any], values: np.ndarray) -> bool:
    """Fill in the cells of a file; False for one without a first line."""
    try:
        with open_plain(path) as file:
            lines = file.read().split(b"\n")
    except (OSError, ValueError) as error:
        raise DataError(f"Causes must be a file of JSON lines; {said(path)} is none: {reason(error)}.") from error
    # The last is empty, or was cut.
    lines = [line for line in (lines[:-1] if not lines[-1] or not _whole(lines[-1]) else lines) if line.strip()]
    for number, line in enumerate(lines):
        try:
            data = parse_json(line)
            if number:
                found = record(data, "a cell", {"cell": _cell(values.shape), "value": finite})
                values[found["cell"]] = found["value"]
            elif not isinstance(data, dict) or data.get("causes") != FORMAT or data.get("run") != dict(run):
                raise DataError("is of another model, prompt or choice of cells")
        except ValueError as error:
            raise DataError(
                f"A file that is gone on with must be of this run; line {number + 1} of {said(path)} is not: {error}. "
                "Give another file."
            ) from error
    return bool(lines)


def _cell(shape: tuple[int, ...]) -> Callable[[Any, str], Cell]:
    def read(value: Any, what: str) -> Cell:
        if not isinstance(value, list) or len(value) != 2:
            raise DataError(f"{what} must be two numbers; got {shown(value)}.")
        first, second = (whole_number(each, what, 0, side - 1, DataError) for each, side in zip(value, shape, strict=True))
        return first, second

    return read
