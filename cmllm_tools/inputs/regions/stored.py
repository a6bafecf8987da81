"""Several regions, and regions as plain data."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from ...errors import RegionError
from ...strict import pair_of_sides, shown
from .base import Region, Size
from .mask import Mask, from_run_lengths
from .repeated import Repeated
from .shapes import Box, Point, Scribble

Regions = Region | Sequence[Region]
REGION_KINDS = ("box", "mask", "scribble", "point")

_NEEDS = "A stored region needs a kind and its coordinates"


def as_regions(regions: Regions) -> tuple[Region, ...]:
    """One region or several, as a tuple.

    Raises:
        RegionError: for none, or for something that is not a region.
    """
    several = tuple(regions) if isinstance(regions, list | tuple) else (regions,)
    if not several:
        raise RegionError("At least one region is needed; got none.")
    for region in several:
        if not isinstance(region, Region):
            corners = len(several) == 4 and all(isinstance(each, Real) for each in several)
            corners = corners and several[0] < several[2] and several[1] < several[3]
            hint = f" Give Box({', '.join(map(str, several))})." if corners else ""
            raise RegionError(f"A region must be a Box, Mask, Scribble or Point; got {type(region).__name__}.{hint}")
    return several


def region_from_json(data: Mapping[str, Any], size: Size | None = None) -> Region:
    """The region that `to_json` described.

    Args:
        data: from `to_json`, or from a file that may hold anything.
        size: (width, height) of the image. A region off it is refused, a mask before its pixels are made.

    Raises:
        RegionError: for data of another form, or a region off the image.
    """
    size = None if size is None else pair_of_sides(size, "The size of an image", RegionError)
    if not isinstance(data, Mapping) or "kind" not in data:
        raise RegionError(f"{_NEEDS}; got {shown(data)}.")
    try:
        region = _of_kind(data, size).on_place(data.get("image"), data.get("frames"))
    except (KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, RegionError):
            raise  # it says more
        raise RegionError(f"{_NEEDS}; got {shown(data)}.") from error
    if size is not None:
        region.check(*size)
    return region


def _of_kind(data: Mapping[str, Any], size: Size | None) -> Region:
    match data["kind"]:
        case "box":
            return Box(*data["corners"])
        case "mask":
            height, width = data["size"]
            if size is not None and (width, height) != size:
                raise RegionError(
                    f"A mask needs the image's shape (height, width) = {(size[1], size[0])}; got {shown((height, width))}."
                )
            return Mask(from_run_lengths(data["counts"], height, width))
        case "scribble":
            return Scribble(data["points"])
        case "point":
            return Point(*data["position"])
        case "repeated":
            width, height = pair_of_sides(data["size"], "The size of a frame", RegionError)
            return Repeated(region_from_json(data["region"], (width, height)), data["corners"], (width, height))
    raise RegionError(f"A stored region's kind must be box, mask, scribble or point; got {shown(data['kind'])}.")
