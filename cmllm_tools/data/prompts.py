"""The words in which the public sets ask, with and without where; and what a question gives to choose from."""

import re
from collections.abc import Sequence
from typing import Any

LOCATION = "<location>"
# Added where the question says where.
SHORT = " Answer the question using a single word or phrase."
_CHOICE = (
    # RTC's.
    re.compile(r"'(.+?)' or '(.+?)'"),
    # ROC's.
    re.compile(r"\ban? (.+?) or an? (.+?)\s*(?:[?.]|$)"),
)


def without_location(text: str) -> str:
    """The text as models are asked that read no coordinates: the reference's two ways to leave the place out."""
    return text.replace(f"{LOCATION} ", "").replace(f" {LOCATION}", "")


def coordinates(corners: Any) -> str:
    """`box @ [x1, y1, x2, y2]` of x, y, width and height, cut to whole numbers as the reference does."""
    x, y, width, height = corners
    return f"box @ [{int(x)}, {int(y)}, {int(x + width)}, {int(y + height)}]"


def at_box(text: str, corners: Any) -> str:
    """The text as models are asked that read coordinates.

    The reference leaves a second space behind the coordinates; here one is enough.
    """
    return text.replace(LOCATION, coordinates(corners))


def part_of(number: int, test: int) -> str:
    """Name of the split of a line: the first `test` are for testing."""
    return "test" if number < test else "val"


def choices_of(question: str) -> tuple[str, ...]:
    """What a question gives to choose from, "a A or a B?" or "'A' or 'B'"; empty where it gives nothing."""
    found = next((match for pattern in _CHOICE if (match := pattern.search(question))), None)
    return () if found is None else tuple(part.strip() for part in found.groups())


def others_of(question: str, names: Sequence[str]) -> tuple[str, ...]:
    """Of the two things that a question gives to choose from the one that is not named so; empty where it is not clear."""
    known = {name.replace("_", " ").strip().lower() for name in names}
    choices = choices_of(question)
    wrong = tuple(each for each in choices if each.lower() not in known)
    return wrong if len(wrong) < len(choices) else ()
