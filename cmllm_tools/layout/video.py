"""Where each visual token of a video looks: a box in its frames, and which of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import UnsupportedModelError
from ..inputs.regions import Region
from ..strict import whole_number
from .sheet import FAR, IN_A_ROW, SheetLayout, numbers_of, own_region, sheet_corners, sheet_size
from .visual_tokens import Rule, VisualTokenLayout


@dataclass(frozen=True, eq=False, repr=False)
class VideoLayout(SheetLayout):
    """Where each visual token of a video looks, in pixels of the sheet on which its frames are shown.

    A region is on one frame (`Box(..., image=3)`), on several (`Box(..., frames=(2, 5))`), or where it is on the sheet. A
    token that sees several frames counts by how much of what it sees, in space and time, lies in the region. By a scribble
    or point, which has no area, it counts by its distance alone, and whole where one of its frames is among the region's.

    Args:
        layouts: of each frame, in its own pixels; all are alike.
        frames_per_token: how many frames in a row one token sees; the last ones may be fewer.
        boxes: on the first frame that each token sees.
    """

    frames_per_token: int = 1

    @classmethod
    def of_video(cls, layout: VisualTokenLayout, frame_count: int, frames_per_token: int) -> "VideoLayout":
        """Of tokens that see so many frames alike.

        Args:
            layout: of the tokens that see the same frames, in a frame's pixels.
            frame_count: how many frames the video has, two or more.
            frames_per_token: see the class.

        Raises:
            UnsupportedModelError: for what are no such numbers.
        """
        error = UnsupportedModelError
        count = whole_number(frame_count, "The number of a video's frames", 2, error=error)
        each = whole_number(frames_per_token, "The number of frames that a token sees", 1, count, error=error)
        sizes = [layout.image_size] * count
        corners = np.tile(sheet_corners(sizes), 2)
        boxes = np.concatenate([layout.boxes + corner for corner in corners[::each]])
        rows, columns = layout.grid
        down, across = -(-count // IN_A_ROW), min(count, IN_A_ROW)
        # Between two frames lies one cell that no token sees.
        grid = (down * (rows + 1) - 1, across * (columns + 1) - 1)
        rule = f"video of {count} frames, {each} to a token: {layout.rule}"
        return cls(sheet_size(sizes), boxes, grid, rule, merged=True, layouts=(layout,) * count, frames_per_token=each)

    def _check_layouts(self) -> None:
        if len(self.layouts[0]) * -(-len(self.layouts) // self.frames_per_token) != len(self.boxes):
            raise UnsupportedModelError(
                f"The layout of a video must have a box for each visual token; its frames have {len(self.layouts[0])} "
                f"each, and all of them {len(self.boxes)}."
            )

    @property
    def spans(self) -> np.ndarray:
        """(visual token, 2): first and last frame that each of them sees."""
        return np.repeat(self._frames[:, [0, -1]], len(self.layouts[0]), 0)

    def tokens_of(self, number: int) -> slice:
        """The visual tokens that see the frame of this number."""
        each = len(self.layouts[0])
        begin = number // self.frames_per_token * each
        return slice(begin, begin + each)

    @cached_property
    def cells(self) -> np.ndarray:
        corners = np.array(sheet_corners(self.sizes))
        own, (rows, columns) = self.layouts[0].cells, self.grid
        edges = []
        for axis, line in enumerate((own[0], own[:, 0])):
            inner = np.clip([*line[:, axis], line[-1, axis + 2]], 0, self.sizes[0][axis])
            edges.append(np.concatenate([inner + at for at in np.unique(corners[:, axis])]))
        (x, y) = edges
        boxes = np.stack(
            [*np.meshgrid(x[:-1], y[:-1], indexing="xy"), *np.meshgrid(x[1:], y[1:], indexing="xy")],
            -1,
        )
        return boxes.reshape(rows, columns, 4)

    @property
    def seen(self) -> tuple[float, float, float, float]:
        (x0, y0), (x1, y1) = self.cells[0, 0, :2], self.cells[-1, -1, 2:]
        return float(x0), float(y0), float(x1), float(y1)

    @property
    def _frames(self) -> np.ndarray:
        """(step in time, frame): which frames are seen together; the last is seen again where they do not suffice."""
        first = np.arange(0, len(self.layouts), self.frames_per_token)[:, None]
        found: np.ndarray = np.minimum(first + np.arange(self.frames_per_token), len(self.layouts) - 1)
        return found

    @cached_property
    def _spread(self) -> np.ndarray:
        corners, each = np.array(sheet_corners(self.sizes)), len(self.layouts[0])
        away = np.repeat(corners[self._frames] - corners[self._frames[:, :1]], each, 0)
        result: np.ndarray = np.mean([self._spread_of(self.boxes + np.tile(by, 2)) for by in away.swapaxes(0, 1)], 0)
        return result

    def inside(self, region: Region, rule: Rule = "area") -> np.ndarray:
        numbers, own = self._where(region)
        times = np.isin(self._frames, numbers).mean(1)
        return np.outer(times, self.layouts[0].inside(own, rule)).ravel().astype(np.float32)

    def distance(self, region: Region, rule: Rule = "area") -> np.ndarray:
        numbers, own = self._where(region)
        found = np.full(len(self), FAR, np.float32)
        for number in numbers:
            found[self.tokens_of(number)] = self.layouts[number].distance(own, rule)
        return found

    def _where(self, region: Region) -> tuple[tuple[int, ...], Region]:
        self._check_kind(region)
        return numbers_of(region, self.sizes), own_region(region, self.sizes)

    def _check_frames(self, region: Region) -> None:
        """A video has frames."""

    def to_json(self) -> dict[str, Any]:
        return {"video": self.layouts[0].to_json(), "frames": len(self.layouts), "frames_per_token": self.frames_per_token}
