"""What is found of each example, a line of a file as soon as it is found: the records of sweeps and rankings."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import DataError
from ..files import reason, said, write_whole
from ..stored import (
    SEAL,
    UNSEALED,
    Reader,
    check_seal,
    dump_json,
    entries_of,
    is_whole_line,
    open_plain,
    parse_json,
    record,
    text_of,
)
from ..strict import shown
from .examples import Example, digest

FORMAT = 1
# The entry of a file's first line that says so; it comes behind the seal.
KEY = "cmllm_examples"
_START = json.dumps({SEAL: UNSEALED})[:-2].encode().removesuffix(UNSEALED.encode())
# Bytes of a line; those of before, written whole, are the longest.
MOST_LINE = 1 << 30


@dataclass(frozen=True, eq=False)
class Found:
    """What was found of one example, or why nothing was.

    Args:
        key: what tells it from others: of what it is, and not of its place in a set.
        figures: numbers and arrays, each by its name.
        where: file and line of an example that failed.
        error: kind and message of what went wrong.
    """

    key: str
    figures: Mapping[str, Any]
    where: str = ""
    error: dict[str, str] | None = None

    def line(self) -> bytes:
        """As one line of JSON, sealed by itself, without its end."""
        figures = {name: plain(each) if isinstance(each, np.ndarray) else each for name, each in self.figures.items()}
        wrong = {} if self.error is None else {"where": self.where, "error": self.error}
        return dump_json({"example": self.key, **figures, **wrong})

    @classmethod
    def of_line(cls, data: dict[str, Any]) -> "Found":
        """Of a line's entries; the figures are looked into by who knows them.

        Raises:
            DataError: for other entries.
        """
        key = text_of(data.get("example"), "an example")
        figures = {name: value for name, value in data.items() if name != "example"}
        if "error" not in figures:
            return cls(key, figures)
        read = record(figures, "an example", _FAILED)
        return cls(key, {}, read["where"], read["error"])


_FAILED: dict[str, Reader] = {"where": text_of, "error": partial(entries_of, read=text_of)}


def first_line(head: Mapping[str, Any]) -> bytes:
    """What a file begins with: what all of its lines are of."""
    return dump_json({KEY: FORMAT, **head})


def begun(path: str | PathLike[str]) -> bool:
    """Whether a file begins as one of these; False for none, or one of another kind."""
    start, end, entry = _START, len(_START) + len(UNSEALED), b'", "%s": %d' % (KEY.encode(), FORMAT)
    try:
        with open_plain(path) as file:
            begin = file.read(1 << 8)
    except (OSError, ValueError):
        return False
    return begin.startswith(start) and begin[end:].startswith(entry)


# Whether a last line is all there; see `stored.is_whole_line`.
is_whole = partial(is_whole_line, starts=(_START,), what="A file that is gone on with must be of examples' lines")


def read_lines(path: str | PathLike[str], what: str) -> list[dict[str, Any]]:
    """The entries of a file's lines, each held against its hash; a last line that was cut is left out.

    Args:
        path: of the file.
        what: it must be, for messages.

    Raises:
        DataError: for a file that is missing, damaged, or of other things.
    """
    found, number = [], 0
    try:
        with open_plain(path) as file:
            while line := file.readline(MOST_LINE):
                number += 1
                if line.endswith(b"\n") or is_whole(line):
                    found.append(_opened(line.rstrip(b"\n"), number))
    except (OSError, ValueError, DataError) as error:
        raise DataError(f"{what}; {said(path)} is none: {reason(error)}") from error
    return found


def opened(line: bytes) -> dict[str, Any]:
    """The entries of a line, held against its hash.

    Raises:
        ValueError, DataError: for a line that is damaged, or none.
    """
    return _opened(line, 1)


def _opened(line: bytes, number: int) -> dict[str, Any]:
    sealed = check_seal(BytesIO(), line)
    data = parse_json(line)
    if not isinstance(data, dict):
        raise DataError(f"line {number} must be an object; got {shown(data)}")
    # Only what was written whole, by versions of before, may have none.
    if not sealed and (SEAL in data or KEY in data or "example" in data):
        raise DataError(f"line {number} has no hash of its bytes")
    data.pop(SEAL, None)
    return data


def is_head(data: Mapping[str, Any]) -> bool:
    """Whether a line's entries are those that a file begins with."""
    return data.get(KEY) == FORMAT


def head_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a first line says of all lines."""
    return {name: value for name, value in data.items() if name != KEY}


def merge_lines(paths: Sequence[str | PathLike[str]], out: str | PathLike[str]) -> tuple[Path, int]:
    """Put the lines of several files of one sweep, or ranking, together; what was found comes before an error.

    Returns:
        The file, and how many examples it has.

    Raises:
        DataError: for files of other things, or of different runs.
        OutputError: when the file cannot be written.
    """
    what = "What is put together must be files that one kind of run has added to"
    heads: list[dict[str, Any]] = []
    found: dict[str, Found] = {}
    for path in paths:
        lines = read_lines(path, what)
        if lines and not is_head(lines[0]):
            raise DataError(f"{what}; {said(path)} was written whole, or is of something else.")
        for data in lines:
            if is_head(data):
                heads.append(head_of(data))
                if heads[-1] != heads[0]:
                    raise DataError(f"{what}; {said(path)} is of another model, or other settings, than those before it.")
                continue
            each = Found.of_line(data)
            if each.key not in found or found[each.key].error is not None:
                found[each.key] = each
    if not heads:
        raise DataError(f"{what}; none of these has its first line.")
    whole = [first_line(heads[0]), *(each.line() for each in found.values())]
    return write_whole(out, lambda file: file.write(b"".join(line + b"\n" for line in whole))), len(found)


def keys_of(dataset: Dataset, also: Callable[[Example], str] | None = None) -> list[str]:
    """What tells each example from others; one that cannot be made has its place in the set.

    Args:
        dataset: of the examples, which are read for it.
        also: what else of an example tells it.
    """
    found = []
    for number, row in enumerate(dataset.rows):
        try:
            example = dataset[number]
            key = digest(example)
            found.append(key if also is None else f"{key} {also(example)}")
        except Exception:
            # It fails again where it is measured, and is recorded there.
            found.append(f"id {row.id}")
    return found


def plain(values: np.ndarray) -> list[Any]:
    """Numbers as nested lists, None where there is none."""
    result: list[Any] = np.where(np.isnan(values), None, values.astype(object)).tolist()  # type: ignore[call-overload]
    return result
