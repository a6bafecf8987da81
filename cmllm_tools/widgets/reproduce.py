"""The Python that does again what was set with the mouse."""

from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

from ..images import ImageSource
from ..methods import Method
from ..models.mllm import Mllm
from ..regions import Mask, Point, Region, Scribble

PLACEHOLDER = "path/to/your/image.png"
# What `load()` calls the model that ships with the package.
EMBEDDED = "embedded"
# Settings that are always written; the others where they are not the method's own.
WRITTEN = ("steps", "step_size", "layers", "queries", "sigma")


def code(
    mllm: Mllm,
    image: ImageSource,
    question: str,
    regions: tuple[Region, ...],
    method: Method,
) -> str:
    """A script with these arguments; where the image came from no file, the script has a placeholder.

    Settings are written out, also where they are the model's defaults, which a later version may have changed.
    """
    path = source(image)
    model = "" if mllm.name == EMBEDDED else repr(mllm.name)
    given = ", ".join(
        f"{field.name}={getattr(method, field.name)!r}"
        for field in fields(method)
        if field.name in WRITTEN or getattr(method, field.name) != field.default
    )
    lines = ["import cmllm_tools as cm"]
    if any(isinstance(region, Mask) for region in regions):
        lines.append("from cmllm_tools.regions import region_from_json")
    lines += [
        "",
        f"mllm = cm.load({model})",
        *(["# The image came from no file: put its path here."] if path is None else []),
        f"prompt = mllm.prepare({path or PLACEHOLDER!r}, {question!r})",
        "regions = [",
        *(f"    {constructor(region)}," for region in regions),
        "]",
        f"method = cm.{type(method).__name__}({given})",
        'trace = cm.optimize(mllm, prompt, regions, method, callbacks=[cm.Answers("ends")])',
        "print(trace.table())",
    ]
    return "\n".join(lines) + "\n"


def source(image: Any) -> str | None:
    """The file that an image came from, if it did."""
    if isinstance(image, str | PathLike):
        return str(image)
    # Pillow keeps the name of what it opened; a copy, or an image that was computed, has none.
    name = getattr(image, "filename", None)
    return str(name) if isinstance(name, str | PathLike) and str(name) and Path(name).is_file() else None


def constructor(region: Region) -> str:
    """The expression that makes an equal region."""
    # Its JSON holds plain floats, where the region itself may hold those of numpy.
    data = region.to_json()
    match region:
        case Mask():
            return f"region_from_json({data!r})"
        case Scribble():
            return f"cm.Scribble({[tuple(point) for point in data['points']]!r})"
        case Point():
            return f"cm.Point({_numbers(data['position'])})"
    return f"cm.Box({_numbers(data['corners'])})"


def _numbers(values: list[float]) -> str:
    return ", ".join(map(repr, values))
