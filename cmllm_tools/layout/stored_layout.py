"""A layout read back from plain data, with what must hold of it before anything is made of it."""

from functools import partial
from typing import Any

import numpy as np

from ..errors import UnsupportedModelError
from ..inputs.video import MOST_FRAMES
from ..stored import array_of, items, object_of, record, sides_of, text_of, unread
from ..strict import flag, whole_number
from .sheet import SheetLayout
from .video import VideoLayout
from .visual_tokens import VisualTokenLayout, most_cells

# Corners beyond are no pixels of an image.
FARTHEST = 1e9

_ERROR = UnsupportedModelError
_sides = partial(sides_of, error=_ERROR)
_frames = partial(whole_number, least=1, most=MOST_FRAMES, error=_ERROR)


def read_layout(value: Any, what: str = "A stored layout") -> VisualTokenLayout:
    """The layout of what `to_json` gave: of one image, of several, or of a video.

    Raises:
        UnsupportedModelError: for anything else.
    """
    value = object_of(value, what, _ERROR)
    if "images" in value:
        images = record(value, what, {"images": partial(items, read=_of_one, error=_ERROR)}, _ERROR)["images"]
        if len(images) < 2:
            raise UnsupportedModelError(f"{what} of several images must be of two or more; got {len(images)}.")
        return SheetLayout.of(images)
    if "video" in value:
        video = record(value, what, {"video": _of_one, "frames": _frames, "frames_per_token": _frames}, _ERROR)
        return VideoLayout.of_video(video["video"], video["frames"], video["frames_per_token"])
    return _of_one(value, what)


def _of_one(value: Any, what: str) -> VisualTokenLayout:
    """Of one image."""
    found = record(
        # What was saved before grids could be for looking only does not say so.
        {"merged": False, **object_of(value, what, _ERROR)},
        what,
        {
            "image_size": _sides,
            "boxes": unread,
            "grid": _sides,
            "rule": partial(text_of, error=_ERROR),
            "merged": partial(flag, error=_ERROR),
        },
        _ERROR,
    )
    (rows, columns), boxes = found["grid"], found["boxes"]
    if not isinstance(boxes, list) or not boxes or rows * columns > most_cells(len(boxes)):
        raise UnsupportedModelError(
            f"{what} must have boxes, and not many times more cells; got a grid of {rows} x {columns}."
        )
    corners = array_of(boxes, f"{what}'s boxes", (len(boxes), 4), _ERROR)
    if (corners[:, :2] > corners[:, 2:]).any() or (np.abs(corners) > FARTHEST).any():
        raise UnsupportedModelError(f"{what}'s boxes must be x0 <= x1 and y0 <= y1, in pixels.")
    return VisualTokenLayout(found["image_size"], corners, found["grid"], found["rule"], found["merged"])
