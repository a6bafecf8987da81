"""Referring object classification (ROC) in its public format: JSON lines beside folders `image` and `mask`."""

import json
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from ..analysis.examples import Example
from ..errors import DataError
from ..regions import Box, Mask, Point, Region, Scribble


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
        return self.data["id"]

    @property
    def question(self) -> str:
        """The text without `<location>`, as the reference asks LLaVA."""
        return self.data["text"].replace("<location> ", "").replace(" <location>", "")

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
        return self.root / "image" / Path(*Path(self.data["image_path"]).parts[-2:])

    @cached_property
    def image(self) -> Image.Image:
        return Image.open(self.image_file).convert("RGB")

    def region(self, kind: str) -> Region:
        """The object as "box", "mask", "scribble" or "point".

        Raises:
            DataError: for another kind.
        """
        match kind:
            case "box":
                x, y, width, height = self.data["bbox"]
                return Box(x, y, x + width, y + height)
            case "mask":
                return Mask.from_file(self.root / "mask" / self.data["seg_mask"])
            case "scribble":
                return Scribble(self.data["scribble"])
            case "point":
                return Point(*self.data["center_point"])
        raise DataError(f"A region's kind must be box, mask, scribble or point; got {kind!r}.")

    def example(self, kind: str = "box") -> Example:
        """As the analyses take it: the answer is the object's name as the question has it; the image stays in its file.

        Raises:
            DataError: for another kind of region.
        """
        text = self.question.lower()
        answer = next((name for name in self.names if name.lower() in text), self.names[0])
        others = tuple(name for name in self.objects if name not in self.names and name.lower() in text)
        return Example(self.image_file, self.question, self.region(kind), answer, others)


FIELDS = ("id", "image_path", "text", "name", "synonyms", "bbox", "seg_mask", "center_point", "scribble")


def read_roc(root: str | PathLike, file: str = "question_roc.json") -> list[ReferringExample]:
    """Read a set's questions.

    Raises:
        DataError: for a missing file, a line that is not JSON, or one without the format's fields.
    """
    path = Path(root) / file
    if not path.is_file():
        raise DataError(f"A ROC set must have a file of questions; there is no {path}.")
    examples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"Every line of {path} must be JSON; line {number} is not: {error}") from error
        missing = [field for field in FIELDS if field not in data]
        if missing:
            raise DataError(
                f"Every line of {path} must have {', '.join(FIELDS)}; line {number} lacks {', '.join(missing)}."
            )
        examples.append(ReferringExample(Path(root), data))
    return examples
