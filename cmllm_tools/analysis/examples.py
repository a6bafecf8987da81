"""What is measured over a set: examples, as `data` has them."""

import hashlib
from collections.abc import Iterable

from ..data.dataset import Dataset
from ..data.example import Example
from ..errors import DataError
from ..inputs.images import read_image
from ..inputs.regions import as_regions
from ..strict import several

__all__ = ["Example", "as_examples", "as_set", "digest"]


def as_examples(examples: Iterable[Example]) -> list[Example]:
    """The examples as a list; a `data.Dataset` is gone through.

    Raises:
        DataError: for none, or for something that is not an example.
    """
    found = several(examples, "Examples must be several of analysis.Example(image, question, region)", DataError)
    if not found:
        raise DataError("At least one example is needed; got none.")
    for example in found:
        if not isinstance(example, Example):
            raise DataError(
                f"An example must be an analysis.Example(image, question, region); got {type(example).__name__}."
            )
    return list(found)


def as_set(examples: Iterable[Example]) -> Dataset:
    """The examples as a set, each of which may fail by itself.

    Raises:
        DataError: for none, or for something that is not an example.
    """
    found = examples if isinstance(examples, Dataset) else Dataset.of(as_examples(examples))
    if not len(found):
        raise DataError("At least one example is needed; got none.")
    return found


def digest(example: Example) -> str:
    """What tells an example from others, for resuming."""
    regions = [region.to_json() for region in as_regions(example.region)]
    told = repr([example.question, example.answer, example.alternatives, regions])
    return hashlib.sha256(read_image(example.image).tobytes() + told.encode()).hexdigest()[:16]
