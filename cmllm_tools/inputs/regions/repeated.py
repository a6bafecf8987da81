"""One region at several places of a sheet: that of a video's frames, on each of which it is drawn alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import RegionError
from ...strict import several, whole_number
from .base import Region, Size, image_size, raster_size


@dataclass(frozen=True, init=False, repr=False)
class Repeated(Region):
    """A region of a video's frame, on several frames of the sheet that shows them all; in pixels of the sheet.

    Args:
        region: in pixels of a frame; it may say on which frames it is.
        corners: (x, y) of the upper left corner of each of these frames on the sheet, at least one.
        size: (width, height) of a frame.

    Raises:
        RegionError: for no corner, and a region off the frame.
    """

    region: Region
    corners: tuple[tuple[int, int], ...]
    size: Size

    def __init__(self, region: Region, corners: Sequence[Sequence[int]], size: Size):
        what = "A region on several frames must have the corner of each on the sheet"
        found = [several(corner, what, RegionError) for corner in several(corners, what, RegionError)]
        if not found or any(len(corner) != 2 for corner in found):
            raise RegionError(f"{what}; got {found}.")
        if isinstance(region, Repeated):
            raise RegionError(f"A region on several frames must be of a frame, not on several itself; got {region!r}.")
        region.check(*size)
        object.__setattr__(self, "region", region)
        object.__setattr__(self, "corners", tuple((whole_number(x, what, 0), whole_number(y, what, 0)) for x, y in found))
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "soft", region.soft)

    def __repr__(self) -> str:
        return repr(self.region)

    def check(self, width: int, height: int) -> None:
        width, height = image_size(width, height)
        right, bottom = (max(corner[axis] for corner in self.corners) + self.size[axis] for axis in (0, 1))
        if right > width or bottom > height:
            raise RegionError(
                f"A region on frames of {self.size[0]} x {self.size[1]} px must have them within the sheet of {width} x "
                f"{height} px; the last ends at {right}, {bottom}."
            )

    def cover(self, width: int, height: int) -> np.ndarray:
        width, height = raster_size(width, height)
        self.check(width, height)
        found, own = np.zeros((height, width), np.float32), self.region.cover(*self.size)
        for x, y in self.corners:
            found[y : y + self.size[1], x : x + self.size[0]] = own
        return found

    def areas(self, xs: np.ndarray, ys: np.ndarray, size: Size) -> np.ndarray:
        width, height = self.size
        found: np.ndarray = np.sum(
            [self.region.areas(np.clip(xs - x, 0, width), np.clip(ys - y, 0, height), self.size) for x, y in self.corners],
            0,
        )
        return found

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = self.region.bounds
        xs, ys = zip(*self.corners, strict=True)
        return x0 + min(xs), y0 + min(ys), x1 + max(xs), y1 + max(ys)

    def outline(self) -> list[list[tuple[float, float]]]:
        own = self.region.outline()
        return [[(x + left, y + top) for x, y in line] for left, top in self.corners for line in own]

    def moved(self, right: float, down: float) -> "Repeated":
        return Repeated(self.region.moved(right, down), self.corners, self.size)

    def to_json(self) -> dict[str, Any]:
        corners = [list(corner) for corner in self.corners]
        return {"kind": "repeated", "region": self.region.to_json(), "corners": corners, "size": list(self.size)}
