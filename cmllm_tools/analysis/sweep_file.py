"""A sweep's file: a line to each example, added when it was measured; those of before, written whole, are read too."""

from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from ..errors import CmllmError, DataError
from ..files import reason, said
from ..stored import array_of, record, unread
from .choices import FIELDS, FIGURES
from .example_lines import Found, head_of, is_head, read_lines
from .sweep import Sweep

WHAT = "A sweep must be read from its own JSON file"


def read_sweep(path: str | PathLike[str]) -> tuple[Sweep | None, dict[str, Found]]:
    """The sweep that a file's beginning describes, and what its lines have of examples, by their keys.

    The sweep has the examples of a file that was written whole; None for an empty file, or one whose first line was cut.

    Raises:
        DataError: for a file that is missing, damaged, or not a sweep.
    """
    lines = read_lines(path, WHAT)
    if not lines:
        return None, {}
    try:
        sweep = empty_of(head_of(lines[0])) if is_head(lines[0]) else Sweep.from_json(lines[0])
        found = {}
        for data in lines[1:]:
            if is_head(data):
                if differing(sweep, empty_of(head_of(data))):
                    raise DataError("its lines are of different sweeps")
                continue
            line = Found.of_line(data)
            found[line.key] = measured(line, sweep)
        return sweep, found
    except (CmllmError, TypeError) as error:
        raise DataError(f"{WHAT}; {said(path)} is none: {reason(error)}") from error


def differing(one: Sweep, other: Sweep) -> str | None:
    """What two sweeps do not have in common, of what all examples of one have."""
    return next((what for what in ("model", "method", "choices") if getattr(one, what) != getattr(other, what)), None)


def load_sweep(path: str | PathLike[str]) -> Sweep:
    """The whole sweep of a file.

    Raises:
        DataError: for a file that is missing, damaged, or not a sweep.
    """
    sweep, found = read_sweep(path)
    if sweep is None:
        raise DataError(f"{WHAT}; {said(path)} is none: its first line was cut")
    # What failed when it was written whole has been tried again since.
    return replace(sweep, failed=()).with_found(found.values()) if found else sweep


def empty_of(head: dict[str, Any]) -> Sweep:
    """The sweep that a file's head describes, without examples.

    Raises:
        DataError: for other entries.
    """
    fields = {name: read for name, read in FIELDS.items() if name not in ("examples", "values", "failed")}
    found = record(head, "a sweep", fields)
    if found["figures"] != FIGURES or len(set(found["choices"])) < len(found["choices"]):
        raise DataError(f"its figures must be {', '.join(FIGURES)}, and its choices differ from each other")
    return Sweep.empty(found["model"], found["method"], found["choices"], ())


def measured(line: Found, sweep: Sweep) -> Found:
    """A line with its figures looked into.

    Raises:
        DataError: for what are no figures of the sweep's choices.
    """
    if line.error is not None:
        return line
    found = record(dict(line.figures), "an example", {"values": unread})
    shape = len(FIGURES), len(sweep.choices)
    values: np.ndarray = array_of(found["values"], "its values", shape, missing=True)
    return Found(line.key, {"values": values})
