"""What a run has to do and has done: which records its file has, and each new one added to it."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Generic

from ..data.dataset import Dataset
from ..errors import CmllmError, DataError, OutputError, OutputWarning, carry
from ..files import appending, said
from ..progress import progress_bar
from .task import Key, R, T, Task, Tick


@dataclass(eq=False)
class Plan(Generic[R, T]):
    """A run's task and examples, its file, and what is done.

    Args:
        task: what is done with each example.
        dataset: of the examples.
        shared: what the records have in common.
        path: file of the records.
        add: adds a line to it.
        keys: of the records that each example gives.
        records: by their keys; those of other examples than the set's too.
        retry: whether what failed is to be done again.
        progress: whether a bar is shown.
        first: line that the file has to begin with, and does not yet.
        waiting: lines that could not be added yet.
    """

    task: Task[R, T]
    dataset: Dataset
    shared: Any
    path: Path | None
    add: Callable[[bytes], None] | None
    keys: list[list[Key]]
    records: dict[Key, R]
    retry: bool
    progress: bool
    first: bytes | None = None
    waiting: list[bytes] = field(default_factory=list)

    @classmethod
    @contextmanager
    def opened(
        cls,
        task: Task[R, T],
        dataset: Dataset,
        shared: Any,
        path: str | PathLike[str] | None,
        retry: bool,
        progress: bool,
    ) -> "Iterator[Plan[R, T]]":
        """The plan, while its file is held.

        Raises:
            DataError: for no examples, or a file of another run, or of other things than records.
            OutputError: when the file cannot be written, or another process writes it.
        """
        if not len(dataset):
            raise DataError(f"A run needs one example or more for its {task.gives}; got none.")
        if path is None:
            yield cls(task, dataset, shared, None, None, task.keys(dataset), {}, retry, progress)
            return
        with appending(path, task.is_whole) as add:
            known, begun = task.kept(path, shared)
            first = None if begun else task.first_line(shared)
            of_each = task.keys(dataset)
            yield cls(task, dataset, shared, Path(path).expanduser(), add, of_each, known, retry, progress, first)

    @property
    def left(self) -> dict[int, list[Key]]:
        """Keys of the records that are left to make of each example, by its number; of examples that are alike, once."""
        found: dict[int, list[Key]] = {}
        planned: set[Key] = set()
        for at, keys in enumerate(self.keys):
            if wanted := [key for key in keys if key not in planned and self._open(self.records.get(key))]:
                found[at] = wanted
                planned.update(wanted)
        return found

    def _open(self, record: R | None) -> bool:
        return record is None or (self.retry and record.error is not None)

    def done(self, records: Callable[[Tick], Iterable[R]]) -> T:
        """Keep each record when it comes, with a bar that says how long it takes yet, and end with what comes of all.

        An interrupt ends it with what there is. A record that cannot be written waits for the next one.

        Raises:
            OutputError: when some could not be written to the end; what came of them all is in an attribute of the error.
        """
        complete, parts, left = True, self.task.parts(self.shared), self.left
        total = sum(len(set(keys)) for keys in self.keys) * parts
        at = made = total - sum(map(len, left.values())) * parts
        with progress_bar(None, self.task.gives, self.progress, total=total, initial=at, unit=self.task.unit) as bar:

            def tick(count: int) -> None:
                nonlocal at
                at += count
                bar.update(count)

            try:
                for each in records(tick):
                    self._keep(each)
                    made += parts
                    tick(made - at)
            except KeyboardInterrupt:
                complete = False
            except BaseException as error:
                with suppress(CmllmError, KeyboardInterrupt):
                    self._carry(error)
                raise
        try:
            self._write()
        except OutputError as error:
            with suppress(CmllmError, KeyboardInterrupt):
                self._carry(error)
            raise
        try:
            return self._result(complete)
        except CmllmError as error:
            if not left and self.path is not None:
                error.add_note(f"So it is recorded in {said(self.path)}; it is tried again with retry=True (--retry).")
            raise

    def _keep(self, record: R) -> None:
        """Add a record to the file; what cannot be added yet waits, as the records are in memory too."""
        self.records[record.key] = record
        if self.add is None:
            return
        if self.first is not None:
            self.waiting.append(self.first)
            self.first = None
        self.waiting.append(record.line())
        try:
            self._write()
        except OutputError as error:
            words = f"{error} The {self.task.gives} goes on, and is saved after the next example."
            warnings.warn(words, OutputWarning, stacklevel=4)

    def _write(self) -> None:
        while self.waiting and self.add is not None:
            line = self.waiting.pop(0)
            try:
                self.add(line)
            except OutputError:
                self.waiting.insert(0, line)
                raise
            except BaseException:
                # An interrupt: the line may be there, and is not added twice; without it there may be no first one.
                self.waiting.clear()
                raise

    def _carry(self, error: BaseException) -> None:
        words = f"The {self.task.gives} so far, {len(self._own())} of {sum(map(len, self.keys))} records,"
        carry(error, self.task.gives, self._result(False), words)

    def _result(self, complete: bool) -> T:
        keys = [key for keys in self.keys for key in keys]
        return self.task.result(self.shared, keys, self._own(), self.path, complete)

    def _own(self) -> list[R]:
        """As they would have come without an interrupt, and without those of other examples than the set's."""
        return [self.records[key] for keys in self.keys for key in keys if key in self.records]
