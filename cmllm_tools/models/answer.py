"""An answer: its text, and the tokens in which a model said it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import PromptError
from ..strict import shown, whole_numbers
from .spelling import places, spelled

ENDS = ("", "end token", "length", "stopped")
Ended = Literal["", "end token", "length", "stopped"]


@dataclass(frozen=True)
class Piece:
    """One token of an answer.

    Args:
        id: of the token.
        text: what it says, readable and never empty; see `spelling.spelled`.
        begin, end: the characters [begin, end) of the answer that it has a part in. A character that is spread over several
            tokens is in the part of each; a special token has none.
        log_probability: natural logarithm of the probability that the model gave it, after the tokens before it, as it was
            steered and before what `generate`'s options (temperature, penalties) make of it; None where that is not known.
    """

    id: int
    text: str
    begin: int
    end: int
    log_probability: float | None = None


class Answer(str):
    """The text of an answer, which also knows its tokens: text alone may be cut into others than those that were said.

    It is a `str` in every way; what is made from it (`answer.lower()`) is text alone.

    Args:
        text: stripped, without special tokens.
        ids: all tokens that were said, without those that ended the answer.
        pieces: these tokens one by one; none where only text and ids are known.
        ended: why it ended: "end token", "length" (max_new_tokens), "stopped" (by a text, a time or a function that was to
            end it); "" where that is not known.

    Examples:
        >>> answer = mllm.generate(prompt)
        >>> [answer[piece.begin : piece.end].strip() for piece in answer.pieces], answer.ended
        (['blue', 'zero', 'at', 'the', 'center'], 'end token')
    """

    ids: tuple[int, ...]
    pieces: tuple[Piece, ...]
    ended: Ended

    def __new__(cls, text: str, ids: Iterable[int] = (), pieces: Iterable[Piece] = (), ended: Ended = "") -> "Answer":
        answer = super().__new__(cls, text)
        answer.ids, answer.pieces, answer.ended = tuple(ids), tuple(pieces), ended
        return answer

    @property
    def log_probabilities(self) -> tuple[float, ...]:
        """Of each token, see `Piece`; none where they are not known."""
        known = tuple(piece.log_probability for piece in self.pieces if piece.log_probability is not None)
        return known if len(known) == len(self.ids) else ()

    def without(self, *tokens: int) -> "Answer":
        """The same, without the tokens of these ids."""
        pieces = (piece for piece in self.pieces if piece.id not in tokens)
        return Answer(self, (each for each in self.ids if each not in tokens), pieces, self.ended)

    def weighed(self, log_probabilities: Iterable[float]) -> "Answer":
        """The same, with the log-probability of each token; some may be those of tokens that ended it.

        Of fewer than there are tokens nothing is known: they may be of any of them.
        """
        known = tuple(log_probabilities)
        if len(known) < len(self.pieces):
            return self
        pieces = (replace(piece, log_probability=each) for piece, each in zip(self.pieces, known, strict=False))
        return Answer(self, self.ids, pieces, self.ended)


def said(tokenizer: Any, ids: list[int], stops: Iterable[int] = (), ended: Ended = "") -> Answer:
    """The answer that a model said in these tokens; `stops` are no part of it where they end it."""
    end, stops = len(ids), set(stops)
    # A stop that is a word (a full stop, say) is part of the text.
    while end and ids[end - 1] in stops and not _text(tokenizer, ids[end - 1 : end]):
        end -= 1
    text, own = _text(tokenizer, ids), ids[:end]
    spans = zip(own, spelled(tokenizer, own), places(tokenizer, own, text), strict=True)
    return Answer(text, own, (Piece(token, word, *span) for token, word, span in spans), ended)


def read_answer(tokenizer: Any, answer: Any, size: int) -> Answer:
    """An answer given as text, as token ids below `size`, or as a model's own answer, whose ids are kept.

    Raises:
        PromptError: for anything else.
    """
    if isinstance(answer, str):
        # Ids of another model's tokenizer mean something else here.
        if isinstance(answer, Answer) and _cut_so(tokenizer, answer, size):
            return answer
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


def _cut_so(tokenizer: Any, answer: Answer, size: int) -> bool:
    """Whether an answer's tokens are the text's in this tokenizer."""
    return bool(answer.ids) and max(answer.ids) < size and _text(tokenizer, list(answer.ids)) == answer


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
