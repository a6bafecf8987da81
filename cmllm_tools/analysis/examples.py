"""What is measured over a set: an image, a question and the region that it asks about."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import DataError
from ..inputs.images import ImageSource
from ..inputs.regions import Regions
from ..strict import kind_of, several, shown


@dataclass(frozen=True, eq=False)
class Example:
    """One question about one region of an image.

    Args:
        image: PIL image, path, or RGB array (height, width, 3), as `Mllm.prepare` takes it.
        question: the user's words.
        region: one or several, in pixels of the image: what the question refers to.
        answer: the right answer, where it is known.
        alternatives: wrong answers, to compare the right one with; kept as a tuple.

    Raises:
        DataError: for alternatives to no answer, or answers that are no texts.
    """

    image: ImageSource
    question: str
    region: Regions
    answer: str | None = None
    alternatives: Sequence[str] = ()

    def __post_init__(self) -> None:
        # Read as several, a text would be as many wrong answers as it has letters.
        wrong = several(self.alternatives, "Alternatives must be several texts, as ('a cat',)", DataError)
        if wrong and self.answer is None:
            raise DataError(f"Alternatives are wrong answers beside a right one; {shown(self.question)} has no answer.")
        for answer in (*wrong, *([] if self.answer is None else [self.answer])):
            kind_of(answer, str, "An answer must be a text", DataError)
        object.__setattr__(self, "alternatives", wrong)


def as_examples(examples: Iterable[Example]) -> list[Example]:
    """The examples as a list.

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
