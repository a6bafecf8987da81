"""How far a mean over examples may be off: 95 % intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from ..strict import several, shown, whole_seed

# 97.5 % point of the normal distribution.
Z = 1.96
RESAMPLES = 2000
# Weights of all resamples are in memory at once.
MOST = 100_000
# Of fewer examples a resample says nothing: of two, every one in two holds but one of them.
FEWEST = 10


def says_something(count: int, interval: Sequence[float]) -> bool:
    """Whether a bootstrap's interval over `count` examples means anything: few, or all alike, they show no spread."""
    low, high = interval
    # Means of values that are all alike differ by rounding.
    return bool(count >= FEWEST and high - low > 1e-9 * max(abs(low), abs(high)))


def interval_text(count: int, interval: Sequence[float], form: str) -> str:
    """A bootstrap's interval over `count` examples for a person to read, or why there is none."""
    if says_something(count, interval):
        low, high = interval
        return f"95 %: {low:{form}} to {high:{form}}"
    return f"n = {count}: too few for an interval" if count < FEWEST else f"all {count} alike: no interval"


def bootstrap(values: Any, seed: int = 0) -> np.ndarray:
    """Interval (2, ...) of the mean of `values` (example, ...), by percentiles of means over resampled examples.

    It is computed for any number of examples; `says_something` tells whether it is worth showing.

    Raises:
        DataError: for what are no numbers of one example or more.
        SettingsError: for a seed that is none.

    Examples:
        >>> cm.analysis.bootstrap([1.0, 2.0, 3.0, 4.0]).round(1).tolist()
        [1.5, 3.5]
    """
    result: np.ndarray = np.percentile(resampled(values, seed), [2.5, 97.5], axis=0)
    return result


def resampled(values: Any, seed: int = 0) -> np.ndarray:
    """Means (resample, ...) of `values` (example, ...) over resampled examples, the same ones for one seed.

    Raises:
        DataError, SettingsError: as `bootstrap` does.
    """
    values = _numbers(values)
    rng = np.random.default_rng(whole_seed(seed))
    count = len(values)
    # Weights of a resample are how often it holds each example.
    weights = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    result: np.ndarray = (weights @ values.reshape(count, -1)).reshape(RESAMPLES, *values.shape[1:])
    return result


def wilson(fractions: np.ndarray, count: int) -> np.ndarray:
    """Interval (2, ...) of fractions (...) of `count` examples (Wilson 1927), right also for none and for all."""
    centre = (fractions + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * np.sqrt(fractions * (1 - fractions) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    # Rounding may lead a little out of them, and 0 % would be "-0 to 20".
    return np.stack([centre - half, centre + half]).clip(0, 1)


def _numbers(values: Any) -> np.ndarray:
    what = f"Values must be numbers (example, ...) of 1 to {MOST} examples"
    try:
        # A range may say that it is longer than memory.
        found = np.asarray(values if hasattr(values, "shape") else several(values, what, DataError))
    except (TypeError, ValueError, RuntimeError):
        found = np.empty(0)
    if not found.ndim or not found.size or found.dtype.kind not in "iuf" or len(found) > MOST:
        raise DataError(f"{what}; got {shown(values)}.")
    return found
