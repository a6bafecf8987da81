"""Which part of the user's image each visual token sees, and how much of a region each of them covers."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ..errors import RegionError, UnsupportedModelError
from ..inputs.regions import Region, Regions, Repeated, as_regions
from ..shown import Fact, Shown
from ..strict import flag, kind_of, one_of, pair_of_sides, shown
from . import region_reference, region_weights

Rule = Literal["area", "reference"]

FIXED = "fixed grid"
CENTRE_CROP = f"{FIXED}, centre crop"
DYNAMIC = "dynamic grid"
_PUBLISHED: dict[str, region_reference.Way] = {CENTRE_CROP: "crop", FIXED: "stretch", f"{FIXED}, CLS": "stretch"}


class RegionWarning(UserWarning):
    """Part of a region lies outside what the model sees.

    Examples:
        >>> issubclass(cm.RegionWarning, UserWarning)
        True
    """


@dataclass(frozen=True, eq=False, repr=False)
class VisualTokenLayout(Shown):
    """Where each visual token looks.

    Several tokens may look at the same area (a tile and the thumbnail): a region weights each of them, and a map to look
    at sums what they hold there.

    Args:
        image_size: (width, height) of the user's image in pixels.
        boxes: (visual token, 4), corners x0, y0, x1, y1 of what each token sees, in pixels of that image.
        grid: (rows, columns) to show a map on.
        rule: name of the layout rule that made it.
        merged: whether the grid is for looking only. When False, the tokens are its cells, in row-major order.

    Examples:
        >>> prompt.layout
        VisualTokenLayout(64 visual tokens as 8 x 8, image 192 x 192 px, seen x 0..192 y 0..192, rule fixed
        grid, centre crop)
        >>> inside = prompt.layout.inside(box)
        >>> inside.shape, int((inside > 0).sum())
        ((64,), 6)
    """

    image_size: tuple[int, int]
    boxes: np.ndarray
    grid: tuple[int, int]
    rule: str
    merged: bool = False

    def __post_init__(self) -> None:
        size = pair_of_sides(self.image_size, "The size of a layout's image", UnsupportedModelError)
        grid = pair_of_sides(self.grid, "The grid of a layout", UnsupportedModelError)
        object.__setattr__(self, "image_size", size)
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "boxes", _corners(self.boxes))
        kind_of(self.rule, str, "The rule of a layout must be its name", UnsupportedModelError)
        flag(self.merged, "merged", UnsupportedModelError)
        if grid[0] * grid[1] > most_cells(len(self.boxes)):
            raise UnsupportedModelError(
                f"A layout's grid must not have many times more cells than visual tokens; got {_by(grid)} "
                f"cells for {len(self.boxes)} tokens."
            )
        if not self.merged and len(self.boxes) != self.grid[0] * self.grid[1]:
            raise UnsupportedModelError(
                f"A layout needs one box for each cell of its grid {self.grid}; got {len(self.boxes)} boxes."
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def facts(self) -> list[Fact]:
        width, height = self.image_size
        x0, y0, x1, y1 = self.seen
        shown = f"shown on {_by(self.grid)}, merged by area" if self.merged else f"as {_by(self.grid)}"
        return [
            ("", f"{len(self)} visual tokens {shown}"),
            ("image", f"{width} x {height} px"),
            ("seen", f"x {x0:.0f}..{x1:.0f} y {y0:.0f}..{y1:.0f}"),
            ("rule", self.rule),
        ]

    @cached_property
    def cells(self) -> np.ndarray:
        """(row, column, 4): corners of the cells to show a map on, in pixels of the image."""
        boxes = grid_boxes(self.seen, self.grid) if self.merged else self.boxes
        return boxes.reshape(*self.grid, 4)

    def raster(self, values: np.ndarray) -> np.ndarray:
        """Maps (..., visual token) as (..., row, column), sums kept: each token's value is spread evenly over its box.

        What a token sees beyond the image (padding) counts for the part that lies on it.
        """
        values = _array(values)
        if values.dtype.kind not in "biuf" or values.shape[-1:] != (len(self),):
            raise UnsupportedModelError(
                f"Maps must have a value for each of {len(self)} visual tokens; got {values.shape}."
            )
        if not self.merged:
            return values.reshape(*values.shape[:-1], *self.grid)
        result: np.ndarray = (values @ self._spread.T).reshape(*values.shape[:-1], *self.grid).astype(values.dtype)
        return result

    @cached_property
    def _spread(self) -> np.ndarray:
        """(cell, visual token): share of each token's box, as far as it is on the image, in each cell."""
        return self._spread_of(self.boxes)

    def _spread_of(self, boxes: np.ndarray) -> np.ndarray:
        cells, boxes = self.cells, region_weights.clipped(boxes, self.image_size)
        # The cells are a regular grid: what is shared along x and along y, once for each column and row.
        across, down = (
            np.clip(
                np.minimum(line[:, None, axis + 2], boxes[:, axis + 2]) - np.maximum(line[:, None, axis], boxes[:, axis]),
                0,
                None,
            )
            for axis, line in enumerate((cells[0], cells[:, 0]))
        )
        overlap = (down[:, None] * across).reshape(-1, len(boxes))
        result: np.ndarray = overlap / np.maximum(overlap.sum(0), 1e-12)
        return result

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """Corners x0, y0, x1, y1 of the part of the image that the model sees."""
        (x0, y0), (x1, y1) = self.boxes[:, :2].min(0), self.boxes[:, 2:].max(0)
        width, height = self.image_size
        return max(float(x0), 0.0), max(float(y0), 0.0), min(float(x1), float(width)), min(float(y1), float(height))

    def inside(self, region: Region, rule: Rule = "area") -> np.ndarray:
        """Share of each visual token's area inside the region: (visual token,) float32 in 0..1.

        Args:
            region: any kind; for a scribble or point, the drawn pixels.
            rule: "area" measures the overlap with each token's box; "reference" repeats the published code for grids that
                it knows, with all that is rough in it; see `region_reference`.

        Raises:
            RegionError: for a region outside the image, or wholly outside what the model sees.

        Warns:
            RegionWarning: for a region partly outside what the model sees, with the fraction that is lost.
        """
        self._check(region)
        if _is_reference(rule):
            return region_reference.inside(region, self._as_published)
        return region_weights.shares(region, self.boxes, self.image_size)

    def distance(self, region: Region, rule: Rule = "area") -> np.ndarray:
        """Distance D of each visual token to what was drawn: (visual token,) float32.

        "area" gives the mean over the token's box, as a share of the largest distance in view; "reference" the
        published code's, of scribbles and points: over the whole image, in steps of 1/255, sampled by nearest neighbour.

        Raises and warns like `inside`.
        """
        self._check(region)
        if _is_reference(rule):
            return region_reference.distance(region, self._as_published)
        return region_weights.distances(region, self.boxes, self.seen, self.image_size)

    @property
    def _as_published(self) -> region_reference.PublishedGrid:
        """How the published code would sample a mask for this grid."""
        way = _PUBLISHED.get(self.rule)
        if self.rule.startswith(DYNAMIC) and not self.rule.endswith("padded"):
            way = "touched"
        if self.merged or way is None or (way != "touched" and self.grid[0] != self.grid[1]):
            raise RegionError(
                "The reference's nearest-neighbour mask exists for square grids on a centre crop only, or on the whole "
                f"image, and its mask of touched tokens for grids of the image's shape; this layout is {self!r}. "
                "Use rule='area'."
            )
        return region_reference.PublishedGrid(way, self.image_size, self.grid, self.boxes)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each image; one but for a `SheetLayout`."""
        return (self.image_size,)

    def on_sheet(self, regions: Regions) -> tuple[Region, ...]:
        """Regions in pixels of what the layout is shown on: the image itself, or the sheet of several.

        Raises:
            RegionError: for what are no regions, and one of an image that there is not.
        """
        several = as_regions(regions)
        for region in several:
            self._check_frames(region)
        if not any(region.numbered for region in several):
            return several
        # It is made for layouts of several images, so that its module cannot be imported where this one begins.
        from .sheet import region_on_sheet

        return tuple(region_on_sheet(region, self.sizes) if region.numbered else region for region in several)

    @staticmethod
    def _check_kind(region: Any) -> None:
        if not isinstance(region, Region):
            raise RegionError(f"A region must be a Box, Mask, Scribble or Point; got {shown(region)}.")

    def _check_frames(self, region: Region) -> None:
        """Refuse frames, which a layout of images does not have."""
        if isinstance(region, Repeated) or region.frames is not None:
            raise RegionError(f"A region's frames are those of a video, which this prompt does not have; got {region!r}.")

    def _check(self, region: Region) -> None:
        self._check_kind(region)
        self._check_frames(region)
        if region.image:
            raise RegionError(f"A region's image must be one of the prompt's 1, numbered from 0; got {region!r}.")
        region.check(*self.image_size)
        x0, y0, x1, y1 = region.bounds
        if (np.array([x0, y0]).astype(int) >= self.seen[:2]).all() and self._ends_in_view(x1, y1):
            return
        lost = 1 - region_weights.share_in(region, self.seen, self.image_size)
        if lost > 1 - 1e-6:
            x0, y0, x1, y1 = self.seen
            raise RegionError(
                f"The region lies outside what the model sees: its crop is x {x0:.0f}..{x1:.0f}, y {y0:.0f}..{y1:.0f} of "
                f"an image of {self.image_size[0]} x {self.image_size[1]} px; got {region!r}. "
                "Crop or pad the image so that the region is in view."
            )
        if lost > 1e-3:
            warnings.warn(
                f"{lost:.0%} of {region!r} lies outside what the model sees and is lost.", RegionWarning, stacklevel=4
            )

    def _ends_in_view(self, x: float, y: float) -> bool:
        """Whether the whole pixel at a region's lower right corner is seen."""
        return all(
            min(int(at) + 1, side) <= end for at, side, end in zip((x, y), self.image_size, self.seen[2:], strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes an equal layout."""
        return {
            "image_size": list(self.image_size),
            "boxes": self.boxes.tolist(),
            "grid": list(self.grid),
            "rule": self.rule,
            "merged": self.merged,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "VisualTokenLayout":
        """The layout of what `to_json` gave.

        Raises:
            UnsupportedModelError: for anything else.
        """
        # It makes layouts of several images too, so that its module cannot be imported where this one begins.
        from .stored_layout import read_layout

        return read_layout(data)


def most_cells(tokens: int) -> int:
    """Cells of the largest grid that so many visual tokens are shown on: a map is made with a value for each of both."""
    return 16 * tokens + 4096


def fixed_grid(
    image_size: tuple[int, int], resized: tuple[int, int], crop: tuple[int, int] | None, grid: tuple[int, int]
) -> VisualTokenLayout:
    """Layout of a model that resizes the image, crops its centre, and cuts a fixed grid of patches.

    Args:
        image_size: (width, height) of the user's image.
        resized: (width, height) after the resize.
        crop: (width, height) of the centre crop, or None for no crop; larger than `resized` means padding.
        grid: (rows, columns).
    """
    rule = CENTRE_CROP if crop else FIXED
    crop = crop or resized
    # transformers' center_crop rounds the corner down, also where the image is smaller than the crop and is padded.
    left, top = ((full - part) // 2 for full, part in zip(resized, crop, strict=True))
    scale = np.array([image_size[0] / resized[0], image_size[1] / resized[1]] * 2)
    return VisualTokenLayout(image_size, grid_boxes((left, top, left + crop[0], top + crop[1]), grid) * scale, grid, rule)


def grid_boxes(area: Sequence[float] | np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(rows * columns, 4): an area x0, y0, x1, y1 cut into equal cells, row-major."""
    rows, columns = grid
    xs, ys = np.linspace(area[0], area[2], columns + 1), np.linspace(area[1], area[3], rows + 1)
    x0, y0 = (corner.ravel() for corner in np.meshgrid(xs[:-1], ys[:-1]))
    x1, y1 = (corner.ravel() for corner in np.meshgrid(xs[1:], ys[1:]))
    return np.stack([x0, y0, x1, y1], 1)


def _array(values: Any) -> np.ndarray:
    """Values as an array, which is empty where they are none."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError, MemoryError):
        return np.empty(0)


def _corners(boxes: Any) -> np.ndarray:
    found = _array(boxes)
    if found.ndim != 2 or found.shape[1] != 4 or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise UnsupportedModelError(f"A layout needs boxes (visual token, 4) of finite numbers; got {shown(boxes)}.")
    return found


def _by(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]}"


def _is_reference(rule: Rule) -> bool:
    return one_of(rule, "A weighting rule", ("area", "reference"), RegionError) == "reference"
