"""Referring object classification (ROC) in its public format: JSON lines beside folders `image` and `mask`."""

import os
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..analysis.examples import Example
from ..errors import DataError
from ..files import reason, said
from ..inputs.images import read_image
from ..inputs.regions import Box, Mask, Point, Region, Scribble
from ..stored import Reader, array_of, items, parse_json, text_of
from ..strict import kind_of, shown, whole_number


@dataclass(frozen=True)
class ReferringExample:
    """One question about one object.

    Args:
        root: folder of the data set.
        data: the line's fields: id, image_path, text, name, synonyms, bbox (xywh), seg_mask, center_point, scribble.
    """

    root: Path
    data: dict[str, Any]

    @property
    def id(self) -> int | str:
        result: int | str = self.data["id"]
        return result

    @property
    def question(self) -> str:
        """The text without `<location>`, as the reference asks LLaVA."""
        return str(self.data["text"].replace("<location> ", "").replace(" <location>", ""))

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
        return _below(self.root / "image", Path(*Path(self.data["image_path"]).parts[-2:]))

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
                x, y, width, height = self.data["bbox"]
                return Box(x, y, x + width, y + height)
            case "mask":
                return Mask.from_file(_below(self.root / "mask", self.data["seg_mask"]))
            case "scribble":
                return Scribble(self.data["scribble"])
            case "point":
                return Point(*self.data["center_point"])
        raise DataError(f"A region's kind must be box, mask, scribble or point; got {shown(kind)}.")

    def example(self, kind: str = "box") -> Example:
        """As the analyses take it: the answer is the object's name as the question has it; the image stays in its file.

        Raises:
            DataError: for another kind of region.
        """
        text = self.question.lower()
        answer = next((name for name in self.names if name.lower() in text), self.names[0])
        others = tuple(name for name in self.objects if name not in self.names and name.lower() in text)
        return Example(self.image_file, self.question, self.region(kind), answer, others)


def read_roc(root: str | PathLike[str], file: str = "question_roc.json") -> list[ReferringExample]:
    """Read a set's questions, one to a line; every line is checked.

    Raises:
        DataError: for a missing file, a line that is not JSON or not of the format, or one whose image or mask lies outside
            the set's folders.
    """
    kind_of(file, str, "The name of a set's file must be a text", DataError)
    try:
        root = Path(root).expanduser()
        path = root / file
        missing = not path.is_file()
        lines = [] if missing else path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"A ROC set must be a folder with a file of questions; {said(root)} is none: {reason(error)}"
        ) from error
    if missing:
        raise DataError(f"A ROC set must have a file of questions; there is no {said(path)}.")
    examples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = parse_json(line)
        except ValueError as error:
            raise DataError(f"Every line of {said(path)} must be JSON; line {number} is not: {error}") from error
        try:
            _check(root, data)
        except DataError as error:
            raise DataError(f"Every line of {said(path)} must be a question of ROC's; line {number} {error}") from error
        examples.append(ReferringExample(root, data))
    return examples


def _check(root: Path, data: Any) -> None:
    if not isinstance(data, dict):
        raise DataError(f"must be an object; got {shown(data)}.")
    if absent := [field for field in _FIELDS if field not in data]:
        raise DataError(f"lacks {', '.join(absent)}.")
    for field, read in (_FIELDS | {"objects": _objects}).items():
        if field in data:
            read(data[field], f"has a bad {field}: it")
    _below(root / "image", Path(*Path(data["image_path"]).parts[-2:]))
    _below(root / "mask", data["seg_mask"])


def _below(folder: Path, name: str | Path) -> Path:
    """A file of a folder; a set may not reach others by `..`, absolute names or links. The folder itself may be a link."""
    plain = Path(name)
    try:
        possible = b"\0" not in os.fsencode(plain)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise DataError(f"names no file: {said(name)}.")
    path = folder / plain
    inside = bool(plain.parts) and not plain.is_absolute() and ".." not in plain.parts
    if inside and any(part.is_symlink() for part in (path, *path.parents[: len(plain.parts) - 1])):
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    if not inside:
        raise DataError(f"leads out of the set's folder {said(folder)}: {said(name)}.")
    return path


def _id(value: Any, what: str) -> int | str:
    return value if isinstance(value, str) else whole_number(value, what, error=DataError)


def _named(value: Any, what: str) -> str:
    if not text_of(value, what).strip():
        raise DataError(f"{what} must have words; got {shown(value)}.")
    result: str = value
    return result


def _names(value: Any, what: str) -> tuple[str, ...]:
    return items(value, what, text_of)


def _position(value: Any, what: str) -> np.ndarray:
    return array_of(value, what, (2,))


def _box(value: Any, what: str) -> np.ndarray:
    corners = array_of(value, what, (4,))
    if (corners[2:] <= 0).any():
        raise DataError(f"{what} must be x, y, width and height, these above 0; got {shown(value)}.")
    return corners


def _line(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, list) or not value:
        raise DataError(f"{what} must be a list of points; got {shown(value)}.")
    return array_of(value, what, (len(value), 2))


def _objects(value: Any, what: str) -> tuple[Any, ...]:
    return items(value, what, _object)


def _object(value: Any, what: str) -> None:
    if not isinstance(value, dict) or "name" not in value:
        raise DataError(f"{what} must be an object with a name; got {shown(value)}.")
    _named(value["name"], f"{what}'s name")
    if "bbox" in value:
        _box(value["bbox"], f"{what}'s bbox")


_FIELDS: dict[str, Reader] = {
    "id": _id,
    "image_path": _named,
    "text": _named,
    "name": _named,
    "synonyms": _names,
    "bbox": _box,
    "seg_mask": _named,
    "center_point": _position,
    "scribble": _line,
}
