"""Annotations in COCO's JSON, the RefCOCO family among them: with `refs`, an example is what people said of an object."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ...errors import DataError
from ...inputs.regions import Mask, Region, from_run_lengths
from ...stored import Reader, array_of, text_of, whole
from ...strict import shown
from ..example import Example
from ..format import Format, register
from ..lines import Row, as_id, box_of, checked, corners, entries, first_there, id_of, unlike, words_of
from ..prompts import coordinates
from .refcocog import LOCATED, QUESTION

NAMING = "What is the object in the region?"


@register
@dataclass(frozen=True)
class Coco(Format):
    """COCO's `images`, `annotations` and `categories`; `refs`, in the file or in `refs.json` beside it, as REFER has them.

    Args:
        question: to be asked of every region; when empty, for a description where there are refs, else for the name.
    """

    name = "coco"
    files = ("annotations.json", "instances.json", "instances_*.json", "annotations/instances_*.json")
    regions = ("box", "mask")

    question: str = ""

    def rows(self, file: Path) -> list[Row]:
        data = entries(file)
        if absent := [name for name in ("images", "annotations") if not isinstance(data.get(name), list)]:
            raise DataError(f"{file.name} must have lists of images and annotations; it lacks {', '.join(absent)}.")
        images, categories = _by_id(data["images"]), _by_id(data.get("categories", []))
        beside = file.parent / "refs.json"
        refs = data.get("refs") or (entries(beside).get("refs") if beside.is_file() else None)
        if refs is None:
            return unlike(
                Row(
                    as_id(_of(each, "id"), f"annotation {at}"),
                    f"{file.name}, annotations[{at}]",
                    _joined(each, images, categories, None),
                )
                for at, each in enumerate(data["annotations"])
            )
        annotations = _by_id(data["annotations"])
        return unlike(
            Row(
                as_id(_of(each, "ref_id"), f"ref {at}"),
                f"{beside.name if 'refs' not in data else file.name}, refs[{at}]",
                _joined(annotations.get(_of(each, "ann_id"), "has an ann_id without annotation"), images, categories, each),
                str(_of(each, "split") or ""),
            )
            for at, each in enumerate(refs if isinstance(refs, list) else [])
        )

    def example(self, file: Path, row: Row) -> Example:
        data = checked(row.data, _FIELDS, {"names": _names})
        if not data["names"]:
            raise DataError("has neither category, caption nor sentences.")
        asked = QUESTION if data["described"] else NAMING
        question = LOCATED.format(coordinates(data["bbox"])) if self.located else self.question or asked
        parent = file.parent
        suffix = file.stem.rpartition("_")[2]
        folders = [root / each for root in (parent, parent.parent) for each in ("images", "image", suffix, ".")]
        if parent.name != "annotations":
            folders = folders[:4]
        image = first_there(folders, data["file_name"])
        region: Region = box_of(data["bbox"])
        if self.region == "mask":
            region = _mask(data.get("segmentation"), data.get("height"), data.get("width"))
        return Example(image, question, region, data["names"][0], names=data["names"])


def _joined(annotation: Any, images: Mapping[Any, Any], categories: Mapping[Any, Any], ref: Any) -> Any:
    """An annotation with its image and the right answers; a text that says what is wrong."""
    if not isinstance(annotation, dict):
        return annotation if isinstance(annotation, str) else f"must be an object; got {shown(annotation)}."
    image = images.get(annotation.get("image_id"))
    if not isinstance(image, dict):
        return f"has an image_id without image: {shown(annotation.get('image_id'))}."
    said = [_of(each, "raw") or _of(each, "sent") for each in _of(ref, "sentences") or ()]
    caption = annotation.get("caption") or image.get("caption")
    category = _of(categories.get(annotation.get("category_id")), "name")
    names = said or [each for each in (caption or category,) if each]
    chosen = {key: image[key] for key in ("file_name", "height", "width") if key in image}
    return {**annotation, **chosen, "names": names, "described": bool(said or caption)}


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _by_id(listed: Any) -> dict[Any, Any]:
    return {each["id"]: each for each in listed if isinstance(each, dict) and isinstance(each.get("id"), int | str)}


def _mask(segmentation: Any, height: Any, width: Any) -> Mask:
    """What COCO's polygons, or its run lengths down the columns, mark."""
    height, width = (whole(side, "has an image whose side", 1) for side in (height, width))
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if not isinstance(counts, list):
            raise DataError("has a segmentation in compressed run lengths; write it as a list, or as polygons.")
        return Mask(from_run_lengths(counts, width, height).T)
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"has no segmentation of polygons; got {shown(segmentation)}.")
    drawn = Image.new("1", (width, height))
    for polygon in segmentation:
        count = len(polygon) if isinstance(polygon, list) else 0
        points = array_of(polygon, "has a segmentation whose polygon", (max(count, 6),))
        ImageDraw.Draw(drawn).polygon(points.tolist(), fill=1)
    return Mask(np.asarray(drawn))


def _names(value: Any, what: str) -> Any:
    return [words_of(each, what) for each in value]


_FIELDS: dict[str, Reader] = {"image_id": id_of, "bbox": corners, "file_name": text_of, "names": _names}
