"""An outcome on the disk, in the format of `tensor_file`, with what must hold of a file before it is used."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError
from ..inputs.conversation import Conversation, Timing, Turn, has_words
from ..layout.sheet import sheet_size
from ..models.changing import Changing, ChosenBy
from ..models.contrast import Contrast
from ..models.interventions import KINDS, Intervention
from ..stored import (
    Reader,
    as_tuple,
    entries_of,
    finite,
    items,
    object_of,
    or_none,
    record,
    sides_of,
    text_of,
    unread,
    whole,
)
from ..strict import number, shown, whole_number
from .answer_file import saved_answer
from .tensor_file import Shapes, read_tensors, write_tensors
from .trace_file import check_image, check_trace, saved_method, saved_regions

FORMAT = "1"


def write_outcome(path: str | PathLike[str], tensors: Mapping[str, torch.Tensor], data: Mapping[str, Any]) -> Path:
    """Write an outcome's tensors and plain data, whole or not at all.

    Raises:
        OutputError: when the file cannot be written.
        DataError: for data that are not finite, or not plain.
    """
    return write_tensors(path, "outcome", FORMAT, tensors, data, DataError)


def read_outcome(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """An outcome's plain data, checked, and its tensors.

    Raises:
        DataError: for a file that is missing, damaged, or no outcome.
    """
    return read_tensors(path, "outcome", FORMAT, _checked, DataError)


def contents_of(intervention: Intervention) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An intervention's tensors, and its kind and other fields as plain data.

    Raises:
        DataError: for a function that chooses what is done.
    """
    if isinstance(intervention, ChosenBy):
        raise DataError("A function that steers cannot be saved; save what it chose, ChosenBy.schedule(mllm, answer.ids).")
    if isinstance(intervention, Changing):
        several = [None if part is None else contents_of(part) for part in intervention.parts]
        named = enumerate(part[0] if part is not None else {} for part in several)
        plain_parts = [None if part is None else part[1] for part in several]
        contrast = None if intervention.contrast is None else asdict(intervention.contrast)
        rest = {"parts": plain_parts, "since": list(intervention.since), "contrast": contrast}
        found = {f"{number}.{name}": tensor for number, each in named for name, tensor in each.items()}
        return found, {"kind": Changing.__name__, **rest}
    values = {each.name: getattr(intervention, each.name) for each in fields(intervention)}
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in values.items() if torch.is_tensor(value)}
    plain = {name: value for name, value in values.items() if name not in tensors}
    contrast = plain.pop("contrast", None)
    plain["contrast"] = None if contrast is None else asdict(contrast)
    return tensors, {"kind": type(intervention).__name__, **plain}


