"""Referring in words: the region's place, written into the question as coordinates."""

from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from ...errors import SettingsError
from ...inputs.regions import Region
from ..kinds import choice, text
from ..method import Method
from ..registry import register
from ..settings import setting

PLACE, QUESTION = "{place}", "{question}"


@register
@dataclass(frozen=True)
class Words(Method):
    """Coordinates of the region in the question: corners x0, y0, x1, y1 of what encloses it, or a point's x, y.

    Models were taught different units: shares of width and height with two or three digits (Shikra, LLaVA-1.5), thousandths
    of them (InternVL, Qwen-VL), or pixels of the image as it is given (Qwen2.5-VL, where nothing is resized).
    """

    label: ClassVar[str] = "coordinates"

    unit: str = setting("share", "of the coordinates", choice("share", "thousandth", "pixel"), asked=True)
    template: str = setting(
        "{question} Answer for the region {place}.", "the text that is sent; {question} and {place} are filled in", text()
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if PLACE not in self.template or QUESTION not in self.template:
            raise SettingsError(f"template must have {QUESTION} and {PLACE} in it; got {self.template!r}.")

    def sent(self, image: Image.Image, question: str, regions: tuple[Region, ...]) -> tuple[Image.Image, str]:
        places = " and ".join(self._place(region, *image.size) for region in regions)
        return image, self.template.replace(PLACE, places).replace(QUESTION, question)

    def _place(self, region: Region, width: int, height: int) -> str:
        region.check(width, height)
        x0, y0, x1, y1 = region.bounds
        corners = (
            [(x0, width), (y0, height)] if (x0, y0) == (x1, y1) else [(x0, width), (y0, height), (x1, width), (y1, height)]
        )
        inside = [(min(max(value, 0), side), side) for value, side in corners]
        return f"[{', '.join(self._written(value, side) for value, side in inside)}]"

    def _written(self, value: float, side: int) -> str:
        if self.unit == "share":
            return f"{value / side:.2f}"
        return str(round(1000 * value / side if self.unit == "thousandth" else value))
