"""Regions the user refers to: box, mask, scribble, point; in pixels of the image, origin top left."""

from .base import Region, Size, short, where_text
from .mask import Mask, from_run_lengths, run_lengths
from .repeated import Repeated
from .shapes import Box, Point, Scribble
from .stored import REGION_KINDS, Regions, as_regions, region_from_json

__all__ = [
    "REGION_KINDS",
    "Box",
    "Mask",
    "Point",
    "Region",
    "Regions",
    "Repeated",
    "Scribble",
    "Size",
    "as_regions",
    "from_run_lengths",
    "region_from_json",
    "run_lengths",
    "short",
    "where_text",
]
