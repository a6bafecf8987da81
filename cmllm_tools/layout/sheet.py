"""Several images side by side on one sheet, so that whatever shows or weighs one image does so with all of a prompt's."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from PIL import Image

from ..errors import RegionError, UnsupportedModelError
from ..inputs.regions import Region, Repeated, Size
from .placement import display_grid
from .visual_tokens import Rule, VisualTokenLayout, most_cells

# White between two images, as a share of the higher ones' height.
GAP = 0.03
# So many stand in a row.
IN_A_ROW = 4
# Distance of the tokens of other images than the one that a scribble or point is on: no width of a Gaussian reaches them.
FAR = 1e3

Sizes = Sequence[Size]


def sheet_corners(sizes: Sizes) -> list[tuple[int, int]]:
    """Upper left corner (x, y) of each image on the sheet: in their order from left to right, IN_A_ROW to a row."""
    gap, top = _gap(sizes), 0
    corners: list[tuple[int, int]] = []
    for row in _rows(sizes):
        corners += [(left, top) for left in accumulate((width + gap for width, _ in row[:-1]), initial=0)]
        top += max(height for _, height in row) + gap
    return corners


def sheet_size(sizes: Sizes) -> Size:
    """(width, height) of the sheet."""
    ends = [(x + width, y + height) for (x, y), (width, height) in zip(sheet_corners(sizes), sizes, strict=True)]
    return max(x for x, _ in ends), max(y for _, y in ends)


def _rows(sizes: Sizes) -> list[Sizes]:
    return [sizes[first : first + IN_A_ROW] for first in range(0, len(sizes), IN_A_ROW)]


def sheet_of(images: Sequence[Image.Image]) -> Image.Image:
    """The images on one sheet; one alone is its own."""
    if len(images) == 1:
        return images[0]
    sizes = [image.size for image in images]
    sheet = Image.new("RGB", sheet_size(sizes), "white")
    for image, corner in zip(images, sheet_corners(sizes), strict=True):
        sheet.paste(image, corner)
    return sheet


def cut_up(sheet: Image.Image, sizes: Sizes) -> list[Image.Image]:
    """The images of these sizes that `sheet_of` put together."""
    corners = sheet_corners(sizes)
    return [sheet.crop((x, y, x + w, y + h)) for (x, y), (w, h) in zip(corners, sizes, strict=True)]


def _gap(sizes: Sizes) -> int:
    return max(2, round(GAP * max(height for _, height in sizes)))


def numbers_of(region: Region, sizes: Sizes) -> tuple[int, ...]:
    """Which of the images, whose sizes these are, a region is on: one, or several frames of a video.

    Raises:
        RegionError: for an image that there is not, a region of the sheet's pixels that is on none, or on several, and one
            on frames that do not follow one another.
    """
    if isinstance(region, Repeated):
        corners = sheet_corners(sizes)
        if any(corner not in corners for corner in region.corners):
            raise RegionError(f"A region on several frames must be of a video whose frames lie as its own; got {region!r}.")
        numbers = tuple(corners.index(corner) for corner in region.corners)
        if numbers != tuple(range(numbers[0], numbers[0] + len(numbers))):
            raise RegionError(
                f"A region on several frames must be on frames that follow one another; got {region!r} on frames "
                f"{', '.join(map(str, numbers))}. Give a region of each run of frames."
            )
        return numbers
    if region.frames is None:
        return (number_of(region, sizes),)
    first, last = region.frames
    if last >= len(sizes):
        raise RegionError(f"A region's frames must be of the video's {len(sizes)}, numbered from 0; got {region!r}.")
    return tuple(range(first, last + 1))


def on_frames(region: Region, numbers: Sequence[int]) -> Region:
    """A region in an image's pixels on the image of this number, or on these frames, which follow one another."""
    return region.on(numbers[0]) if len(numbers) == 1 else region.during((numbers[0], numbers[-1]))


def number_of(region: Region, sizes: Sizes) -> int:
    """Which one of the images, whose sizes these are, a region is on; raises as `numbers_of` does."""
    if region.image is not None:
        if region.image >= len(sizes):
            raise RegionError(
                f"A region's image must be one of the prompt's {len(sizes)}, numbered from 0; got {region!r}."
            )
        return region.image
    if len(sizes) == 1:
        return 0
    x0, y0, x1, y1 = region.bounds
    for number, ((left, top), (width, height)) in enumerate(zip(sheet_corners(sizes), sizes, strict=True)):
        if left <= x0 and x1 <= left + width and top <= y0 and y1 <= top + height:
            return number
    raise RegionError(
        f"A region must lie on one image; the prompt has {len(sizes)}, side by side on a sheet of "
        f"{sheet_size(sizes)[0]} x {sheet_size(sizes)[1]} px, and {region!r} lies on none or several. Give the image's "
        "number, as Box(..., image=1), and its own pixels."
    )


