"""Visual prompts drawn onto the image: the eight overlays of ViP-LLaVA (Cai et al., CVPR 2024, section 3)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from ...errors import RegionError
from ...inputs.overlays import COLORS, OVERLAYS, draw_overlay
from ...inputs.regions import Region
from ..kinds import choice, real, whole
from ..method import Method
from ..registry import register
from ..settings import setting


@register
@dataclass(frozen=True)
class Drawn(Method):
    """The region marked on the image that the model is sent, each region in turn.

    What the published ranges leave open (where a scribble runs, how wide a line is) is drawn by lot, the same for one seed.
    A scribble or point is marked where it was drawn: its line, or a disc of a fiftieth of the image's longer side.
    """

    label: ClassVar[str] = "drawn overlay"

    overlay: str = setting("rectangle", "what is drawn", choice(*OVERLAYS), asked=True)
    color: str = setting("red", "its colour", choice(*COLORS), asked=True)
    alpha: int = setting(255, "its opacity", whole(0, 255), asked=True)
    min_line: float = setting(1.0, "least width of a line, in pixels of the image", real(above=0))
    seed: int = setting(0, "for what is drawn by lot", whole(0, 2**32 - 1))

    def sent(self, image: Image.Image, question: str, regions: tuple[Region, ...]) -> tuple[Image.Image, str]:
        rng = np.random.default_rng(self.seed)
        for region in regions:
            image = draw_overlay(
                image,
                _pixels(region, image),
                self.overlay,
                rng,
                color=self.color,
                alpha=self.alpha,
                min_line=self.min_line,
            )
        return image, question


def _pixels(region: Region, image: Image.Image) -> np.ndarray:
    """Boolean (height, width): the region's own pixels; of a scribble or point those around its line.

    Raises:
        RegionError: for a region that marks no pixel of the image.
    """
    region.check(*image.size)
    cover = region.cover(*image.size)
    if region.soft:
        mask = distance_transform_edt(cover == 0) <= max(image.size) / 100
    else:
        mask = cover > 0.5 if (cover > 0.5).any() else cover > 0
    if not mask.any():
        raise RegionError(f"A region must mark a pixel of the image to be drawn; {region!r} does not.")
    return mask
