"""A trace on the disk: safetensors with JSON metadata under a seal, and what must hold of a file before it is used."""

from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ..errors import TraceError, UnsupportedModelError
from ..inputs.regions import Region, Size, region_from_json
from ..layout.visual_tokens import VisualTokenLayout
from ..stored import Reader, entries_of, items, object_of, or_none, record, sides_of, text_of, unread
from ..strict import number, shown, whole_number
from .answer_file import saved_answer
from .latent_method import LatentMethod
from .method import Method
from .registry import method_from_json
from .tensor_file import Shapes, read_tensors, write_tensors

FORMAT = "1"
# Number type and axes of each tensor.
TENSORS = {"maps": ("F32", 3), "latent": ("F32", 2), "image": ("U8", 3)}
# Longest side of the image's copy in a trace, in pixels.
COPY_SIZE = 512
# The same of a video's, on which several frames stand side by side.
VIDEO_COPY_SIZE = 1024
# Pixels of all masks together, which run lengths of a few bytes can stand for.
MOST_MASKED = 1 << 29


def write_trace(path: str | PathLike[str], tensors: Mapping[str, torch.Tensor], data: Mapping[str, Any]) -> Path:
    """Write a trace's tensors and plain data, whole or not at all.

    Raises:
        OutputError: when the file cannot be written.
        TraceError: for data that are not finite, or not plain.
    """
    return write_tensors(path, "trace", FORMAT, tensors, data, TraceError)


def read_trace(path: str | PathLike[str]) -> dict[str, Any]:
    """What a trace file holds, checked: a trace's attributes, steps as dicts; nothing is made before its size is known.

    Raises:
        TraceError: for a file that is missing, damaged, or not a trace.
    """
    return trace_attributes(*read_tensors(path, "trace", FORMAT, check_trace, TraceError))