def restored(data: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Intervention:
    """The intervention of what `contents_of` gave.

    Raises:
        DataError: for a kind that is not known, or other fields than it has.
    """
    plain = dict(data)
    kind = KINDS.get(str(plain.pop("kind", None)))
    if kind is None:
        raise DataError(
            f"An intervention must be of a kind that is known ({', '.join(KINDS)}); got {shown(data.get('kind'))}. "
            "Import the module that defines it first."
        )
    contrast = plain.pop("contrast", None)
    if kind is Changing and isinstance(parts := plain.get("parts"), list):
        saved = [
            None if part is None else restored(object_of(part, "a part"), within(tensors, str(at)))
            for at, part in enumerate(parts)
        ]
        plain["parts"], tensors = tuple(saved), {}
    try:
        found = None if contrast is None else Contrast(**contrast)
        return kind(**{name: as_tuple(value) for name, value in plain.items()}, **tensors, contrast=found)
    except (TypeError, ValueError) as error:
        raise DataError(f"{kind.__name__} cannot be made of what was saved: {error}") from error


def within(tensors: Mapping[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """The tensors of a part of the file, by their names there."""
    return {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}


def _checked(data: Any, shapes: Shapes) -> dict[str, Any]:
    found = record(_completed(data), "an outcome", _FIELDS)
    if "image" not in shapes or shapes["image"][0] != "U8":
        raise DataError("its image must be U8; there is none such")
    check_image(shapes["image"][1])
    of_trace = {name.removeprefix("trace."): shape for name, shape in shapes.items() if name.startswith("trace.")}
    others = {name for name in shapes if name != "image" and not name.startswith(("trace.", "intervention."))}
    if others or (of_trace and found["trace"] is None):
        raise DataError(f"its tensors must be image and those of trace or intervention; there are {sorted(shapes)}")
    if found["trace"] is not None:
        found["trace"] = check_trace(found["trace"], of_trace)
    sent = found["sent"]
    sent["regions"] = saved_regions(sent["regions"], sent["size"])
    return found | {"regions": saved_regions(found["regions"], found["size"])}


def _completed(data: Any) -> Any:
    """An outcome saved before methods could send an image of another size: its regions are where the user drew them."""
    if not isinstance(data, dict) or "size" in data or not isinstance(data.get("sent"), dict):
        return data
    sent = data["sent"]
    return data | {"size": sent.get("size"), "sent": {"regions": data.get("regions"), **sent}}


def _sent(value: Any, what: str) -> dict[str, Any]:
    readers: dict[str, Reader] = {"question": text_of, "text": text_of, "size": sides_of, "regions": unread}
    readers |= {"image_hash": text_of, "conversation": or_none(_conversation)}
    # What was sent before there were conversations has none.
    found = record({"conversation": None, **value} if isinstance(value, dict) else value, what, readers)
    if found["conversation"] is None:
        return found
    sheet = sheet_size(found["conversation"].sizes)
    if sheet != found["size"]:
        raise DataError(f"{what}'s images must fill a sheet of {found['size']}; theirs has {sheet}.")
    return found


def _conversation(value: Any, what: str) -> Conversation:
    readers: dict[str, Reader] = {
        "turns": partial(items, read=_turn),
        "sizes": partial(items, read=sides_of),
        "chat_template": or_none(text_of),
        "timing": or_none(_timing),
    }
    # What was said before there were videos has none.
    found = record({"timing": None, **value} if isinstance(value, dict) else value, what, readers)
    shown_images = [part for turn in found["turns"] for part in turn.parts if not isinstance(part, str)]
    in_order = bool(shown_images) and shown_images == list(range(len(found["sizes"])))
    if not in_order or not any(map(has_words, found["turns"][-1].parts)):
        raise DataError(f"{what} must show each of its images once, in their order, and end with a question.")
    timing = found["timing"]
    if timing is not None and (len(timing.numbers) != len(found["sizes"]) or len(set(found["sizes"])) != 1):
        raise DataError(f"{what} must have a number for each frame of its video, and frames of one size.")
    return Conversation(found["turns"], (), found["chat_template"], found["sizes"], timing)


def _timing(value: Any, what: str) -> Timing:
    whole = partial(whole_number, least=0, most=1 << 53, error=DataError)
    readers: dict[str, Reader] = {
        "fps": partial(number, above=0, error=DataError),
        "numbers": partial(items, read=whole),
        "total": whole,
    }
    return Timing(**record(value, what, readers))


def _turn(value: Any, what: str) -> Turn:
    if not isinstance(value, list) or len(value) != 2:
        raise DataError(f"{what} must be a role and what it says; got {shown(value)}.")
    return Turn(text_of(value[0], what), items(value[1], what, _part))


def _part(value: Any, what: str) -> str | int:
    return value if isinstance(value, str) else whole(value, what, 0)


def _provenance(value: Any, what: str) -> dict[str, Any]:
    texts = partial(entries_of, read=or_none(text_of))
    seed = partial(whole, least=-(1 << 64), most=1 << 64)
    found = record(value, what, {"model": texts, "versions": texts, "seed": seed})
    text_of(found["model"].get("name"), f"{what}'s model's name")
    return found


_FIELDS: dict[str, Reader] = {
    "answer": saved_answer,
    "method": saved_method,
    "regions": unread,
    "question": text_of,
    "size": sides_of,
    "sent": _sent,
    "seconds": partial(finite, least=0),
    "peak_memory": partial(whole, least=0),
    "provenance": _provenance,
    "intervention": or_none(object_of),
    "trace": or_none(object_of),
}
