"""Tensors and plain data in one file: safetensors with JSON metadata under a seal, checked before use."""

import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import CmllmError
from ..files import reason, said, write_whole
from ..stored import CHANGED, SEAL, UNSEALED, check_seal, open_plain, parse_json, seal
from ..strict import shown

# A header's first bytes are its length; the library's own bound.
MOST_HEADER = 100_000_000
IN_MEMORY = "It is still in memory."
# Number type and shape of each tensor in a file.
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
Checked = TypeVar("Checked")


def write_tensors(
    path: str | PathLike[str],
    what: str,
    version: str,
    tensors: Mapping[str, torch.Tensor],
    data: Mapping[str, Any],
    error: type[CmllmError],
) -> Path:
    """Write tensors and plain data, whole or not at all.

    Args:
        what: the kind of file, in one word.
        version: of its format.

    Raises:
        OutputError: when the file cannot be written.
        error: for data that are not finite, or not plain.
    """
    article = "An" if what[0] in "aeiou" else "A"
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise error(f"{article} {what}'s {name} must be finite to be saved; they are not. {IN_MEMORY}")
    try:
        text = json.dumps(data, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as fault:
        raise error(
            f"{article} {what} must hold plain and finite numbers and texts to be saved: {fault}. {IN_MEMORY}"
        ) from fault

    def write(file: BinaryIO) -> None:
        file.write(seal(save(dict(tensors), {f"cmllm_{what}": version, what: text, SEAL: UNSEALED})))

    return write_whole(path, write, IN_MEMORY)


def read_tensors(
    path: str | PathLike[str],
    what: str,
    version: str,
    check: Callable[[Any, Shapes], Checked],
    error: type[CmllmError],
) -> tuple[Checked, dict[str, torch.Tensor]]:
    """What `check` makes of a file's plain data and its tensors' types and shapes, and the tensors, all finite.

    Nothing is made of a tensor before `check` has agreed to its size.

    Raises:
        error: for a file that is missing, damaged, of another kind or version, or that `check` refuses.
    """
    try:
        with open_plain(path) as file:
            sealed = _check_bytes(file)
        with safe_open(Path(path).expanduser(), "pt") as file:
            text = _text(path, file.metadata() or {}, sealed, what, version, error)
            # No mapping: it cannot be iterated itself.
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            data = check(
                parse_json(text), {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
            )
            # Copies: what is mapped from the file would change, or end, with it.
            tensors = {name: file.get_tensor(name).clone() for name in parts}
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise error(f"its {name} must be finite")
    except _OtherKind as other:
        raise error(str(other)) from None
    except FileNotFoundError:
        raise error(f"There is no {what} at {said(path)}.") from None
    except (OSError, SafetensorError, CmllmError, ValueError) as fault:
        raise error(
            f"{said(path)} cannot be read as {_a(what)}, it is damaged or another kind of file: {reason(fault)}"
        ) from fault
    return data, tensors


class _OtherKind(Exception):
    """A sound file that is of another kind, or another version."""


def _a(what: str) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def _check_bytes(file: BinaryIO) -> bool:
    """Whether the file has a seal, which then holds."""
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= MOST_HEADER:
        raise ValueError("it does not begin as a safetensors file")
    head = file.read(length)
    return check_seal(file, length.to_bytes(8, "little") + head)


def _text(path: object, metadata: Mapping[str, str], sealed: bool, what: str, version: str, error: type[CmllmError]) -> str:
    tag = f"cmllm_{what}"
    if tag not in metadata:
        raise _OtherKind(
            f"{_a(what).capitalize()} must be a file written by {what.capitalize()}.save; {said(path)} is another "
            "safetensors file."
        )
    if metadata[tag] != version:
        raise _OtherKind(
            f"{said(path)} has {what} format {metadata[tag]}; this version reads format {version}. "
            "Open it with the version of cmllm_tools that wrote it."
        )
    if set(metadata) - {SEAL} != {tag, what}:
        raise error(f"its metadata must be {tag}, {what} and {SEAL}; they are {', '.join(sorted(metadata))}")
    if SEAL in metadata and not sealed:
        raise error(CHANGED)
    return metadata[what]


def _plain(value: Any) -> Any:
    """A number or array of numpy or torch as Python's."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return value.tolist()
    raise TypeError(f"{shown(value)} is a {type(value).__name__}")
