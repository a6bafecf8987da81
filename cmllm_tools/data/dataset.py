"""A set of examples, each made when it is asked for: no image or mask is read before."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..errors import CmllmError, DataError
from ..shown import Fact, Shown
from ..strict import kind_of, one_of, several, whole_number, whole_seed
from .example import Example
from .lines import Row, unlike

Make = Callable[[Row], Example]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Shown, Sequence[Example]):
    """Examples in the order of their file, or of what was made of it.

    Args:
        name: of the format.
        root: the set's folder; None for one that is of no files.
        rows: one to each example, as they stand in the file.
        make: a row's example.
        scorer: name of the scorer that the set is published with.

    Examples:
        >>> dataset = cm.data.read(cm.bench.HELDOUT)
        >>> len(dataset), len(dataset[:2]), dataset[7].answer
        (500, 2, 'red cross')
    """

    name: str
    root: Path | None
    rows: tuple[Row, ...]
    make: Make
    scorer: str = "strict"

    @classmethod
    def of(cls, examples: Iterable[Example], name: str = "examples") -> "Dataset":
        """Of examples that are at hand.

        Raises:
            DataError: for what are no examples.
        """
        needs = "A data set must be several of data.Example(image, question, region), or from data.read"
        found = [kind_of(each, Example, needs, DataError) for each in several(examples, needs, DataError)]
        rows = [
            Row(number if each.id is None else each.id, each.where or f"example {number}", each, each.split)
            for number, each in enumerate(found)
        ]
        return cls(name, None, tuple(unlike(rows)), _given)

    def facts(self) -> list[Fact]:
        splits = [("", f"{count} {split}") for split, count in self.splits.items() if split]
        where = [] if self.root is None else [("from", str(self.root))]
        return [("", self.name), ("", f"{len(self)} examples"), *splits, *where]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, number: int) -> Example: ...
    @overload
    def __getitem__(self, number: slice) -> "Dataset": ...
    def __getitem__(self, number: int | slice) -> "Example | Dataset":
        """An example, or the set of some.

        Raises:
            DataError: for an example that is malformed; says where it stands.
            CmllmError: of the kind of what is wrong, as an image or a mask that cannot be read.
        """
        if isinstance(number, slice):
            return replace(self, rows=self.rows[number])
        row = self.rows[number]
        try:
            example = self.make(row)
        except CmllmError as error:
            # What a format says of a line goes on from where it stands; other messages are sentences.
            goes_on = str(error)[:1].islower()
            raise type(error)(f"{row.where}{' ' if goes_on else ': '}{error}") from error
        return replace(example, id=row.id, split=row.split, where=row.where, task=example.task or self.name)

    def __iter__(self) -> Iterator[Example]:
        return (self[number] for number in range(len(self)))

    @property
    def ids(self) -> tuple[int | str, ...]:
        """Of all examples, no two alike."""
        return tuple(row.id for row in self.rows)

    @property
    def splits(self) -> dict[str, int]:
        """How many examples each split has."""
        names = [row.split for row in self.rows]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def split(self, name: str) -> "Dataset":
        """The examples of one split.

        Raises:
            DataError: for one that the set does not have.
        """
        known = [each for each in self.splits if each]
        if not known:
            raise DataError(f"A {self.name} set of one split has no {name!r}; take all of it.")
        one_of(name, "The split", [*known, known[0]] if len(known) == 1 else known, DataError)
        return replace(self, rows=tuple(row for row in self.rows if row.split == name))

    def shuffled(self, seed: int = 0) -> "Dataset":
        """The same examples in another order, always the same for a seed.

        Raises:
            SettingsError: for a seed that is none.
        """
        order = np.random.default_rng(whole_seed(seed)).permutation(len(self))
        return replace(self, rows=tuple(self.rows[each] for each in order))

    def shard(self, number: int, of: int) -> "Dataset":
        """Every `of`-th example, from the `number`-th on (1 is the first): all shards together are the set, none has two.

        Raises:
            SettingsError: for numbers that make no sense.
        """
        of = whole_number(of, "The number of shards", 1)
        number = whole_number(number, "The number of a shard", 1, of)
        return replace(self, rows=self.rows[number - 1 :: of])


def as_dataset(examples: Any) -> Dataset:
    """A data set, or examples as one.

    Raises:
        DataError: for what is neither.
    """
    return examples if isinstance(examples, Dataset) else Dataset.of(examples)


def _given(row: Row) -> Example:
    example: Example = row.data
    return example
