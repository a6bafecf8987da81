"""Which window of layers and context token a sweep recommends."""

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..strict import kind_of
from .choices import Choice
from .intervals import bootstrap, interval_text
from .sweep import LESS, Sweep, where_measured


@dataclass(frozen=True)
class Recommendation:
    """The choice that a sweep proposes.

    Args:
        choice: to steer with.
        by: the figure it was chosen by.
        mean: of that figure.
        against: the best choice that takes all layers: from the first to the last of any choice.
        gain: mean difference of the figure to `against`, positive where the choice is better.
        interval: of the gain, 95 %, from resampled examples: the ones it was chosen on, so that on others it may gain less.
            Of few examples it means nothing: see `count`.
        reason: in words.
        count: number of examples it is from.

    Examples:
        >>> advice = cm.analysis.recommend(sweep)
        >>> advice.choice, advice.count
        (Choice(layers=(0, 3), queries='last'), 2)
    """

    choice: Choice
    by: str
    mean: float
    against: Choice
    gain: float
    interval: tuple[float, float]
    reason: str
    count: int

    def __str__(self) -> str:
        return (
            f"recommended: {self.choice}\n{self.reason}\n"
            f"{self.by} {self.mean:.3f}; against {self.against} {self.gain:+.3f} "
            f"({interval_text(self.count, self.interval, '+.3f')})"
        )


def recommend(sweep: Sweep, by: str | None = None) -> Recommendation:
    """The choice to steer with, by the one-standard-error rule (Breiman et al. 1984, section 3.4.3).

    Of all choices whose figure is, by the examples, within one standard error of the best one's, that whose window ends
    first, as the forward ends with it; of these the one with the best figure.

    Args:
        sweep: of at least two examples.
        by: "moved" (log-probability of the right answer) where examples have answers, else "share"; or another figure.

    Raises:
        DataError: for fewer than two examples, no choice that takes all layers, or a figure that was not measured.

    Examples:
        >>> cm.analysis.recommend(sweep).by
        'moved'
    """
    kind_of(sweep, Sweep, "A recommendation is made from a Sweep, as sweep_windows gives it", DataError)
    by = sweep.decisive if by is None else by
    values = where_measured(sweep.figure(by)) * (-1 if by in LESS else 1)
    if values.shape[1] < 2 or not np.isfinite(values).all(1).any():
        raise DataError(
            f"A recommendation needs at least two examples on which {by!r} was measured, and a choice that failed on none; "
            f"it was measured on {values.shape[1]} of {sweep.done}. Give more, with answers where `by` is about these."
        )
    means = np.where(np.isfinite(values).all(1), values.mean(1), -np.inf)
    best = int(means.argmax())
    # Paired: what examples have in common does not count as noise.
    away = values[best] - values
    errors = away.std(1, ddof=1) / np.sqrt(values.shape[1])
    close = [
        int(index)
        for index in np.flatnonzero(np.isfinite(means))
        if index == best or means[best] - means[index] <= errors[index]
    ]
    chosen = min(close, key=lambda index: (sweep.choices[index].layers[1], -means[index]))
    every = min(choice.layers[0] for choice in sweep.choices), max(choice.layers[1] for choice in sweep.choices)
    whole = [index for index, choice in enumerate(sweep.choices) if choice.layers == every and np.isfinite(means[index])]
    if not whole:
        raise DataError(f"A recommendation needs the window of all layers, {every}, among the choices.")
    against = max(whole, key=lambda index: means[index])
    gains = values[chosen] - values[against]
    low, high = bootstrap(gains).tolist()
    reason = (
        f"{sweep.choices[best]} has the best {by!r} of {len(sweep.choices)} choices; {len(close) - 1} more are within one "
        f"standard error of it on {values.shape[1]} examples, and of these {sweep.choices[chosen]} ends the forward first"
    )
    return Recommendation(
        sweep.choices[chosen],
        by,
        float(sweep.means(by)[chosen]),
        sweep.choices[against],
        float(gains.mean()),
        (low, high),
        reason,
        len(gains),
    )
