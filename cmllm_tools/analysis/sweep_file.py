"""A sweep's file: a line to each example, added when it was measured; those of before, written whole, are read too."""

from os import PathLike
from typing import Any

import numpy as np

from ..errors import CmllmError, DataError
from ..files import held, reason, said
from ..stored import array_of, load_json, record, unread
from .choices import FIELDS, FIGURES
from .example_lines import ExampleLines
from .sweep import Sweep, plain

WHAT = "A sweep must be read from its own JSON file"


class SweepFile:
    """The file of a sweep, read once and then followed: what others add to it is heard with one's own.

    Args:
        path: of the file; there need be none yet.
    """

    def __init__(self, path: str | PathLike[str]):
        self._file = ExampleLines(path, WHAT)
        self.path = self._file.path
        # Digests of the examples that the file is known to have.
        self._there: set[str] = set()

    def read(self) -> Sweep:
        """The whole sweep.

        Raises:
            DataError: for a file that is missing, damaged, or not a sweep.
        """
        if not ExampleLines.begun(self.path):
            return Sweep.from_json(load_json(self.path, WHAT))
        self._file = ExampleLines(self.path, WHAT)
        found = self._file.news()
        if self._file.head is None:
            raise DataError(f"{WHAT}; {said(self.path)} is none: its first line was cut")
        empty = self._empty()
        self._there = set(found)
        return empty.with_examples({example: self._values(data, empty) for example, data in found.items()})

    def joined(self, sweep: Sweep) -> Sweep:
        """The sweep with what the file holds too; nothing is written.

        Raises:
            DataError: for a file that is no sweep, or one of another model, method or choices.
        """
        # What was killed before its first line leaves an empty file.
        if not self.path.exists() or not self.path.stat().st_size or (ExampleLines.begun(self.path) and not self._begun()):
            return sweep
        return sweep.resumed(self.read())

    def _begun(self) -> bool:
        """Whether the file has a head; what was killed while it wrote that has left nothing to go on with."""
        file = ExampleLines(self.path, WHAT)
        file.news()
        return file.head is not None

    def merged(self, sweep: Sweep) -> Sweep:
        """The sweep with what the file holds too; what the file has not yet is added to it.

        Raises:
            OutputError: when the file cannot be written, or another process holds it for a minute.
            DataError: for a file that is no sweep, or one of another model, method or choices.
        """
        if not ExampleLines.begun(self.path):
            sweep = self._whole_file_taken_over(sweep)
        if self._file.head is None and ExampleLines.begun(self.path):
            sweep = self.joined(sweep)
        left = set(sweep.missing())
        own = {
            example: {"values": plain(sweep.values[:, :, number])}
            for number, example in enumerate(sweep.examples)
            if number not in left and example not in self._there
        }
        if own or self._file.head is None:
            news = self._file.add(sweep.head(), own)
            self._there |= {*own, *news}
            if news:
                sweep = sweep.with_examples({example: self._values(data, sweep) for example, data in news.items()})
        return sweep

    def _whole_file_taken_over(self, sweep: Sweep) -> Sweep:
        """A file of before becomes one of lines; none stays none."""
        with held(self.path) as path:
            # Somebody may have been quicker.
            if not path.exists() or not path.stat().st_size or ExampleLines.begun(path):
                return sweep
            before = Sweep.from_json(load_json(path, WHAT))
            sweep = sweep.resumed(before)
            left = set(before.missing())
            ran = [(example, number) for number, example in enumerate(before.examples) if number not in left]
            lines = ((example, {"values": plain(before.values[:, :, number])}) for example, number in ran)
            self._file.written_anew(before.head(), lines)
            self._there = {example for example, _ in ran}
        return sweep

    def _empty(self) -> Sweep:
        """The sweep that the file's head describes, without examples."""
        try:
            fields = {name: read for name, read in FIELDS.items() if name not in ("examples", "values")}
            found = record(self._file.head, "a sweep", fields)
            if found["figures"] != FIGURES or len(set(found["choices"])) < len(found["choices"]):
                raise DataError(f"its figures must be {', '.join(FIGURES)}, and its choices differ from each other")
            return Sweep.empty(found["model"], found["method"], found["choices"], ())
        except (CmllmError, TypeError) as error:
            raise DataError(f"{WHAT}; {said(self.path)} is none: {reason(error)}") from error

    def _values(self, data: dict[str, Any], sweep: Sweep) -> np.ndarray:
        """(figure, choice) of one line."""
        try:
            found = record(data, "an example", {"values": unread})
            return array_of(found["values"], "its values", (len(FIGURES), len(sweep.choices)), missing=True)
        except DataError as error:
            raise DataError(f"{WHAT}; {said(self.path)} is none: {reason(error)}") from error
