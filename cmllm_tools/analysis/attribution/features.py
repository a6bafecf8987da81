"""What is taken away at once: single visual tokens, cells of a grid over the image, or regions."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ...errors import RegionError, SettingsError
from ...inputs.regions import Region
from ...layout.visual_tokens import VisualTokenLayout
from ...strict import shown

Features = Literal["tokens"] | tuple[int, int] | Sequence[Region]


def feature_numbers(layout: VisualTokenLayout, features: Features) -> np.ndarray:
    """(visual token,): which feature each token belongs to; every number from 0 on is taken.

    Raises:
        RegionError: for a region that the model does not see, or that loses all its tokens to others.
        SettingsError: for features that are none of these.
    """
    if is_tokens(features):
        return np.arange(len(layout))
    several: list[Any] = list(features) if isinstance(features, Sequence) and not isinstance(features, str) else []
    if len(several) == 2 and all(isinstance(each, int | np.integer) and each > 0 for each in several):
        x0, y0, x1, y1 = layout.seen
        centres = (layout.boxes[:, :2] + layout.boxes[:, 2:]) / 2
        share = (centres - [x0, y0]) / [x1 - x0, y1 - y0]
        columns, rows = np.clip(np.floor(share * several[::-1]), 0, np.array(several[::-1]) - 1).T.astype(int)
        return np.unique(rows * several[1] + columns, return_inverse=True)[1]
    if not several or not all(isinstance(each, Region) for each in several):
        raise SettingsError(f"Features must be 'tokens', (rows, columns), or a sequence of regions; got {shown(features)}.")
    covers = np.stack([layout.inside(region) for region in several])
    numbers = np.where(covers.max(0) > 0, covers.argmax(0), len(several))
    lost = sorted(set(range(len(several))) - set(numbers))
    if lost:
        raise RegionError(
            f"Every region must keep a visual token that it covers more than the others do; {several[lost[0]]!r} has none."
        )
    return numbers


def is_tokens(features: Features) -> bool:
    """Whether each visual token is a feature of its own."""
    return isinstance(features, str) and features == "tokens"
