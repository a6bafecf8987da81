"""Reading a set's files: lines and entries with where they stand, paths that stay in the folder, and checked fields."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import reason, said
from ..inputs.regions import Box, Mask
from ..stored import MOST_JSON, Reader, array_of, items, open_plain, parse_json, text_of
from ..strict import shown, whole_number


@dataclass(frozen=True)
class Row:
    """One example as its file has it, not looked into yet.

    Args:
        id: of the example; no two of a set are alike.
        where: file and line, or entry, for messages.
        data: what stands there; a text that says why where it cannot be read.
        split: of the set.

    Examples:
        >>> cm.data.read(cm.bench.HELDOUT).rows[0].where
        'question_roc.json, line 1'
    """

    id: int | str
    where: str
    data: Any
    split: str = ""


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        DataError: for a file that is missing, cannot be read, or is longer than any set's.
    """
    try:
        with open_plain(path) as file:
            found = file.read(MOST_JSON + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"A set's file must be one that can be read; {said(path)} is none: {reason(error)}.") from error
    if len(found) > MOST_JSON:
        raise DataError(f"A set's file must have at most {MOST_JSON} bytes; {said(path)} has more.")
    return found.removeprefix(b"\xef\xbb\xbf")


def json_rows(path: Path, key: str, split: Any = None) -> list[Row]:
    """A file of JSON lines, one example to each; a line that is no JSON is a fault of its example alone.

    Args:
        path: of the file.
        key: entry that has the id.
        split: name of the split of example `number`, counted from 0; a function.

    Raises:
        DataError: for a file that cannot be read.
    """
    found: list[Row] = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        if not line.strip():
            continue
        data: Any
        try:
            data = parse_json(line)
        except ValueError as error:
            data = f"is not JSON: {error}"
        given = data.get(key) if isinstance(data, dict) else None
        name = "" if split is None else split(len(found))
        found.append(Row(as_id(given, f"line {number}"), f"{path.name}, line {number}", data, name))
    return unlike(found)


def entries(path: Path) -> dict[str, Any]:
    """The entries of a file that is one JSON object.

    Raises:
        DataError: for a file that cannot be read, or holds no object.
    """
    text = read_bytes(path)
    try:
        data = parse_json(text)
    except ValueError as error:
        raise DataError(f"{said(path)} must be JSON; it is not: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{said(path)} must hold one JSON object; got {shown(data)}.")
    return data


def as_id(value: Any, otherwise: str) -> int | str:
    """An id as a set has it, or another where it has none."""
    good = isinstance(value, str | int) and not isinstance(value, bool)
    return value if good and value != "" else otherwise


def unlike(rows: Iterable[Row]) -> list[Row]:
    """The rows with an id of its own each: what comes again is numbered, as an image that two examples are named by."""
    seen: dict[str, int] = {}
    found = []
    for row in rows:
        seen[str(row.id)] = count = seen.get(str(row.id), 0) + 1
        found.append(row if count == 1 else Row(f"{row.id}#{count}", row.where, row.data, row.split))
    return found


def checked(data: Any, fields: Mapping[str, Reader], optional: Mapping[str, Reader] | None = None) -> dict[str, Any]:
    """A line's object, its fields looked at; further ones are passed over.

    Raises:
        DataError: for what is no object, or a field that is missing or malformed; the message goes on from "line 3".
    """
    if isinstance(data, str):
        raise DataError(data)
    if not isinstance(data, dict):
        raise DataError(f"must be an object; got {shown(data)}.")
    if absent := [field for field in fields if field not in data]:
        raise DataError(f"lacks {', '.join(absent)}.")
    for field, read in {**fields, **(optional or {})}.items():
        if field in data:
            read(data[field], f"has a bad {field}: it")
    return data


def below(folder: Path, name: str | PathLike[str]) -> Path:
    """A file of a folder; a set may not reach others by `..`, absolute names or links. The folder itself may be a link.

    Raises:
        DataError: for one that leads out, or names no file.
    """
    plain = Path(name)
    try:
        possible = b"\0" not in os.fsencode(plain)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise DataError(f"names no file: {said(name)}.")
    path = folder / plain
    inside = bool(plain.parts) and not plain.is_absolute() and ".." not in plain.parts
    if inside and any(part.is_symlink() for part in (path, *path.parents[: len(plain.parts) - 1])):
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    if not inside:
        raise DataError(f"leads out of the set's folder {said(folder)}: {said(name)}.")
    return path


def first_there(folders: Iterable[Path], name: str | PathLike[str]) -> Path:
    """A file of the first of some folders that has it, or else of the first.

    Raises:
        DataError: as `below`.
    """
    paths = [below(folder, name) for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def box_of(corners: Any) -> Box:
    """x, y, width and height, as COCO and the sets made of it write a box."""
    x, y, width, height = corners
    return Box(x, y, x + width, y + height)


def mask_of(path: Path) -> Mask:
    """A mask's file."""
    return Mask.from_file(path)


def id_of(value: Any, what: str) -> int | str:
    """An id: a text or a whole number."""
    return value if isinstance(value, str) else whole_number(value, what, error=DataError)


def words_of(value: Any, what: str) -> str:
    """A text with something in it."""
    if not text_of(value, what).strip():
        raise DataError(f"{what} must have words; got {shown(value)}.")
    result: str = value
    return result


def texts_of(value: Any, what: str) -> tuple[str, ...]:
    """A list of texts."""
    return items(value, what, text_of)


def some_texts(value: Any, what: str) -> tuple[str, ...]:
    """A list of texts with words, one or more."""
    found = items(value, what, words_of)
    if not found:
        raise DataError(f"{what} must have one text or more; got none.")
    return found


def position(value: Any, what: str) -> np.ndarray:
    """Two coordinates."""
    return array_of(value, what, (2,))


def corners(value: Any, what: str) -> np.ndarray:
    """x, y, width and height of a box."""
    found = array_of(value, what, (4,))
    if (found[2:] <= 0).any():
        raise DataError(f"{what} must be x, y, width and height, these above 0; got {shown(value)}.")
    return found


def line(value: Any, what: str) -> np.ndarray:
    """Points of a line, one or more."""
    if not isinstance(value, list) or not value:
        raise DataError(f"{what} must be a list of points; got {shown(value)}.")
    return array_of(value, what, (len(value), 2))
