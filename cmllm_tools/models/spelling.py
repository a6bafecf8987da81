"""Tokens as readable text, and words of a question as tokens."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from typing import Any

# Shown for a token that only begins a character, and for one that is nothing but spaces.
PIECE, SPACE = "\u00b7", "\u2423"
# What decoders give for bytes that are no character (yet).
_BROKEN = "\ufffd"
# A character has at most four bytes, and tokens may hold the end of one and the beginning of the next.
_LONGEST = 16

# Beginnings of Unicode names of the scripts that put no space between words.
_UNSPACED = (
    *("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO ", "YI "),
    *("THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ", "JAVANESE ", "BALINESE ", "TAI ", "NEW TAI "),
)
# Zero-width joiners, and the tones of emoji: what stands on both sides of one, or before a tone, is one sign.
_JOINERS = "\u200c\u200d\u2060"
_TONES = range(0x1F3FB, 0x1F400)
# Signs that keyboards and word processors put for one another.
_ALIKE = str.maketrans("\u2018\u2019\u02bc\u2010\u2011", "\x27\x27\x27--")
# Variation selectors choose between two pictures of one sign.
_SELECTORS = "\ufe0e\ufe0f"


def spelled(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """Token ids as text, one by one, without a tokenizer's marks; none is empty.

    A character may be spread over several tokens (bytes): the one that completes it shows it, those before it a `PIECE`.
    """
    shown: list[str] = []
    group: list[int] = []
    told = 0

    # An image's placeholder comes hundreds of times.
    @cache
    def decoded(*several: int) -> str:
        return str(tokenizer.decode(several, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    for token in ids:
        group.append(token)
        text = decoded(*group)
        whole = text.rstrip(_BROKEN)
        new = _visible(whole[told:].lstrip(_BROKEN))
        if whole != text:
            shown.append(new.replace(SPACE, "") + PIECE)
            told = len(whole)
        else:
            shown.append(new or _name(tokenizer, token))
        if whole == text or len(group) == _LONGEST:
            group, told = [], 0
    return tuple(shown)


def places(tokenizer: Any, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """For each token, the characters [from, to) that it has a part in, of the stripped `text` that all of them decode to.

    Each of a character's several tokens has the whole of it. A special token, which is no part of the text, has none.
    """
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    before = len(whole) - len(whole.lstrip())
    found: list[tuple[int, int]] = []
    told = reached = 0
    for count in range(1, len(ids) + 1):
        part = tokenizer.decode(ids[:count], skip_special_tokens=True)
        certain = part.rstrip(_BROKEN)
        begin, told = told, max(told, _alike(certain, whole))
        end = told
        if certain != part:
            # A character that is begun; or what stays one that is none.
            end = min(max(told + 1, _alike(part, whole)), len(whole))
        elif begin < reached <= told and not whole[begin:reached].strip(_BROKEN):
            begin = reached
        reached = max(reached, end)
        found.append((_within(begin - before, text), _within(end - before, text)))
    return found


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _within(at: int, text: str) -> int:
    return min(max(at, 0), len(text))


def _visible(text: str) -> str:
    """Without the spaces around it; what has no shape of its own (a joiner) by its number."""
    if text and all(unicodedata.category(sign) == "Cf" for sign in text):
        return " ".join(f"U+{ord(sign):04X}" for sign in text)
    return text.strip(" ") or SPACE * len(text)


def _name(tokenizer: Any, token: int) -> str:
    """Of a token that decodes to nothing: a space that only stands between words, or an id beyond the vocabulary."""
    name = tokenizer.convert_ids_to_tokens(token)
    return _visible(name.replace("\u2581", " ").replace("\u0120", " ")) if name else f"<{token}>"


def apart(offsets: Iterable[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Each token's characters [from, to) of `text`; of single bytes that are said to share several, each one's own."""
    found: list[tuple[int, int]] = []
    for (low, high), group in groupby(tuple(pair) for pair in offsets):
        count = len(list(group))
        owners = [at for at in range(low, high) for _ in text[at].encode("utf-8", "surrogatepass")]
        fused = high - low > 1 and len(owners) == count
        found += [(at, at + 1) for at in owners] if fused else [(low, high)] * count
    return found


def find_word(text: str, word: str) -> tuple[int, int] | None:
    """Characters [from, to) of the first place where `word`, one or several, stands in `text` as a whole; None if nowhere.

    Case, how accents are coded, and the form of apostrophes and hyphens make no difference, and any white space is one
    space. A word ends where letters, digits or underscores do, a number not at the point within it (3.5). Scripts without
    spaces between words (Chinese, Japanese, Thai, ...) do not show where that is: any run of their characters is found.
    """
    folded, wanted = _folded(text), "".join(sign for sign, _ in _folded(word)).strip()
    line = "".join(sign for sign, _ in folded)
    at = line.find(wanted) if wanted else -1
    while at >= 0:
        end = at + len(wanted)
        if not _inside(line, at) and not _inside(line, end):
            return folded[at][1], folded[end - 1][1] + 1
        at = line.find(wanted, at + 1)
    return None


def _folded(text: str) -> list[tuple[str, int]]:
    """Signs to compare by, each with the number of the character that it comes from."""
    found: list[tuple[str, int]] = []
    for number, character in enumerate(text):
        if character.isspace():
            if not found or found[-1][0] != " ":
                found.append((" ", number))
        elif character not in _SELECTORS:
            found += [(sign, number) for sign in unicodedata.normalize("NFD", character.translate(_ALIKE)).casefold()]
    return found


def _inside(line: str, at: int) -> bool:
    """Whether no word begins or ends between the signs before and at `at`."""
    if not 0 < at < len(line):
        return False
    before, after = line[at - 1], line[at]
    if unicodedata.category(after).startswith("M") or ord(after) in _TONES or before in _JOINERS or after in _JOINERS:
        return True
    if (before in ".," or after in ".,") and _in_number(line, at if after in ".," else at - 1):
        return True
    return all(_lettered(sign) for sign in (before, after))


def _in_number(line: str, at: int) -> bool:
    """Whether digits stand on both sides of the sign at `at`."""
    return 0 < at < len(line) - 1 and line[at - 1].isdigit() and line[at + 1].isdigit()


def _lettered(sign: str) -> bool:
    """Whether a sign is part of words that spaces or punctuation end."""
    if not (sign.isalnum() or sign == "_" or unicodedata.category(sign).startswith("M")):
        return False
    return not unicodedata.name(sign, "").startswith(_UNSPACED)
