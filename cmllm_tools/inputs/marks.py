"""Overlays on scenes of 192 px, drawn as the embedded model saw them in training."""

import numpy as np
from PIL import Image, ImageFilter

from .overlays import draw_overlay

OVERLAY_SCALE = 0.7
OVERLAY_MIN_LINE = 3.5
LINE_ALPHA = (176, 255)
MASK_ALPHA = (64, 112)
# Scene pixels by which the mask overlay extends beyond the object, so that its tint shows against the background.
MASK_MARGIN = 5


def marked(image: Image.Image, mask: np.ndarray, overlay: str, rng: np.random.Generator) -> Image.Image:
    """The scene with one of the eight overlays drawn on the object of this (row, column) mask."""
    if overlay == "mask":
        solid = Image.fromarray(mask.astype(np.uint8) * 255)
        mask = np.asarray(solid.filter(ImageFilter.MaxFilter(2 * MASK_MARGIN + 1))) > 0
    alpha = int(rng.integers(*(MASK_ALPHA if overlay == "mask" else LINE_ALPHA), endpoint=True))
    return draw_overlay(image, mask, overlay, rng, alpha=alpha, scale=OVERLAY_SCALE, min_line=OVERLAY_MIN_LINE)
