"""ViP-Bench in its public format: `vip-bench-meta-data.json`, images with drawn prompts, and the plain ones with shapes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...errors import DataError, SettingsError
from ...inputs.regions import Box, Region
from ...stored import Reader, array_of, parse_json, text_of, unread
from ...strict import one_of, shown
from ..example import Example
from ..format import Format, register
from ..lines import Row, below, checked, entries, json_rows, read_bytes, texts_of, words_of

# What stands for the object in the question where a method points at it.
OBJECT = "the object"
DRAWN = ("bbox", "human")


@register
@dataclass(frozen=True)
class VipBench(Format):
    """ViP-Bench.

    Args:
        split: `source` is the plain image with the published shapes as regions, for methods that point by themselves;
            `bbox` and `human` are the images that shapes are drawn into already, with the questions that name the shapes.
    """

    name = "vip-bench"
    files = ("vip-bench-meta-data.json", "ViP-Bench/vip-bench-meta-data.json")
    scorer = "judged"
    splits: ClassVar[tuple[str, ...]] = ("source", *DRAWN)

    split: str = "source"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self.split, "The split of a ViP-Bench set", self.splits, SettingsError)

    def rows(self, file: Path) -> list[Row]:
        asked = _questions(file.parent / self.split / "questions.jsonl") if self.split in DRAWN else {}
        found = []
        for name, data in entries(file).items():
            if isinstance(data, dict) and self.split in DRAWN:
                # In place of the question that has `<obj>`; without one, the line is a fault of this example alone.
                data = {key: value for key, value in data.items() if key != "question"} | asked.get(name, {})  # noqa: PLW2901
            found.append(Row(name, f"{file.name}, {name}", data, self.split))
        return found

    def example(self, file: Path, row: Row) -> Example:
        data = checked(row.data, _FIELDS)
        folder = file.parent / "source_image"
        image, question = below(folder, data["image_source"]), data["question"]
        shapes = _shapes(below(folder, Path(data["image_source"]).with_suffix(".json")))
        if self.split in DRAWN:
            image = below(file.parent / self.split / "images", data["image"])
        else:
            labels = [label for label in shapes if f"<{label}>" in question]
            for label in labels:
                question = question.replace(f"<{label}>", _words(label, len(labels)))
            shapes = {label: shapes[label] for label in labels} or shapes
        return Example(image, question, tuple(shapes.values()), data["answer"], tags=tuple(data["capability"]))


def _words(label: str, count: int) -> str:
    """How an object is named in the question; of several each by its number."""
    return OBJECT if count == 1 else f"object {label.removeprefix('obj') or '1'}"


def _questions(path: Path) -> dict[str, dict[str, Any]]:
    """What is asked of the images that are drawn into, by the id in the list of answers."""
    found = {}
    for row in json_rows(path, "question_id"):
        data = checked(row.data, {"question_id": unread, "text": words_of})
        found[f"v1_{data['question_id']}"] = {"question": data["text"]}
    return found


def _shapes(path: Path) -> dict[str, Region]:
    """The boxes of the objects of a plain image, by their labels, as labelme writes them."""
    text = read_bytes(path)
    try:
        data = parse_json(text)
    except ValueError as error:
        raise DataError(f"has shapes that are no JSON, in {path.name}: {error}") from error
    found: dict[str, Region] = {}
    for shape in checked(data, {"shapes": _list})["shapes"]:
        each = checked(shape, {"label": text_of, "points": _points})
        points = array_of(each["points"], "points", (len(each["points"]), 2))
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        found[each["label"]] = Box(x0, y0, x1, y1)
    if not found:
        raise DataError(f"has no shape in {path.name}.")
    return found


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{what} must be a list; got {shown(value)}.")
    return value


def _points(value: Any, what: str) -> Any:
    return array_of(value, what, (len(_list(value, what)), 2))


_FIELDS: dict[str, Reader] = {
    "image_source": words_of,
    "image": words_of,
    "question": words_of,
    "answer": words_of,
    "capability": texts_of,
}
