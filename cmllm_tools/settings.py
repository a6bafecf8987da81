"""How a method's settings are read: from what was given to a plain value, or an error that names the setting."""

from collections.abc import Callable
from typing import Any

from .errors import SettingsError
from .heads import as_heads
from .strict import number, several, shown, whole_number, whole_numbers

# From what was given and the setting's name to its value, or SettingsError.
Reader = Callable[[Any, str], Any]


# A run of more would take weeks, and its trace more memory than there is.
_MOST_STEPS = 1_000_000


def read_steps(value: Any, what: str) -> int:
    """A number of updates."""
    return whole_number(whole_number(value, what, least=1), what, most=_MOST_STEPS)


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


def read_share(value: Any, what: str) -> float:
    """A number above 0 and at most 1."""
    weight = number(value, what)
    if not 0 < weight <= 1:
        raise SettingsError(f"{what} must be above 0 and at most 1; got {shown(value)}.")
    return weight


def read_betas(value: Any, what: str) -> tuple[float, float]:
    """Two numbers in [0, 1)."""
    needs = f"{what} must be two numbers, as (0.9, 0.999)"
    found = several(value, needs)
    if len(found) != 2:
        raise SettingsError(f"{needs}; got {shown(value)}.")
    first, second = (number(beta, f"Each of {what}", least=0, most=1) for beta in found)
    if 1 in (first, second):
        raise SettingsError(f"Each of {what} must be below 1; got {shown(value)}.")
    return first, second
