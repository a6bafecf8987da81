"""One strict reading of what callers give: whole numbers, numbers, flags and choices, as plain Python values or an error.

`int()` turns 1.5 into 1, "12" into a number and True into 1, and a generator is gone after its first use; values that come
back from here can be compared, saved as JSON and used again.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from math import isfinite, isnan
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

from .errors import CmllmError, SettingsError

Kind = TypeVar("Kind")
# No list of layers, heads, tokens or points is longer; `range(10**18)` would fill the memory.
_MOST = 1_000_000


def whole_number(
    value: object, what: str, least: int | None = None, most: int | None = None, error: type[CmllmError] = SettingsError
) -> int:
    """`value` as an int: Python's and numpy's whole numbers, and tensors of one, within `least` and `most`.

    Raises:
        error: for anything else; booleans, floats and texts are no whole numbers.
    """
    value = _plain(value)
    if not isinstance(value, Integral) or isinstance(value, bool | np.bool_) or not _within(value, least, most):
        raise error(f"{what} must be a whole number{_bounds(least, most)}; got {shown(value)}.")
    return int(value)


def whole_number_or_none(
    value: object, what: str, least: int | None = None, most: int | None = None, error: type[CmllmError] = SettingsError
) -> int | None:
    """`whole_number`, or None where that stands for something of its own."""
    return None if value is None else whole_number(value, what, least, most, error)


def whole_seed(value: object) -> int:
    """`value` as a seed that numpy and torch both take."""
    return whole_number(value, "The seed", 0, 2**63 - 1)


def several(values: object, what: str, error: type[CmllmError] = SettingsError) -> tuple[Any, ...]:
    """What an iterable holds, in its order; generators are used up.

    Raises:
        error: for what is no iterable (texts, mappings and arrays of one value included), that fails on the way, or has no
            end.
    """
    if isinstance(values, str | bytes | bytearray | Mapping) or getattr(values, "shape", None) == ():
        raise error(f"{what}; got {shown(values)}.")
    try:
        found = tuple(islice(values, _MOST + 1))  # type: ignore[call-overload]
    except CmllmError:
        raise
    except Exception as fault:
        # An iterator is the caller's own code.
        raise error(f"{what}; got {shown(values)}.") from fault
    if len(found) > _MOST:
        raise error(f"{what}, at most {_MOST} of them; got {shown(values)}.")
    return found


def whole_numbers(
    values: object, what: str, least: int | None = None, most: int | None = None, error: type[CmllmError] = SettingsError
) -> tuple[int, ...]:
    """Several of them: any iterable that is no text and no mask of booleans; the order is kept, generators are used up."""
    found = several(values, f"{what} must be several whole numbers{_bounds(least, most)}, as (0, 1)", error)
    return tuple(whole_number(value, f"Each of {what}", least, most, error) for value in found)


def pair_of_sides(values: object, what: str, error: type[CmllmError] = SettingsError) -> tuple[int, int]:
    """Two whole numbers of at least 1: width and height, or rows and columns.

    Raises:
        error: for anything else.
    """
    sides = whole_numbers(values, what, 1, _MOST, error)
    if len(sides) != 2:
        raise error(f"{what} must be two whole numbers; got {shown(values)}.")
    return sides[0], sides[1]


def kind_of(value: Any, kind: type[Kind], what: str, error: type[CmllmError] = SettingsError) -> Kind:
    """`value`, which must be one of this class.

    Raises:
        error: for anything else; `what` says where one comes from.
    """
    if not isinstance(value, kind):
        raise error(f"{what}; got {shown(value)}.")
    return value


def number(
    value: object,
    what: str,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    error: type[CmllmError] = SettingsError,
) -> float:
    """`value` as a finite float within `least` and `most`, or `above` a bound that it may not reach.

    Raises:
        error: for anything else; booleans and texts are no numbers.
    """
    value = _plain(value)
    good = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    try:
        found = float(value) if good else float("nan")  # type: ignore[arg-type]
    except (OverflowError, ValueError):
        found = float("nan")
    if not (isfinite(found) and _within(found, least, most) and (above is None or found > above)):
        bounds = f" above {above:g}" if above is not None and least is None else ""
        and_most = f" and at most {most:g}" if bounds and most is not None else ""
        raise error(f"{what} must be a finite number{bounds + and_most or _bounds(least, most)}; got {shown(value)}.")
    return found


def numbers_or_gaps(values: object, what: str, error: type[CmllmError] = SettingsError) -> tuple[float | None, ...]:
    """Several numbers, and None where there is none, which nan stands for too.

    Raises:
        error: for anything else.
    """
    found = [_plain(value) for value in several(values, f"{what} must be several numbers", error)]
    gaps = [value is None or (isinstance(value, float | np.floating) and bool(isnan(value))) for value in found]
    return tuple(
        None if gap else number(value, f"Each of {what}", error=error) for value, gap in zip(found, gaps, strict=True)
    )


def flag(value: object, what: str, error: type[CmllmError] = SettingsError) -> bool:
    """`value` as True or False; numbers and texts are neither.

    Raises:
        error: for anything else.
    """
    value = _plain(value)
    if not isinstance(value, bool | np.bool_):
        raise error(f"{what} must be True or False; got {shown(value)}.")
    return bool(value)


def one_of(value: object, what: str, choices: Sequence[str], error: type[CmllmError] = SettingsError) -> str:
    """`value`, which must be one of these words.

    Raises:
        error: for anything else.
    """
    if not isinstance(value, str) or value not in choices:
        named = [repr(choice) for choice in choices]
        raise error(f"{what} must be {', '.join(named[:-1])} or {named[-1]}; got {shown(value)}.{nearest(value, choices)}")
    return value


def nearest(value: object, choices: Iterable[str]) -> str:
    """For the end of a message: the choice that was meant, where one is spelt nearly as this; else nothing."""
    by_letters = {each.lower(): each for each in choices}
    close = get_close_matches(value.lower(), by_letters, 1) if isinstance(value, str) else []
    return f" Did you mean {by_letters[close[0]]}?" if close else ""


def shown(value: object) -> str:
    """A value for a message: its repr, cut where it is long, or its type where it has none."""
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__}"
    # Surrogates can be neither printed nor saved.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(value: Any) -> Any:
    """A tensor or array of one value as that value."""
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (RuntimeError, NotImplementedError):
        # A meta tensor has a shape and no value.
        return value


def _within(value: Any, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" in {least:g}..{most:g}"
    return f" of at least {least:g}" if least is not None else f" of at most {most:g}" if most is not None else ""


def register_class(known: dict[str, Any], name: str, kind: type, what: str) -> None:
    """Put a class into a table of classes by its name.

    Args:
        known: the table.
        name: what the class is asked for by.
        kind: the class.
        what: it is, as "A method".

    Raises:
        SettingsError: for a name that another class has.
    """
    there = known.get(name, kind)
    # A notebook's cell that is run again defines its class anew.
    if (there.__module__, there.__qualname__) != (kind.__module__, kind.__qualname__):
        raise SettingsError(f"{what} must have a name of its own; there is a {name} in {there.__module__} already.")
    known[name] = kind
