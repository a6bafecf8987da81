"""An answer: its text, and the tokens in which a model said it."""

from collections.abc import Iterable
from typing import Any

from ..errors import PromptError
from ..strict import shown, whole_numbers


class Answer(str):
    """The text of an answer, which also knows its tokens: text alone may be cut into others than those that were said.

    It is a `str` in every way; what is made from it (`answer.lower()`) is text alone.

    Args:
        text: stripped, without special tokens.
        ids: all tokens that were said, without those that ended the answer.
    """

    ids: tuple[int, ...]

    def __new__(cls, text: str, ids: Iterable[int] = ()) -> "Answer":
        answer = super().__new__(cls, text)
        answer.ids = tuple(ids)
        return answer


def said(tokenizer: Any, ids: list[int], stops: Iterable[int] = ()) -> Answer:
    """The answer that a model said in these tokens; `stops` are no part of it where they end it."""
    end, stops = len(ids), set(stops)
    # A stop that is a word (a full stop, say) is part of the text.
    while end and ids[end - 1] in stops and not _text(tokenizer, ids[end - 1 : end]):
        end -= 1
    return Answer(_text(tokenizer, ids), ids[:end])


def read_answer(tokenizer: Any, answer: Any, size: int) -> Answer:
    """An answer given as text, as token ids below `size`, or as a model's own answer, whose ids are kept.

    Raises:
        PromptError: for anything else.
    """
    if isinstance(answer, str):
        # Ids of another model's tokenizer mean something else here.
        if isinstance(answer, Answer) and answer.ids and max(answer.ids) < size:
            own = said(tokenizer, list(answer.ids))
            if own == answer:
                return own
        if not encodable(answer):
            raise PromptError(f"An answer must be a text of whole characters; got {shown(answer)}.")
        return Answer(answer, tokenizer(str(answer), add_special_tokens=False)["input_ids"])
    if answer is None or not isinstance(answer, Iterable):
        raise PromptError(f"An answer must be a text with at least one word, or its token ids; got {shown(answer)}.")
    ids = whole_numbers(answer, "an answer's token ids", 0, size - 1, PromptError)
    return said(tokenizer, list(ids))


def encodable(text: str) -> bool:
    """Whether it is without surrogates, halves of characters that no tokenizer takes."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