def trace_attributes(data: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """A trace's attributes of what `check_trace` gave and the tensors that were read."""
    steps = [step | {"maps": maps} for step, maps in zip(data["steps"], tensors["maps"], strict=True)]
    return data | {"steps": steps, "latent": tensors["latent"], "image": tensors["image"].numpy()}


def check_trace(data: Any, shapes: Shapes) -> dict[str, Any]:
    """Plain data as a trace's attributes, in agreement with the types and shapes of its tensors.

    Raises:
        TraceError: for anything else.
    """
    return _checked(data, _axes(shapes))


def _axes(found: Shapes) -> dict[str, tuple[int, ...]]:
    if set(found) != set(TENSORS):
        raise TraceError(f"its tensors must be {', '.join(TENSORS)}; they are {', '.join(sorted(found))}")
    for name, (kind, axes) in TENSORS.items():
        dtype, shape = found[name]
        if dtype != kind or len(shape) != axes or 0 in shape:
            raise TraceError(f"its {name} must be {kind} of {axes} axes; they are {dtype} of {shape}")
    check_image(found["image"][1])
    return {name: shape for name, (_, shape) in found.items()}


def check_image(shape: tuple[int, ...]) -> None:
    """Refuse the shape of a stored image that is no small RGB one."""
    if len(shape) != 3 or shape[2] != 3 or max(shape[:2]) > VIDEO_COPY_SIZE:
        raise TraceError(f"its image must be RGB of at most {VIDEO_COPY_SIZE} px a side; it has shape {shape}")


def check_copy(shape: Sequence[int], size: Size) -> None:
    """Refuse the shape of a stored image that is no copy, made smaller, of one of this (width, height).

    So it is of a sheet on which images stood otherwise than they do now: maps would be drawn beside what they are of.
    """
    height, width = shape[:2]
    scale = min(max(width, height) / max(size), 1.0)
    # A copy's short side is rounded, to one pixel at least.
    if abs(size[0] * scale - width) > 1 or abs(size[1] * scale - height) > 1:
        raise TraceError(
            f"its image must be a copy of that of its layout, {size[0]} x {size[1]} px; it has {width} x {height} px. "
            "Sheets of more than four images stood in one row before: refer again"
        )


def _checked(data: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The metadata as a trace's attributes, in agreement with the tensors' shapes."""
    readers = _FIELDS | {"layout": _layout, "regions": unread, "method": _method}
    found = record(data, "a trace", readers, TraceError)
    layout = found["layout"]
    tokens = len(layout)
    if shapes["maps"] != (expected := (len(found["steps"]), len(found["layers"]), tokens)):
        raise TraceError(f"its maps must have shape (step, layer, visual token) = {expected}; they have {shapes['maps']}")
    # With states that have no place in the image there are more.
    if shapes["latent"][0] < tokens:
        raise TraceError(f"its latent must have {tokens} visual tokens; it has {shapes['latent'][0]}")
    check_copy(shapes["image"], layout.image_size)
    return found | {"regions": saved_regions(data["regions"], layout.image_size)}


def saved_regions(value: Any, image_size: tuple[int, int]) -> tuple[Region, ...]:
    """Regions that were saved; a mask's size is known to be the image's, and bounded, before its pixels are made."""
    width, height = image_size
    several = _items(value, "regions", unread)
    for data in several:
        if isinstance(data, dict) and data.get("kind") == "repeated":
            # On a frame of the sheet, which is the smaller.
            sides = _sides(data.get("size"), "a frame's size")
            if sides[0] > width or sides[1] > height:
                raise TraceError(f"a frame must fit its sheet of {width} x {height} px; got {sides[0]} x {sides[1]} px")
            inner = data.get("region")
            if isinstance(inner, dict) and inner.get("kind") == "repeated":
                raise TraceError("a region on several frames must be of a frame, not on several itself")
            saved_regions([inner], sides)
    masks = [data for data in several if isinstance(data, dict) and data.get("kind") == "mask"]
    for data in masks:
        if data.get("size") != [height, width] or len(masks) * width * height > MOST_MASKED:
            raise TraceError(f"masks must have the image's size {[height, width]} and at most {MOST_MASKED} px in all")
        _items(data.get("counts"), "a mask's runs", _whole)
    if not several:
        raise TraceError("regions must be at least one")
    return tuple(region_from_json(data, image_size) for data in several)


def _layout(value: Any, what: str) -> VisualTokenLayout:
    try:
        return VisualTokenLayout.from_json(value)
    except UnsupportedModelError as error:
        raise TraceError(f"{what} cannot be read: {error}") from error


def _method(value: Any, what: str) -> LatentMethod:
    found = saved_method(value, what)
    if not isinstance(found, LatentMethod):
        raise TraceError(f"{what} must be one that takes steps; got a {found.called()}.")
    return found


def saved_method(value: Any, what: str) -> Method:
    """A method that was saved.

    Raises:
        TraceError, SettingsError: for anything else.
    """
    data = object_of(value, what, TraceError)
    try:
        return method_from_json(data)
    except (TypeError, AttributeError) as error:
        raise TraceError(f"{what} must be that of a run: {error}") from error


_sides = partial(sides_of, error=TraceError)
_whole = partial(whole_number, least=0, most=1 << 53, error=TraceError)
_items = partial(items, error=TraceError)
_number = partial(number, error=TraceError)
_positive = partial(_number, least=0)
_text = partial(text_of, error=TraceError)
_entries = partial(entries_of, error=TraceError)

_STEP: dict[str, Reader] = {
    "number": _whole,
    "energy": _number,
    "share": _number,
    "latent_norm": _positive,
    "gradient_norm": or_none(_positive),
    "seconds": _number,
    "answer": or_none(partial(saved_answer, error=TraceError)),
}


def _digest(value: Any, what: str) -> str:
    if len(_text(value, what)) != 64 or set(value) - set("0123456789abcdef"):
        raise TraceError(f"{what} must be a SHA-256 in hexadecimal; got {shown(value)}.")
    result: str = value
    return result


def _model(value: Any, what: str) -> dict[str, str | None]:
    found = _entries(value, what, or_none(_text))
    if not isinstance(found.get("name"), str):
        raise TraceError(f"{what} must have a name; got {shown(value)}.")
    result: dict[str, str | None] = found
    return result


_FIELDS: dict[str, Reader] = {
    "steps": partial(_items, read=partial(record, readers=_STEP, error=TraceError)),
    "stopped": _text,
    "layers": partial(_items, read=_whole),
    "queries": partial(_items, read=_whole),
    "tokens": partial(_items, read=_text),
    "question": _text,
    "text": _text,
    "image_hash": _digest,
    "model": _model,
    "versions": partial(_entries, read=_text),
    "seed": partial(whole_number, least=-(1 << 64), most=1 << 64, error=TraceError),
}
