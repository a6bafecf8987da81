"""Referring in words: the region's place, written into the question as coordinates."""

from dataclasses import dataclass, replace
from typing import ClassVar, cast

from ...errors import SettingsError
from ...models.coordinates import Coordinates, Unit, own_coordinates, processed_size
from ...models.mllm import Mllm
from ...notation import PLACE
from ..kinds import choice, text
from ..method import Method, Request
from ..registry import register
from ..settings import setting

QUESTION = "{question}"


@register
@dataclass(frozen=True)
class Words(Method):
    """Coordinates of the region in the question: corners x0, y0, x1, y1 of what encloses it, or a point's x, y.

    They take the place of `{place}` in the question; a question without it is put into the template. Models were taught
    different units: shares of width and height with two or three digits (Shikra, LLaVA-1.5), thousandths of them (InternVL,
    Qwen3-VL), pixels of the image as the processor scales it (Qwen2.5-VL), special tokens (PaliGemma). "own" writes as the
    model's family was taught, and is refused for a family of which this is not known.

    Examples:
        >>> outcome = cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.Words())
        >>> outcome.sent.question
        'describe the object. Answer for the region [0.76, 0.41, 1.00, 0.66].'
    """

    label: ClassVar[str] = "coordinates"

    unit: str = setting("share", "of the coordinates", choice("share", "thousandth", "pixel", "own"), asked=True)
    template: str = setting(
        "{question} Answer for the region {place}.", "the text that is sent; {question} and {place} are filled in", text()
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if PLACE not in self.template or QUESTION not in self.template:
            raise SettingsError(f"template must have {QUESTION} and {PLACE} in it; got {self.template!r}.")

    def sent(self, request: Request, mllm: Mllm) -> Request:
        size = request.image.size
        for region in request.regions:
            region.check(*size)
        own = self.unit == "own"
        form = own_coordinates(mllm) if own else Coordinates(cast(Unit, self.unit))
        processed = processed_size(mllm, request.image) if form.unit == "processed" else None
        places = " and ".join(form.written(region.bounds, size, processed) for region in request.regions)
        if PLACE not in request.question:
            request = replace(request, question=self.template.replace(QUESTION, request.question))
        return request.named(places)
