"""Kinds of settings: what values they take, in words, and how values and texts are read; every error names the setting.

Examples:
    >>> cm.methods.kinds.real(least=0).range
    'a number at least 0'
    >>> cm.methods.kinds.real(least=0).parsed("2.5", "strength")
    2.5
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..attention.heads import as_heads
from ..errors import SettingsError
from ..models.prompt import as_queries, queries_name
from ..stored import Reader
from ..strict import flag, number, one_of, several, shown, whole_number, whole_numbers
from .energy import SIGMAS, checked_sigma


@dataclass(frozen=True)
class Kind:
    """What values a setting takes.

    Args:
        name: of the kind, by which panels choose a field.
        range: in words.
        read: from any value to a plain one.
        parse: from how the command line and text fields write it to a value, to be read; ValueError for other texts.
        write: that text of a value.
        choices: the words that it may be, where it is one of several.
    """

    name: str
    range: str
    read: Reader
    parse: Callable[[str], Any] = str
    write: Callable[[Any], str] = str
    choices: tuple[str, ...] = ()

    def parsed(self, text: str, what: str) -> Any:
        """The value that a text says.

        Raises:
            SettingsError: for a text that says none, or one out of range.
        """
        try:
            value = self.parse(text.strip())
        except ValueError:
            raise SettingsError(f"{what} must be {self.range}; got {shown(text)}.") from None
        return self.read(value, what)


def whole(least: int | None = None, most: int | None = None) -> Kind:
    """A whole number."""
    words = "" if least is None else f" of at least {least}"
    words += "" if most is None else f" of at most {most}"
    return Kind("whole", f"a whole number{words}", partial(whole_number, least=least, most=most), int)


def real(least: float | None = None, most: float | None = None, above: float | None = None) -> Kind:
    """A finite number; `above` is a bound that it may not reach."""
    bounds = ((least, "at least"), (above, "above"), (most, "at most"))
    words = " and ".join(f"{name} {bound:g}" for bound, name in bounds if bound is not None)
    return Kind("real", f"a number {words}".strip(), partial(number, least=least, most=most, above=above), float, _number)


def choice(*words: str) -> Kind:
    """One of several words."""
    return Kind("choice", "one of " + ", ".join(words), partial(one_of, choices=words), choices=words)


def text() -> Kind:
    """Any text that says something."""

    def read(value: Any, what: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise SettingsError(f"{what} must be a text; got {shown(value)}.")
        return value

    return Kind("text", "a text", read)


def read_window(value: Any, what: str) -> tuple[int, ...]:
    """A window (a, b), which a range says too, or () for all layers."""
    if isinstance(value, range) and value and value.step == 1:
        value = (value.start, value.stop)
    window = whole_numbers(value, what, least=0)
    if isinstance(value, range) or (window and (len(window) != 2 or window[0] >= window[1])):
        raise SettingsError(
            f"{what} must be a window (a, b) with 0 <= a < b, which takes in layers a to b - 1, a range of step 1, or () "
            f"for all; got {shown(value)}."
        )
    return window


def read_heads(value: Any, what: str) -> Any:
    """Numbers of heads, or (layer, head) pairs; None for all."""
    heads = as_heads(value, SettingsError)
    numbers = [part for head in heads or () for part in (head if isinstance(head, tuple) else (head,))]
    if heads == () or any(part < 0 for part in numbers):
        raise SettingsError(f"{what} must be one or more numbers of at least 0, or None for all; got {shown(value)}.")
    return heads


def _share(value: Any, what: str) -> float:
    weight = number(value, what)
    if not 0 < weight <= 1:
        raise SettingsError(f"{what} must be above 0 and at most 1; got {shown(value)}.")
    return weight


def _gain(value: Any, what: str) -> float:
    gain = number(value, what, least=0)
    if 0 < gain <= 1:
        raise SettingsError(f"{what} must be 0, or above 1, as it is 1 before any step; got {shown(value)}.")
    return gain


def _betas(value: Any, what: str) -> tuple[float, float]:
    needs = f"{what} must be two numbers, as (0.9, 0.999)"
    found = several(value, needs)
    if len(found) != 2:
        raise SettingsError(f"{needs}; got {shown(value)}.")
    first, second = (number(beta, f"Each of {what}", least=0, most=1) for beta in found)
    if 1 in (first, second):
        raise SettingsError(f"Each of {what} must be below 1; got {shown(value)}.")
    return first, second


# A run of more would take weeks, and its trace more memory than there is.
_MOST_STEPS = 1_000_000


def _steps(value: Any, what: str) -> int:
    return whole_number(whole_number(value, what, least=1), what, most=_MOST_STEPS)


def _number(value: float) -> str:
    return f"{value:g}"


def _flag(word: str) -> bool:
    if word not in ("yes", "no"):
        raise ValueError
    return word == "yes"


def _window(words: str) -> tuple[int, ...]:
    if words in ("", "all"):
        return ()
    low, high = words.split(":")
    return int(low), int(high)


def _heads(words: str) -> Any:
    heads = words.replace(",", " ").split()
    return tuple(tuple(map(int, head.split(":"))) if ":" in head else int(head) for head in heads) or None


def _heads_text(heads: Any) -> str:
    return " ".join(":".join(map(str, head)) if isinstance(head, tuple) else str(head) for head in heads or ())


def _queries(words: str) -> Any:
    found = tuple(int(word) if word.lstrip("-").isdigit() else word for word in words.replace(",", " ").split())
    if not found:
        raise ValueError
    return found[0] if len(found) == 1 else found


def _wholes(words: str) -> tuple[int, ...]:
    return tuple(map(int, words.replace(",", " ").split()))


def _joined(values: Any) -> str:
    return " ".join(f"{value:g}" for value in values)


STEPS = Kind("whole", "a whole number of at least 1", _steps, int)
FLAG = Kind("flag", "yes or no", flag, _flag, lambda value: "yes" if value else "no")
SHARE = Kind("real", "above 0 and at most 1", _share, float, _number)
SIGMA = Kind("real", f"a width in {SIGMAS[0]:g}..{SIGMAS[1]:g}", checked_sigma, float, _number)
GAIN = Kind("real", "0, or a number above 1", _gain, float, _number)
BETAS = Kind(
    "numbers", "two numbers in [0, 1)", _betas, lambda words: tuple(map(float, words.replace(",", " ").split())), _joined
)
WINDOW = Kind(
    "window",
    "a window A:B, which takes in layers A to B - 1, or all",
    read_window,
    _window,
    lambda window: ":".join(map(str, window)),
)
HEADS = Kind("heads", "numbers, or layer:head pairs, such as 2:4 3:1; none for all", read_heads, _heads, _heads_text)
QUERIES = Kind(
    "queries",
    "text, after_image, last, or words of the question, or positions",
    lambda value, what: as_queries(value, SettingsError),
    _queries,
    queries_name,
)
NUMBERS = Kind("numbers", "whole numbers", whole_numbers, _wholes, _joined)
