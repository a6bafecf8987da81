"""What a run does with every example of a set, apart from how it is kept, gone on with and spread."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ..data.dataset import Dataset
from ..data.example import Example
from ..data.lines import Row
from ..errors import CmllmError, OutputError
from ..models.mllm import Mllm

# What a run has one record of: texts, or several.
Key = Any
# Examples by their numbers, with the keys of the records that are to be made of each.
Left = Mapping[int, Sequence[Key]]
# Is told how many of a record's parts have been done.
Tick = Callable[[int], object]


class Kept(Protocol):
    """A record: a line of the run's file."""

    @property
    def key(self) -> Any:
        """What a run has one record of."""

    @property
    def error(self) -> dict[str, str] | None:
        """Kind and message of what went wrong."""

    @property
    def where(self) -> str:
        """File and line of the example."""

    def line(self) -> bytes:
        """As one line of JSON, without its end."""


R = TypeVar("R", bound=Kept)
T = TypeVar("T")


class Task(ABC, Generic[R, T]):
    """A value, sent to workers as it is.

    Attributes:
        gives: what comes of a run; an error that ends one has it, so far, in an attribute of this name.
        unit: what its bar counts.
    """

    gives: ClassVar[str]
    unit: ClassVar[str]

    @abstractmethod
    def keys(self, dataset: Dataset) -> list[list[Key]]:
        """Of each example, the keys of the records that are made of it."""

    @abstractmethod
    def start(self, mllm: Mllm) -> "Work[R, T]":
        """The task with a model.

        Raises:
            SettingsError: for what does not fit the model.
        """

    @abstractmethod
    def kept(self, path: str | PathLike[str], shared: Any) -> tuple[dict[Key, R], bool]:
        """The records of a file that is gone on with, and whether it has its first line.

        Raises:
            DataError: for a file of another run, or of something else.
        """

    @abstractmethod
    def is_whole(self, line: bytes) -> bool:
        """Whether a file's last line without its end is all there; see `files.appending`."""

    def first_line(self, shared: Any) -> bytes | None:
        """What a file begins with."""
        return None

    def parts(self, shared: Any) -> int:
        """How many of the bar's units a record is."""
        return 1

    @abstractmethod
    def of_line(self, line: bytes, shared: Any) -> R:
        """The record of a line that a worker has sent."""

    @abstractmethod
    def failed(self, shared: Any, row: Row, key: Key, error: dict[str, str]) -> R:
        """The record of an example that could not be made, or that no worker came back from."""

    @abstractmethod
    def result(self, shared: Any, keys: Sequence[Key], records: Sequence[R], path: Path | None, complete: bool) -> T:
        """What comes of the records of these keys, in their order; there may be fewer, where it was not complete."""


class Work(ABC, Generic[R, T]):
    """A task with a model.

    Attributes:
        task: what it is.
        shared: what all records of the run have in common, as another process may be sent it.
    """

    task: Task[R, T]
    shared: Any

    @abstractmethod
    def record(self, example: Example, key: Key, tick: Tick) -> R:
        """What is found of an example."""

    def ahead(self, dataset: Dataset, example: Example, left: Sequence[tuple[int, Sequence[Key]]]) -> None:
        """Is told of an example, and of those that come with and after it, before its first record."""

    def failed(self, row: Row, example: Example | None, key: Key, error: dict[str, str]) -> R:
        """The record of what went wrong with an example; there is none where it could not be made."""
        return self.task.failed(self.shared, row, key, error)

    def records(self, dataset: Dataset, left: Left, strict: bool, tick: Tick = lambda count: None) -> Iterator[R]:
        """The records of what is left, one after another; what fails is recorded, and the run goes on.

        Raises:
            CmllmError: what an example failed with, where `strict`.
        """
        todo = list(left.items())
        for place, (number, keys) in enumerate(todo):
            example = None
            for key in keys:
                try:
                    if example is None:
                        example = dataset[number]
                        self.ahead(dataset, example, todo[place:])
                    yield self.record(example, key, tick)
                except OutputError:
                    raise
                except Exception as error:
                    # Recorded, and counted for all to see; the other examples are as good as they were.
                    if strict:
                        raise
                    yield self.failed(dataset.rows[number], example, key, told(error))


def told(error: BaseException) -> dict[str, str]:
    """What a record has of an error."""
    return {"kind": type(error).__name__, "message": str(error) if isinstance(error, CmllmError) else repr(error)}


def fault(record: Kept) -> str:
    """What went wrong with an example, in words: where, and what."""
    error = record.error or {}
    return f"{record.where}: {error.get('kind')}: {error.get('message')}"


def found_of(records: Sequence[R], complete: bool) -> tuple[list[R], tuple[str, ...]]:
    """The records that say something, and in words what went wrong with the others; for a result that cannot be of none.

    Raises:
        KeyboardInterrupt: for none, where an interrupt is why.
        CmllmError: for examples that all failed: what the first did.
    """
    found = [each for each in records if each.error is None]
    faults = tuple(fault(each) for each in records if each.error is not None)
    if not found and not (faults and complete):
        raise KeyboardInterrupt
    if not found:
        first = next(each.error for each in records if each.error is not None)
        error = _errors(CmllmError).get(first["kind"], CmllmError)(first["message"])
        if len(faults) > 1:
            error.add_note(f"All {len(faults)} examples failed; this is the first one's reason.")
        raise error
    return found, faults


def _errors(kind: type[CmllmError]) -> dict[str, type[CmllmError]]:
    return {kind.__name__: kind} | {name: each for below in kind.__subclasses__() for name, each in _errors(below).items()}
