"""A set of one's own: a folder of images with a table, `examples.csv`, one row an example."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...inputs.regions import Box, Point, Region
from ...strict import shown
from ..example import Example
from ..format import Format, register
from ..lines import Row, as_id, first_there, mask_of, read_bytes, unlike, words_of

# Between the names of one cell.
BETWEEN = "|"
CORNERS = ("x0", "y0", "x1", "y1")


@register
@dataclass(frozen=True)
class Folder(Format):
    """`examples.csv` with columns image, question, and x0, y0, x1, y1 (a box), x, y (a point) or mask (a file).

    Further columns: answer, names and alternatives (several, with `|` between them), id, split. Files lie in the table's
    folder, or in its folders `images` and `masks`.
    """

    name = "folder"
    files = ("examples.csv",)

    def rows(self, file: Path) -> list[Row]:
        try:
            text = read_bytes(file).decode("utf-8")
            table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            if absent := [name for name in ("image", "question") if name not in (table.fieldnames or ())]:
                raise DataError(f"{file.name} must have columns image and question; it lacks {', '.join(absent)}.")
            found = []
            for data in table:
                cells = {key: (value or "").strip() for key, value in data.items() if key is not None}
                line = f"line {table.line_num}"
                fault = "has more cells than there are columns." if None in data else None
                given: Any = fault or cells
                found.append(Row(as_id(cells.get("id"), line), f"{file.name}, {line}", given, cells.get("split", "")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{file.name} must be a table of cells with commas between, in UTF-8: {error}") from error
        return unlike(found)

    def example(self, file: Path, row: Row) -> Example:
        if isinstance(row.data, str):
            raise DataError(row.data)
        cells: dict[str, str] = row.data
        for name in ("image", "question"):
            words_of(cells[name], f"has a bad {name}: it")
        names = _several(cells.get("names", ""))
        answer = cells.get("answer") or (names[0] if names else None)
        return Example(
            first_there((file.parent / "images", file.parent), cells["image"]),
            cells["question"],
            _region(file.parent, cells),
            answer,
            _several(cells.get("alternatives", "")),
            names=names,
        )


def _region(folder: Path, cells: dict[str, str]) -> Region:
    if cells.get("mask"):
        return mask_of(first_there((folder / "masks", folder), cells["mask"]))
    if any(cells.get(name) for name in CORNERS):
        return Box(*(_number(cells, name) for name in CORNERS))
    if cells.get("x") or cells.get("y"):
        return Point(_number(cells, "x"), _number(cells, "y"))
    raise DataError("has no region: x0, y0, x1, y1 for a box, x, y for a point, or mask for a file.")


def _number(cells: dict[str, str], name: str) -> float:
    try:
        return float(cells.get(name, ""))
    except ValueError:
        raise DataError(f"has a bad {name}: it must be a number; got {shown(cells.get(name, ''))}.") from None


def _several(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(BETWEEN) if part.strip())
