"""Referring object classification (ROC, LVIS) in its public format: JSON lines beside folders `image` and `mask`."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import DataError
from ...files import reason, said
from ...inputs.images import read_image
from ...inputs.regions import REGION_KINDS, Point, Region, Scribble
from ...notation import PLACE
from ...stored import Reader, items
from ...strict import kind_of, shown
from ..example import Example
from ..format import Format, register
from ..lines import (
    Row,
    below,
    box_of,
    checked,
    corners,
    id_of,
    json_rows,
    line,
    mask_of,
    position,
    texts_of,
    words_of,
)
from ..prompts import LOCATION, SHORT, at_box, part_of, without_location

# The first so many lines are the test split, the others are for choosing settings.
TEST = 1548


@dataclass(frozen=True, repr=False)
class ReferringExample:
    """One question about one object.

    Args:
        root: folder of the data set.
        data: the line's fields: id, image_path, text, name, synonyms, bbox (xywh), seg_mask, center_point, scribble.

    Examples:
        >>> scene = cm.bench.held_out()[0]
        >>> scene.names[0], scene.region("point")
        ('magenta diamond', Point(x=138, y=25))
    """

    root: Path
    data: dict[str, Any]

    def __repr__(self) -> str:
        among = f" of {len(self.objects)} objects" if self.objects else ""
        return f"{type(self).__name__}({self.id!r}, {self.question!r}, {self.names[0]!r}{among})"

    @property
    def id(self) -> int | str:
        result: int | str = self.data["id"]
        return result

    @property
    def question(self) -> str:
        """The text without `<location>`, as the reference asks LLaVA."""
        return without_location(self.data["text"])

    @property
    def names(self) -> tuple[str, ...]:
        """The object's name and synonyms."""
        return tuple(dict.fromkeys([self.data["name"], *self.data["synonyms"]]))

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of all objects of the scene; an extension of generated sets, empty elsewhere."""
        return tuple(thing["name"] for thing in self.data.get("objects", ()))

    @property
    def image_file(self) -> Path:
        """The image's file.

        Raises:
            DataError: when it is not below the set's folder `image`.
        """
        return below(self.root / "image", Path(*Path(self.data["image_path"]).parts[-2:]))

    @cached_property
    def image(self) -> Image.Image:
        """The image, upright.

        Raises:
            ImageError: when its file cannot be read.
            DataError: when it is not below the set's folder `image`.
        """
        return read_image(self.image_file)

    def region(self, kind: str) -> Region:
        """The object as "box", "mask", "scribble" or "point".

        Raises:
            DataError: for another kind.
        """
        match kind if isinstance(kind, str) else None:
            case "box":
                return box_of(self.data["bbox"])
            case "mask":
                return mask_of(below(self.root / "mask", self.data["seg_mask"]))
            case "scribble":
                return Scribble(self.data["scribble"])
            case "point":
                return Point(*self.data["center_point"])
        raise DataError(f"A region's kind must be box, mask, scribble or point; got {shown(kind)}.")

    def example(self, kind: str = "box") -> Example:
        """As it is measured: the answer is the object's name as the question has it; the image stays in its file.

        Raises:
            DataError: for another kind of region.
        """
        text = self.question.lower()
        answer = next((name for name in self.names if name.lower() in text), self.names[0])
        others = tuple(name for name in self.objects if name not in self.names and name.lower() in text)
        names = (self.data["name"], *self.data["synonyms"])
        return Example(self.image_file, self.question, self.region(kind), answer, others, names=names, id=self.id)


@register
@dataclass(frozen=True)
class Roc(Format):
    """ROC, in the reference's layout (`ROC/question_roc.json`, `ROC/LVIS/image`) or with its list beside its images."""

    name = "roc"
    files = ("question_roc.json", "LVIS/question_roc.json", "ROC/question_roc.json")
    regions = REGION_KINDS
    scorer = "published"

    def rows(self, file: Path) -> list[Row]:
        return json_rows(file, "id", partial(part_of, test=TEST))

    def example(self, file: Path, row: Row) -> Example:
        asked = ReferringExample(folder_of(file, "LVIS"), _check(row.data))
        asked.image_file  # noqa: B018 (one that leads out of the folder is no example)
        example = asked.example(self.region)
        if self.located:
            return replace(example, question=at_box(asked.data["text"], asked.data["bbox"]) + SHORT)
        return replace(example, question=asked.data["text"].replace(LOCATION, PLACE)) if self.place else example


def folder_of(file: Path, inner: str) -> Path:
    """The folder of `image` and `mask`: the one that the reference has them in, or that of the list."""
    there = file.parent / inner
    return there if not (file.parent / "image").is_dir() and (there / "image").is_dir() else file.parent


def read_roc(root: str | PathLike[str], file: str = "question_roc.json") -> list[ReferringExample]:
    """A set's questions, one to a line; every line is checked at once. `data.read` leaves them until they are asked for.

    Raises:
        DataError: for a missing file, a line that is not JSON or not of the format, or one whose image or mask lies outside
            the set's folders.

    Examples:
        >>> cm.bench.read_roc(cm.bench.HELDOUT)[7].question
        'Is the object a blue zero or a red cross?'
    """
    kind_of(file, str, "The name of a set's file must be a text", DataError)
    try:
        root = Path(root).expanduser()
        path = root / file
        missing = not path.is_file()
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"A ROC set must be a folder with a file of questions; {said(root)} is none: {reason(error)}"
        ) from error
    if missing:
        raise DataError(f"A ROC set must have a file of questions; there is no {said(path)}.")
    examples = []
    for row in json_rows(path, "id"):
        try:
            data = _check(row.data)
            below(root / "image", Path(*Path(data["image_path"]).parts[-2:]))
            below(root / "mask", data["seg_mask"])
        except DataError as error:
            number = row.where.rpartition(" ")[2]
            raise DataError(f"Every line of {said(path)} must be a question of ROC's; line {number} {error}") from error
        examples.append(ReferringExample(root, data))
    return examples


def _check(data: Any) -> dict[str, Any]:
    return checked(data, _FIELDS, {"objects": partial(items, read=_object)})


def _object(value: Any, what: str) -> None:
    if not isinstance(value, dict) or "name" not in value:
        raise DataError(f"{what} must be an object with a name; got {shown(value)}.")
    words_of(value["name"], f"{what}'s name")
    if "bbox" in value:
        corners(value["bbox"], f"{what}'s bbox")


_FIELDS: dict[str, Reader] = {
    "id": id_of,
    "image_path": words_of,
    "text": words_of,
    "name": words_of,
    "synonyms": texts_of,
    "bbox": corners,
    "seg_mask": words_of,
    "center_point": position,
    "scribble": line,
}
