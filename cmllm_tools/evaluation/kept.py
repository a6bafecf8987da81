"""What a run has to do and has done: which answers its file has, and each new one added to it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..data.lines import Row
from ..errors import DataError
from ..files import appending
from ..progress import progress_bar
from ..strict import flag, shown
from .records import Record, is_whole, latest, read_records, same_settings
from .summary import Evaluation


@dataclass(eq=False)
class Plan:
    """A run's examples and methods, its file, and what is done.

    Args:
        dataset: of the examples.
        names: of the methods.
        path: file of the records.
        add: adds a line to it.
        records: by example and method.
        retry: whether what failed is to be done again.
        progress: whether a bar is shown.
    """

    dataset: Dataset
    names: tuple[str, ...]
    path: Path | None
    add: Callable[[bytes], None] | None
    records: dict[tuple[str, str], Record]
    retry: bool
    progress: bool

    @classmethod
    @contextmanager
    def opened(
        cls,
        dataset: Dataset,
        names: Iterable[str],
        path: str | PathLike[str] | None,
        retry: bool,
        progress: bool,
    ) -> "Iterator[Plan]":
        """The plan, while its file is held.

        Raises:
            DataError: for no examples, or a file that has other things than records.
            OutputError: when the file cannot be written, or another process writes it.
        """
        retry = flag(retry, "retry")
        if not len(dataset):
            raise DataError("An evaluation needs one example or more; got none.")
        if path is None:
            yield cls(dataset, tuple(names), None, None, {}, retry, progress)
            return
        with appending(path, is_whole) as add:
            known = {each.key: each for each in latest(read_records(path))}
            yield cls(dataset, tuple(names), Path(path).expanduser(), add, known, retry, progress)

    def check(self, model: str, settings: Mapping[str, Any]) -> None:
        """Refuse a file of another run.

        Raises:
            DataError: for records of another model, or of other settings.
        """
        for each in self.records.values():
            if each.model != model or not same_settings(settings.get(each.method, each.settings), each.settings):
                raise DataError(
                    "A file that is gone on with must be of this model and these settings; "
                    f"{shown(fspath(self.path or ''))} has {each.method} of {each.model} with {each.settings}. "
                    "Give another file, or the method another name."
                )

    @property
    def left(self) -> dict[int, list[str]]:
        """Names of the methods that are left to do of each example, by its number."""
        found = {}
        for at, key in enumerate(self.dataset.ids):
            if names := [name for name in self.names if self._open(self.records.get((str(key), name)))]:
                found[at] = names
        return found

    def _open(self, record: Record | None) -> bool:
        return record is None or (self.retry and record.error is not None)

    def done(self, records: Iterable[Record]) -> Evaluation:
        """Keep each record when it comes, with a bar that says how long it takes yet, and end with all.

        An interrupt ends it with what there is.

        Raises:
            OutputError: when the file cannot be written.
        """
        total, complete = len(self.dataset) * len(self.names), True
        begun = total - sum(map(len, self.left.values()))
        with progress_bar(None, "answers", self.progress, total=total, initial=begun, unit="answer") as bar:
            try:
                for each in records:
                    if self.add is not None:
                        self.add(each.line())
                    self.records[each.key] = each
                    bar.update()
            except KeyboardInterrupt:
                complete = False
        # As they would have come without an interrupt, and without those of other examples than the set's.
        keys = [(str(key), name) for key in self.dataset.ids for name in self.names]
        return Evaluation(tuple(self.records[key] for key in keys if key in self.records), self.path, complete)


def failed(row: Row, method: str, settings: Any, model: str, scorer: str, kind: str, message: str) -> Record:
    """The record of an example that could not be made, or that no worker came back from."""
    return Record(
        id=row.id,
        method=method,
        settings=settings,
        model=model,
        scorer=scorer,
        where=row.where,
        split=row.split,
        error={"kind": kind, "message": message},
    )
