"""Visual prompts drawn onto the image: the eight overlays of ViP-LLaVA (Cai et al., CVPR 2024, section 3), a red circle."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from PIL import ImageDraw

from ...inputs.overlays import COLORS, OVERLAYS, PHRASES, draw_overlay
from ...inputs.pixels import pixels_of
from ...models.mllm import Mllm
from ..kinds import choice, real, whole
from ..method import Method, Request
from ..registry import register
from ..settings import setting


@register
@dataclass(frozen=True)
class Drawn(Method):
    """The region marked on the image that the model is sent, each region in turn.

    `{place}` in the question becomes the overlay's name, as ViP-LLaVA's questions have it ("within the red rectangle").
    What the published ranges leave open (where a scribble runs, how wide a line is) is drawn by lot, the same for one seed.
    A scribble or point is marked where it was drawn: its line, or a disc of a fiftieth of the image's longer side.

    Examples:
        >>> outcome = cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.Drawn("ellipse"))
        >>> outcome.sent.image.size
        (192, 192)
    """

    label: ClassVar[str] = "drawn overlay"
    source: ClassVar[tuple[str, ...]] = ("cai2024prompts",)

    overlay: str = setting("rectangle", "what is drawn", choice(*OVERLAYS), asked=True)
    color: str = setting("red", "its colour", choice(*COLORS), asked=True)
    alpha: int = setting(255, "its opacity", whole(0, 255), asked=True, strength=True)
    min_line: float = setting(1.0, "least width of a line, in pixels of the image", real(above=0))
    seed: int = setting(0, "for what is drawn by lot", whole(0, 2**32 - 1))

    def sent(self, request: Request, mllm: Mllm) -> Request:
        image, rng = request.image, np.random.default_rng(self.seed)
        for region in request.regions:
            image = draw_overlay(
                image,
                pixels_of(region, image.size),
                self.overlay,
                rng,
                color=self.color,
                alpha=self.alpha,
                min_line=self.min_line,
            )
        return replace(request, image=image).named(PHRASES[self.overlay].format(color=self.color))


@register
@dataclass(frozen=True)
class RedCircle(Method):
    """A thin ellipse around the region's bounding box (Shtedritski et al., ICCV 2023, arXiv 2304.06712), nothing by lot.

    `{place}` in the question becomes "within the red circle".

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.RedCircle()).answer)
        red cross at the right
    """

    label: ClassVar[str] = "red circle"
    source: ClassVar[tuple[str, ...]] = ("shtedritski2023redcircle",)

    color: str = setting("red", "its colour", choice(*COLORS), asked=True)
    width: float = setting(
        0.01,
        "of its line, as a share of the image's longer side (at least a pixel)",
        real(above=0, most=1),
        asked=True,
        strength=True,
    )

    def sent(self, request: Request, mllm: Mllm) -> Request:
        image = request.image.copy()
        line = max(round(self.width * max(image.size)), 1)
        for region in request.regions:
            ys, xs = np.nonzero(pixels_of(region, image.size))
            # Through the corners of the box, so that nothing of it is covered.
            half = np.array([np.ptp(xs) + 1, np.ptp(ys) + 1]) / 2**0.5 + line
            middle = np.array([xs.min() + xs.max() + 1, ys.min() + ys.max() + 1]) / 2
            ends = tuple(map(float, [*(middle - half), *(middle + half)]))
            ImageDraw.Draw(image).ellipse(ends, outline=COLORS[self.color], width=line)
        return replace(request, image=image).named(f"within the {self.color} circle")
