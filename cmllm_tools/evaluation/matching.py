"""Does an answer name what it should? The reference's matcher, and a strict one."""

import re
from collections.abc import Iterable

from ..errors import DataError
from ..strict import kind_of, several

# One after the other, in this order: what the first has cut out may have stood between the parts of a second.
_NEGATED = (re.compile(r"\s+not[^,.]*[,.]"), re.compile(r"\s+no[^,.]*[,.]"))


def published_match(answer: str, name: str, synonyms: Iterable[str] = ()) -> bool:
    """The published matcher of ROC and RTC: a case-sensitive substring, after clauses with "not", then "no", are cut out.

    An answer that names both alternatives counts as right, and so does one that has a name within a longer word.

    Args:
        answer: what the model said.
        name: the object's name, or RTC's label; as it is, but for underscores.
        synonyms: each split at a parenthesis: "bat_(animal)" is met by "bat" and by "animal".

    Raises:
        DataError: for a synonym with several parentheses, or one that is not closed, as the published code has it; for an
            answer or names that are no texts.

    Examples:
        >>> cm.evaluation.published_match("a red cross, not a zero", "red cross")
        True
        >>> cm.evaluation.published_match("a crossing", "cross")
        True
    """
    answer = _text(answer)
    for negated in _NEGATED:
        answer = negated.sub("", answer)
    wanted = [_plain(_text(name)), *(part for synonym in _texts(synonyms) for part in parts_of(synonym))]
    return any(each in answer for each in wanted)


def reference_match(answer: str, names: str | Iterable[str]) -> bool:
    """`published_match` of names that are all split at parentheses, as in LVIS the name is one of its synonyms.

    Args:
        answer: what the model said.
        names: the object's name and synonyms, as ROC has them; or one text, RTC's label, which is not split.

    Raises:
        DataError: as `published_match`.
    """
    if isinstance(names, str):
        return published_match(answer, names)
    found = _texts(names)
    return any(published_match(answer, part) for name in found for part in parts_of(name))


def parts_of(name: str) -> list[str]:
    """A name, or both of "bat_(animal)"; underscores become spaces.

    Raises:
        DataError: for several parentheses, or one that is not closed.
    """
    if "(" not in name:
        return [_plain(name)]
    parts = name.split("(")
    if len(parts) != 2 or ")" not in name:
        raise DataError(f"A name may have one parenthesis, as in 'bat_(animal)'; got {name!r}.")
    return [_plain(parts[0]), _plain(parts[1].replace(")", ""))]


def _plain(name: str) -> str:
    return name.replace("_", " ").strip()


def strict_match(answer: str, names: Iterable[str], others: Iterable[str]) -> bool:
    """Whole words, any case: one of `names` is named, and none of `others`.

    Raises:
        DataError: for what is no text, or no several of them.

    Examples:
        >>> cm.evaluation.strict_match("A red cross.", ["red cross"], ["blue zero"])
        True
    """
    wanted, others = _texts(names), _texts(others)
    return any(names_it(answer, name) for name in wanted) and not any(names_it(answer, other) for other in others)


def names_it(answer: str, name: str) -> bool:
    """Whether `name` stands in `answer` as whole words, in any case; underscores stand for spaces.

    Raises:
        DataError: for what is no text.
    """
    return re.search(rf"\b{re.escape(_text(name).replace('_', ' '))}\b", _text(answer), re.IGNORECASE) is not None


def _text(value: object) -> str:
    return kind_of(value, str, "Answers and names must be texts", DataError)


def _texts(values: object) -> list[str]:
    return [_text(value) for value in several(values, "Names must be several texts, as ['cat']", DataError)]
