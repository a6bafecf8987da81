"""RefCOCOg as the reference describes regions of it: `refcocog.json` beside the images of COCO 2014."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...stored import Reader, whole
from ..example import Example
from ..format import Format, register
from ..lines import Row, as_id, box_of, checked, corners, entries, first_there, some_texts, unlike
from ..prompts import coordinates

QUESTION = "Can you provide a description of the region in a sentence?"
LOCATED = "Can you provide me with a detailed description of the region in the picture marked by {}."
# Where the reference has the images, and next to the list.
_FOLDERS = ("COCO2014/train2014", "train2014", "image")


@register
@dataclass(frozen=True)
class RefCocoG(Format):
    """RefCOCOg: the entries of each split are images with a box and what people said of it."""

    name = "refcocog"
    files = ("refcocog.json", "COCO2014/refcocog.json", "RefCOCOg/refcocog.json", "RD/RefCOCOg/refcocog.json")
    scorer = "captions"

    def rows(self, file: Path) -> list[Row]:
        found = []
        for split, listed in entries(file).items():
            # What is no list is no split; the file may say more of itself.
            for number, data in enumerate(listed if isinstance(listed, list) else ()):
                given = data.get("image_id") if isinstance(data, dict) else None
                found.append(Row(as_id(given, f"{split} {number}"), f"{file.name}, {split}[{number}]", data, split))
        return unlike(found)

    def example(self, file: Path, row: Row) -> Example:
        data = checked(row.data, _FIELDS)
        question = LOCATED.format(coordinates(data["bbox"])) if self.located else QUESTION
        expressions = tuple(data["expressions"])
        # COCO's own rule for the names of its files; its annotations, which have them too, are 300 MB.
        image = first_there((file.parent / each for each in _FOLDERS), f"COCO_train2014_{data['image_id']:012d}.jpg")
        return Example(image, question, box_of(data["bbox"]), expressions[0], names=expressions)


_FIELDS: dict[str, Reader] = {
    "image_id": partial(whole, least=0, most=10**12 - 1),
    "expressions": some_texts,
    "bbox": corners,
}
