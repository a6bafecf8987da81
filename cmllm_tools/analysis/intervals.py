"""How far a mean over examples may be off: 95 % intervals."""

import numpy as np

# 97.5 % point of the normal distribution.
Z = 1.96
RESAMPLES = 2000


def bootstrap(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Interval (2, ...) of the mean of `values` (example, ...), by percentiles of means over resampled examples."""
    rng = np.random.default_rng(seed)
    count = len(values)
    flat = values.reshape(count, -1)
    # Weights of a resample are how often it holds each example.
    weights = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    return np.percentile(weights @ flat, [2.5, 97.5], axis=0).reshape(2, *values.shape[1:])


def wilson(fractions: np.ndarray, count: int) -> np.ndarray:
    """Interval (2, ...) of fractions (...) of `count` examples (Wilson 1927), right also for none and for all."""
    centre = (fractions + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * np.sqrt(fractions * (1 - fractions) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return np.stack([centre - half, centre + half])
