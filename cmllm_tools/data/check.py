"""What a set has, and what is wrong with it, before anything is run on it."""

from collections import Counter
from dataclasses import dataclass
from os import PathLike
from typing import Any

from ..errors import CmllmError, ImageError, RegionError
from ..inputs.images import read_image
from ..inputs.regions import Region
from ..notation import text_table
from ..progress import progress_bar
from ..shown import Fact, Shown
from .dataset import as_dataset
from .example import Example

# Faults that are listed one by one.
LISTED = 20
LINE, IMAGE, REGION, QUESTION, CROPPED = "malformed", "image", "region", "question", "outside the centre square"


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with an example.

    Args:
        where: file and line.
        id: of the example.
        kind: of the fault, in a word or two.
        message: what must hold, and what there is.
    """

    where: str
    id: int | str
    kind: str
    message: str


@dataclass(frozen=True, repr=False)
class Findings(Shown):
    """What a set has.

    Args:
        name: of the format.
        count: of examples.
        images: number of different files.
        splits: examples of each.
        regions: examples with each kind of region.
        answered: examples with a right answer.
        faults: in the order of the file.
        cropped: examples whose region is not within the image's centre square, which is all that some models see of it.

    Examples:
        >>> found = cm.data.check(cm.data.read(cm.bench.HELDOUT)[:3], progress=False)
        >>> found.count, found.faults
        (3, ())
    """

    name: str
    count: int
    images: int
    splits: dict[str, int]
    regions: dict[str, int]
    answered: int
    faults: tuple[Fault, ...]
    cropped: tuple[Fault, ...]

    @property
    def bad(self) -> int:
        """Examples with a fault."""
        return len({fault.id for fault in self.faults})

    def facts(self) -> list[Fact]:
        return [
            ("", self.name),
            ("", f"{self.count} examples"),
            ("", f"{self.images} images"),
            *[("", f"{count} {split}") for split, count in self.splits.items() if split],
            ("", ", ".join(f"{count} {kind}" for kind, count in self.regions.items()) or "no regions"),
            ("", f"{self.answered} with a right answer"),
            ("", f"{self.bad} with a fault"),
            ("", f"{len(self.cropped)} with a region not within the image's centre square"),
        ]

    def table(self, most: int = LISTED) -> str:
        """The facts, and the first faults with their lines, as text."""
        lines = [f"{label} {text}".strip() for label, text in self.facts()]
        rows = [[fault.where, fault.kind, fault.message] for fault in self.faults[:most]]
        if rows:
            lines += ["", text_table([["where", "fault", ""], *rows], "<<<")]
        if len(self.faults) > most:
            lines.append(f"and {len(self.faults) - most} more")
        if self.cropped:
            named = ", ".join(fault.where.rpartition(", ")[2] for fault in self.cropped[:most])
            more = f" and {len(self.cropped) - most} more" if len(self.cropped) > most else ""
            lines += ["", f"not within the centre square: {named}{more}"]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "format": self.name,
            "examples": self.count,
            "images": self.images,
            "splits": self.splits,
            "regions": self.regions,
            "answered": self.answered,
            "faults": [vars(fault) for fault in self.faults],
            "outside_centre_square": [{"where": each.where, "id": each.id} for each in self.cropped],
        }


def check(dataset: Any, progress: bool = True) -> Findings:
    """Look at every example: its line, image, region and question; images are read to their end.

    Args:
        dataset: from `data.read`, or examples.
        progress: whether a bar is shown.

    Raises:
        DataError: for what is neither.

    Examples:
        >>> cm.data.check(cm.data.read(cm.bench.HELDOUT)[:3], progress=False)
        Findings(roc, 3 examples, 3 images, 3 test, 3 box, 3 with a right answer, 0 with a fault, 0 with a
        region not within the image's centre square)
    """
    dataset = as_dataset(dataset)
    faults: list[Fault] = []
    cropped: list[Fault] = []
    images: dict[str, tuple[int, int] | str] = {}
    kinds: Counter[str] = Counter()
    answered = 0
    for number, row in enumerate(progress_bar(dataset.rows, "examples", progress)):
        try:
            example = dataset[number]
        except CmllmError as error:
            kind = {ImageError: IMAGE, RegionError: REGION}.get(type(error), LINE)
            faults.append(Fault(row.where, row.id, kind, str(error).removeprefix(row.where).lstrip(": ")))
            continue
        answered += example.answer is not None
        kinds.update(type(region).__name__.lower() for region in example.regions)
        if not example.question.strip():
            faults.append(Fault(row.where, row.id, QUESTION, "A question must have words; this one is empty."))
        size = _size(example, images)
        if isinstance(size, str):
            faults.append(Fault(row.where, row.id, IMAGE, size))
            continue
        for region in example.regions:
            try:
                region.check(*size)
            except RegionError as error:
                faults.append(Fault(row.where, row.id, REGION, str(error)))
                continue
            if _outside_square(region, size):
                cropped.append(Fault(row.where, row.id, CROPPED, f"{region!r} on {size[0]} x {size[1]} px"))
    return Findings(
        dataset.name, len(dataset), len(images), dataset.splits, dict(kinds), answered, tuple(faults), tuple(cropped)
    )


def _size(example: Example, known: dict[str, tuple[int, int] | str]) -> tuple[int, int] | str:
    """An image's size, or why it cannot be read; each file is read once."""
    # Images that are no files are told apart by where they are in memory, where the set keeps them.
    image = example.image
    key = str(image) if isinstance(image, str | PathLike) else f"at {id(image)}"
    if key not in known:
        try:
            known[key] = read_image(example.image).size
        except ImageError as error:
            known[key] = str(error)
    return known[key]


def _outside_square(region: Region, size: tuple[int, int]) -> bool:
    """Whether nothing of a region is within the centre square."""
    width, height = size
    side = min(size)
    left, top = (width - side) / 2, (height - side) / 2
    x0, y0, x1, y1 = region.bounds
    return x1 <= left or x0 >= left + side or y1 <= top or y0 >= top + side
