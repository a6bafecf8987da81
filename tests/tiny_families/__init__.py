"""Tiny random models of every family; importing this fills `TINY`."""

from . import crossing, merged, projector, tiles
from .base import TINY

__all__ = ["TINY", "crossing", "merged", "projector", "tiles"]
