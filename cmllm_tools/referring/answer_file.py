"""An answer as plain data, in an outcome's or a trace's file."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from ..errors import CmllmError, DataError
from ..models.answer import ENDS, Answer, Piece
from ..stored import Reader, items, or_none, record, text_of, unread
from ..strict import number, one_of, whole_number

# What an answer that was saved before its pieces were known leaves out.
_LATER: dict[str, Any] = {"pieces": [], "ended": ""}


def answer_data(answer: Answer | str) -> dict[str, Any]:
    """Plain data from which `saved_answer` makes the answer again."""
    known = answer if isinstance(answer, Answer) else Answer(answer)
    pieces = [[each.text, each.begin, each.end, each.log_probability] for each in known.pieces]
    return {"text": str(known), "ids": list(known.ids), "pieces": pieces, "ended": known.ended}


def saved_answer(value: Any, what: str, error: type[CmllmError] = DataError) -> Answer:
    """The answer that was saved; as its text alone, or its text and ids, where it was saved by an earlier version.

    Raises:
        error: for anything else.
    """
    if isinstance(value, str):
        return Answer(value)
    readers: dict[str, Reader] = {
        "text": partial(text_of, error=error),
        "ids": partial(items, read=partial(whole_number, least=0, error=error), error=error),
        "pieces": partial(items, read=unread, error=error),
        "ended": partial(one_of, choices=ENDS, error=error),
    }
    found = record({**_LATER, **value} if isinstance(value, dict) else value, what, readers, error)
    text, ids = found["text"], found["ids"]
    if found["pieces"] and len(found["pieces"]) != len(ids):
        raise error(f"{what} must have a piece to each of its {len(ids)} tokens; it has {len(found['pieces'])}.")
    read = partial(_piece, what=f"{what}'s piece", length=len(text), error=error)
    return Answer(text, ids, map(read, ids, found["pieces"]), found["ended"])


def _piece(token: int, value: Any, what: str, length: int, error: type[CmllmError]) -> Piece:
    if not isinstance(value, list) or len(value) != 4:
        raise error(f"{what} must be a text, two places and a log-probability; got {value!r:.80}.")
    begin, end = _places(value[1:3], what, length, error)
    most = or_none(partial(number, most=1e-3, error=error))
    return Piece(token, text_of(value[0], what, error), begin, end, most(value[3], what))


def _places(values: Iterable[Any], what: str, length: int, error: type[CmllmError]) -> tuple[int, int]:
    begin, end = (whole_number(each, f"{what}'s place", 0, length, error) for each in values)
    return begin, max(begin, end)
