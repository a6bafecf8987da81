"""Referring text classification (RTC, COCO-Text) in its public format: JSON lines beside folders `image` and `mask`."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...notation import PLACE
from ...stored import Reader
from ..example import Example
from ..format import Format, register
from ..lines import Row, below, box_of, checked, corners, id_of, json_rows, mask_of, words_of
from ..prompts import LOCATION, SHORT, at_box, others_of, part_of, without_location
from .roc import folder_of

TEST = 1172


@register
@dataclass(frozen=True)
class Rtc(Format):
    """RTC, in the reference's layout (`RTC/question_rtc.json`, `RTC/COCO-Text/image`) or with its list beside images."""

    name = "rtc"
    files = ("question_rtc.json", "COCO-Text/question_rtc.json", "RTC/question_rtc.json")
    regions = ("box", "mask")
    scorer = "published"

    def rows(self, file: Path) -> list[Row]:
        return json_rows(file, "question_id", partial(part_of, test=TEST))

    def example(self, file: Path, row: Row) -> Example:
        data = checked(row.data, _FIELDS | ({"mask": words_of} if self.region == "mask" else {}))
        root = folder_of(file, "COCO-Text")
        question = at_box(data["text"], data["box"]) + SHORT if self.located else without_location(data["text"])
        question = data["text"].replace(LOCATION, PLACE) if self.place else question
        label = data["label"]
        return Example(
            below(root / "image", data["image"]),
            question,
            box_of(data["box"]) if self.region == "box" else mask_of(below(root / "mask", data["mask"])),
            label,
            others_of(data["text"], (label,)),
        )


_FIELDS: dict[str, Reader] = {
    "question_id": id_of,
    "image": words_of,
    "text": words_of,
    "label": words_of,
    "box": corners,
}
