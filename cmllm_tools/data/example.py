"""One question about a region of an image: what is measured, whatever set it is from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import DataError
from ..inputs.images import ImageSource
from ..inputs.regions import Region, Regions, as_regions
from ..strict import kind_of, several, shown


@dataclass(frozen=True, eq=False)
class Example:
    """One question about one region of an image.

    Args:
        image: PIL image, path, or RGB array (height, width, 3), as `Mllm.prepare` takes it; a path is read when
            it is needed.
        question: the user's words.
        region: one or several, in pixels of the image: what the question refers to.
        answer: the right answer, where it is known.
        alternatives: wrong answers, to compare the right one with; kept as a tuple.
        names: every right answer: the name that a set gives, then its synonyms as they stand there, or all descriptions;
            the answer alone where none are given.
        id: of the example in its set.
        task: what kind of question it is, as "roc".
        split: of the set, as "test".
        tags: groups that figures are also given for, as ViP-Bench's capabilities.
        where: file and line that it is from, for messages.

    Raises:
        DataError: for alternatives to no answer, or a question, answers and names that are no texts.

    Examples:
        >>> example = cm.analysis.Example(scene.image, "describe the object.", box, "red cross")
        >>> example.region, example.names
        (Box(x0=146, y0=79, x1=192, y1=127), ('red cross',))
    """

    image: ImageSource
    question: str
    region: Regions
    answer: str | None = None
    alternatives: Sequence[str] = ()
    names: Sequence[str] = field(default=(), kw_only=True)
    id: int | str | None = field(default=None, kw_only=True)
    task: str = field(default="", kw_only=True)
    split: str = field(default="", kw_only=True)
    tags: tuple[str, ...] = field(default=(), kw_only=True)
    where: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        kind_of(self.question, str, "An example's question must be a text", DataError)
        # Read as several, a text would be as many wrong answers as it has letters.
        wrong = several(self.alternatives, "Alternatives must be several texts, as ('a cat',)", DataError)
        if wrong and self.answer is None:
            raise DataError(f"Alternatives are wrong answers beside a right one; {shown(self.question)} has no answer.")
        known = () if self.answer is None else (self.answer,)
        names = several(self.names, "Names must be several texts, as ('cat', 'house_cat')", DataError) or known
        for answer in (*wrong, *names, *known):
            kind_of(answer, str, "An answer must be a text", DataError)
        object.__setattr__(self, "alternatives", wrong)
        object.__setattr__(self, "names", names)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The region or regions, as several."""
        return as_regions(self.region)
