"""ScreenSpot as the reference describes elements of it: JSON lines beside screenshots."""

from dataclasses import dataclass
from pathlib import Path

from ...stored import Reader
from ..example import Example
from ..format import Format, register
from ..lines import Row, box_of, checked, corners, first_there, id_of, json_rows, words_of
from ..prompts import at_box, coordinates, without_location

# How the two kinds of elements are asked about, and how where coordinates are read.
_PUBLISHED = {
    "What is this icon used for?": "What is this icon in {} used for?",
    "What does this text say?": "What does this text in {} say?",
}
_SHORT = " Respond with a short and direct answer without mentioning the coordinates."


@register
@dataclass(frozen=True)
class ScreenSpot(Format):
    """ScreenSpot: what an icon is for, what a text says."""

    name = "screenspot"
    files = ("question_screenspot.json", "ScreenSpot/question_screenspot.json", "RD/ScreenSpot/question_screenspot.json")
    scorer = "captions"

    def rows(self, file: Path) -> list[Row]:
        return json_rows(file, "id")

    def example(self, file: Path, row: Row) -> Example:
        data = checked(row.data, _FIELDS)
        question = without_location(data["text"])
        if self.located:
            asked = _PUBLISHED.get(question)
            place = coordinates(data["bbox"])
            question = at_box(data["text"], data["bbox"]) if asked is None else asked.format(place) + _SHORT
        # The reference's list has names with and without the folder.
        image = first_there((file.parent, file.parent / "image"), data["image_path"])
        return Example(image, question, box_of(data["bbox"]), data["name"])


_FIELDS: dict[str, Reader] = {
    "id": id_of,
    "image_path": words_of,
    "text": words_of,
    "name": words_of,
    "bbox": corners,
}
