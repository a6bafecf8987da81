"""Tiny random models of every family; importing this fills `TINY`."""

import os

from torchvision_wheel import VARIABLE
from transformers import CONFIG_MAPPING
from transformers.utils import is_torchvision_available

from . import crossing, merged, projector, tiles, torchvision_only
from .base import TINY, TORCHVISION_ONLY

# Families that a process with the folder of `make vision` runs again, one of them with a video part.
AGAIN = ["llava", "qwen2_vl"]


def at_hand() -> list[str]:
    """The families to test in this process: all but those that need torchvision, or these and a few."""
    if VARIABLE in os.environ:
        assert is_torchvision_available()
        return [*TORCHVISION_ONLY, *AGAIN]
    # `make lowest` runs an older transformers, which lacks some.
    known = [family for family in TINY if family in CONFIG_MAPPING]
    return [family for family in known if family not in TORCHVISION_ONLY or is_torchvision_available()]


__all__ = ["TINY", "at_hand", "crossing", "merged", "projector", "tiles", "torchvision_only"]
