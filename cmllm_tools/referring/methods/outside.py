"""The region alone: what is outside it is blurred, without colour, of the mean colour or black; or it is cut out."""

from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import RegionError
from ...inputs.pixels import FILLS, around, beside, hidden, pixels_of_all, placed
from ...models.mllm import Mllm
from ..kinds import choice, real
from ..method import Method, Request
from ..registry import register
from ..settings import setting

REACH = setting(
    0.1, "how far around a scribble or point the region goes, as a share of the image's longer side", real(above=0, most=1)
)


@register
@dataclass(frozen=True)
class OutsideHidden(Method):
    """What is outside the region is blurred, loses its colour, or is painted over: the model sees little or none of it.

    ControlMLLM's papers have blurring as a baseline (arXiv 2407.21534, table 1). It shows what an answer owes to the region
    alone; what the region's surroundings say is lost.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.OutsideHidden("mean")).answer)
        red cross at the right
    """

    label: ClassVar[str] = "outside hidden"

    fill: str = setting(
        "mean", "what is outside: blurred, grey, the image's mean colour, or black", choice(*FILLS), asked=True
    )
    radius: float = setting(0.05, "of the blur, as a share of the image's longer side", real(above=0, most=1), asked=True)
    reach: float = REACH

    def sent(self, request: Request, mllm: Mllm) -> Request:
        image = request.image
        inside = pixels_of_all(request.regions, image.size, self.reach)
        return replace(request, image=hidden(image, ~inside, self.fill, self.radius * max(image.size)))


@dataclass(frozen=True)
class _Cut(Method):
    """What ways that cut the region out share."""

    margin: float = setting(
        0.5, "added on each side, as a share of the region's own width and height", real(least=0), asked=True
    )
    reach: float = REACH

    def corners(self, request: Request) -> tuple[int, int, int, int]:
        return around(pixels_of_all(request.regions, request.image.size, self.reach), self.margin)


@register
@dataclass(frozen=True)
class Crop(_Cut):
    """The rectangle around the region, or around all of several, is all that the model is sent.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.Crop(margin=1)).answer)
        red cross at the right
    """

    label: ClassVar[str] = "crop"

    def sent(self, request: Request, mllm: Mllm) -> Request:
        corners = self.corners(request)
        image = request.image.crop(corners)
        found = [placed(region, corners, 1.0, (0, 0), image.size) for region in request.regions]
        regions = tuple(region for region in found if region is not None)
        if not regions:
            raise RegionError(f"A region must have an extent to be cut out; got {request.regions}.")
        return replace(request, image=image, regions=regions)


@register
@dataclass(frozen=True)
class ZoomAndKeep(_Cut):
    """The region's rectangle, enlarged, beside the whole image: in one picture, as a prompt has one image.

    The picture has twice the image's sides and its proportions; see `inputs.pixels.beside`. A model that scales images to
    one size sees both views at half their resolution.

    Examples:
        >>> outcome = cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.ZoomAndKeep())
        >>> outcome.sent.image.size
        (384, 384)
    """

    label: ClassVar[str] = "zoom and keep"

    def sent(self, request: Request, mllm: Mllm) -> Request:
        image, regions = beside(request.image, self.corners(request), request.regions)
        return replace(request, image=image, regions=regions)
