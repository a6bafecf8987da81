"""Does an answer name what it should? The reference's matcher, and a strict one."""

import re
from collections.abc import Iterable

_NEGATED = re.compile(r"\s+not[^,.]*[,.]|\s+no[^,.]*[,.]")


def reference_match(answer: str, names: Iterable[str]) -> bool:
    """The published matcher: case-sensitive substring of any name, after clauses with "not" or "no" are cut out.

    Underscores in names stand for spaces. An answer that names both alternatives counts as right.
    """
    answer = _NEGATED.sub("", answer)
    return any(name.replace("_", " ") in answer for name in names)


def strict_match(answer: str, names: Iterable[str], others: Iterable[str]) -> bool:
    """Whole words, any case: one of `names` is named, and none of `others`."""
    return any(names_it(answer, name) for name in names) and not any(names_it(answer, other) for other in others)


def names_it(answer: str, name: str) -> bool:
    """Whether `name` stands in `answer` as whole words, in any case; underscores stand for spaces."""
    return re.search(rf"\b{re.escape(name.replace('_', ' '))}\b", answer, re.IGNORECASE) is not None
