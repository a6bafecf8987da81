"""The Python that does again what was set with the mouse."""

import json
from base64 import b85encode
from collections.abc import Mapping
from importlib import import_module
from os import PathLike
from pathlib import Path
from textwrap import fill, indent
from typing import Any
from zlib import compress

from ..inputs.images import ImageSource
from ..inputs.regions import Mask, Point, Region, Scribble
from ..loading import EMBEDDED
from ..models.mllm import Mllm
from ..referring.latent_method import LatentMethod
from ..referring.method import Method

PLACEHOLDER = "path/to/your/image.png"
# Longest line, about, and how far a part of one is moved to the right.
WIDTH, STEP = 100, "    "
_IMPORTS_OF_MASKS = [
    "import json",
    "from base64 import b85decode",
    "from zlib import decompress",
    "",
    "import cmllm_tools as cm",
    "from cmllm_tools.inputs.regions import region_from_json",
]


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
    given = [
        f"{each.name}={getattr(method, each.name)!r}"
        for each in method.settings()
        if (each.asked and each.name != "heads") or getattr(method, each.name) != each.default
    ]
    imported, name = _name(type(method))
    picture, asked = _literal(source(image) or PLACEHOLDER), _literal(question)
    lines = [
        *_prepared(mllm, image, question, regions, imported),
        *_assigned("method", name, given),
        *_run(method, picture, asked),
    ]
    return "\n".join(lines) + "\n"


def knockout_code(
    mllm: Mllm, image: ImageSource, question: str, regions: tuple[Region, ...], arguments: Mapping[str, Any]
) -> str:
    """A script that knocks attention out, see `code`.

    Args:
        arguments: of `causes.knockout_grid`, by name; the word "regions" stands for these.
    """
    given = [f"{name}={value if value == 'regions' and name == 'to' else repr(value)}" for name, value in arguments.items()]
    lines = [
        *_prepared(mllm, image, question, regions, []),
        *_assigned("grid", "cm.causes.knockout_grid", ["mllm", "prompt", *given]),
        "print(grid)",
        "figure = cm.figures.cause_grid(grid)",
    ]
    return "\n".join(lines) + "\n"


def _prepared(mllm: Mllm, image: ImageSource, question: str, regions: tuple[Region, ...], imported: list[str]) -> list[str]:
    """Lines that load the model, and make prompt and regions."""
    path = source(image)
    model = "" if mllm.name == EMBEDDED else repr(mllm.name)
    return [
        *(_IMPORTS_OF_MASKS if any(isinstance(region, Mask) for region in regions) else ["import cmllm_tools as cm"]),
        *imported,
        "",
        f"mllm = cm.load({model})",
        *(["# The image came from no file: put its path here."] if path is None else []),
        *_assigned("prompt", "mllm.prepare", [_literal(path or PLACEHOLDER), _literal(question)]),
        *_list_of(regions),
    ]


def _name(kind: type[Method]) -> tuple[list[str], str]:
    """What is to be imported to make a method, and how it is called then."""
    package = __name__.split(".", maxsplit=1)[0]
    if not kind.__module__.startswith(f"{package}."):
        return [f"from {kind.__module__} import {kind.__name__}"], kind.__name__
    return [], f"cm.{kind.__name__}" if kind.__name__ in import_module(package).__all__ else f"cm.methods.{kind.__name__}"


def _run(method: Method, picture: str, asked: str) -> list[str]:
    if isinstance(method, LatentMethod):
        return [
            'trace = cm.optimize(mllm, prompt, regions, method, callbacks=[cm.Answers("ends")])',
            "print(trace.table())",
        ]
    return [*_assigned("outcome", "cm.refer", ["mllm", picture, asked, "regions", "method"]), "print(outcome)"]


def source(image: Any) -> str | None:
    """The file that an image came from, if it did."""
    if isinstance(image, str | PathLike):
        return str(image)
    # Pillow keeps the name of what it opened; a copy, or an image that was computed, has none.
    name = getattr(image, "filename", None)
    return str(name) if isinstance(name, str | PathLike) and str(name) and Path(name).is_file() else None


def constructor(region: Region) -> str:
    """The expression that makes an equal region; a mask's needs the imports that `code` writes."""
    # Its JSON holds plain floats, where the region itself may hold those of numpy.
    data = region.to_json()
    match region:
        case Mask():
            packed = b85encode(compress(json.dumps(data).encode(), 9)).decode()
            return f"region_from_json(json.loads(decompress(b85decode({_inside(_literal(packed))}))))"
        case Scribble():
            points = repr([tuple(point) for point in data["points"]])
            return f"cm.Scribble({_inside(fill(points, WIDTH, break_long_words=False))})"
        case Point():
            return f"cm.Point({_numbers(data['position'])})"
    return f"cm.Box({_numbers(data['corners'])})"


def _list_of(regions: tuple[Region, ...]) -> list[str]:
    if not regions:
        return [
            "# No region is drawn yet: put yours here, in pixels of the image.",
            "width, height = prompt.image.size",
            "regions = [cm.Box(width / 4, height / 4, 3 * width / 4, 3 * height / 4)]",
        ]
    return ["regions = [", *(indent(constructor(region), STEP) + "," for region in regions), "]"]


def _assigned(name: str, function: str, arguments: list[str]) -> list[str]:
    """A call on one line, or where this is too long on one for each argument."""
    whole = f"{name} = {function}({', '.join(arguments)})"
    if "\n" not in whole and len(whole) <= WIDTH:
        return [whole]
    return [f"{name} = {function}(", *(indent(argument, STEP) + "," for argument in arguments), ")"]


def _literal(text: str) -> str:
    """A string; a long one in parts, each on a line of its own, which Python joins within parentheses."""
    parts = [text[at : at + WIDTH] for at in range(0, len(text), WIDTH)] or [""]
    return "\n".join(map(repr, parts))


def _inside(parentheses: str) -> str:
    """What stands in parentheses: one line within them, several below."""
    return "\n" + indent(parentheses, STEP) + "\n" if "\n" in parentheses else parentheses


def _numbers(values: list[float]) -> str:
    return ", ".join(map(repr, values))