def own_region(region: Region, sizes: Sizes) -> Region:
    """A region in the pixels of the image that it is on, without its number.

    Raises:
        RegionError: as `number_of`, and for one that is off its image.
    """
    number = numbers_of(region, sizes)[0]
    if isinstance(region, Repeated):
        own = region.region.on(None)
    elif region.numbered or len(sizes) == 1:
        own = region.on(None)
    else:
        left, top = sheet_corners(sizes)[number]
        region.check(*sheet_size(sizes))
        own = region.placed(-left, -top, sizes[number])
    own.check(*sizes[number])
    return own


def region_on_sheet(region: Region, sizes: Sizes) -> Region:
    """A region in the pixels of the sheet.

    Raises:
        RegionError: as `own_region`.
    """
    if isinstance(region, Repeated):
        return region
    own, corners = own_region(region, sizes), sheet_corners(sizes)
    if region.frames is not None:
        return Repeated(own.during(region.frames), [corners[each] for each in numbers_of(region, sizes)], sizes[0])
    left, top = corners[number_of(region, sizes)]
    return own if len(sizes) == 1 else own.placed(left, top, sheet_size(sizes))


@dataclass(frozen=True, eq=False, repr=False)
class SheetLayout(VisualTokenLayout):
    """Where each visual token of several images looks, in pixels of the sheet that they are shown on.

    A region belongs to one image, by its number (`Box(..., image=1)`, in that image's pixels) or by where it is on the
    sheet: tokens of the others have no part in it.

    Args:
        layouts: of each image, in its own pixels; its visual tokens are those of the layouts, one after another.
    """

    layouts: tuple[VisualTokenLayout, ...] = ()

    @classmethod
    def of(cls, layouts: Sequence[VisualTokenLayout]) -> "SheetLayout":
        """Of the images' own layouts, two or more."""
        sizes = [each.image_size for each in layouts]
        own = [each.boxes + np.tile(corner, 2) for each, corner in zip(layouts, sheet_corners(sizes), strict=True)]
        boxes, size = np.concatenate(own), sheet_size(sizes)
        rows, columns = display_grid(boxes, size)
        # One image may have much finer tokens than another.
        coarser = max(1.0, (rows * columns / most_cells(len(boxes))) ** 0.5)
        grid = (max(1, int(rows / coarser)), max(1, int(columns / coarser)))
        rules = "; ".join(dict.fromkeys(each.rule for each in layouts))
        return cls(size, boxes, grid, f"{len(layouts)} images: {rules}", merged=True, layouts=tuple(layouts))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_layouts()

    def _check_layouts(self) -> None:
        if sum(map(len, self.layouts)) != len(self.boxes):
            raise UnsupportedModelError(
                f"The layouts of several images must have a box for each of {len(self.boxes)} visual tokens; they have "
                f"{sum(map(len, self.layouts))}."
            )

    @property
    def sizes(self) -> tuple[Size, ...]:
        return tuple(each.image_size for each in self.layouts)

    def inside(self, region: Region, rule: Rule = "area") -> np.ndarray:
        number, own = self._own(region)
        return self._of_image(number, self.layouts[number].inside(own, rule), 0.0)

    def distance(self, region: Region, rule: Rule = "area") -> np.ndarray:
        number, own = self._own(region)
        return self._of_image(number, self.layouts[number].distance(own, rule), FAR)

    def tokens_of(self, number: int) -> slice:
        """The visual tokens of the image of this number."""
        begin = sum(map(len, self.layouts[:number]))
        return slice(begin, begin + len(self.layouts[number]))

    def _own(self, region: Region) -> tuple[int, Region]:
        self._check_kind(region)
        self._check_frames(region)
        return number_of(region, self.sizes), own_region(region, self.sizes)

    def _of_image(self, number: int, values: np.ndarray, otherwise: float) -> np.ndarray:
        found = np.full(len(self), otherwise, np.float32)
        found[self.tokens_of(number)] = values
        return found

    def to_json(self) -> dict[str, Any]:
        return {"images": [each.to_json() for each in self.layouts]}
