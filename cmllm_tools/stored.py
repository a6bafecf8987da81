"""What is read back from files: a seal over the bytes, and a strict reading of plain data before anything is made of it."""

import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import CmllmError, DataError
from .files import reason, said
from .strict import number, shown, whole_number

# The entry of a file that holds the SHA-256 of all its bytes, taken while the entry held zeros.
SEAL = "sha256"
UNSEALED = "0" * 64
# Quotes within JSON texts are escaped, so that this is found as an entry only.
_SEAL = re.compile(rb'"sha256": ?"([0-9a-f]{64})"')
CHANGED = "its bytes are not those that were saved (SHA-256)"
CHUNK = 1 << 20
# Bytes of a JSON file; longer ones are no results of this package.
MOST_JSON = 1 << 30

Reader = Callable[[Any, str], Any]


def seal(data: bytes) -> bytes:
    """The data with their hash in place of the zeros of their entry `sha256`."""
    place = _SEAL.search(data)
    if place is None:
        raise ValueError("the data have no entry for their hash")
    return data[: place.start(1)] + hashlib.sha256(data).hexdigest().encode() + data[place.end(1) :]


def check_seal(file: BinaryIO, head: bytes) -> bool:
    """Compare an open file with its hash; False where it has none, as those of an earlier version.

    Args:
        file: at the end of `head`.
        head: the file's first bytes, with the entry.

    Raises:
        ValueError: when a byte is not as it was saved.
    """
    place = _SEAL.search(head)
    if place is None:
        return False
    digest = hashlib.sha256(head[: place.start(1)] + UNSEALED.encode() + head[place.end(1) :])
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    if digest.hexdigest().encode() != place.group(1):
        raise ValueError(CHANGED)
    return True


def open_plain(path: str | PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes; devices and pipes, which may hang or never end, are refused unopened.

    Raises:
        OSError, ValueError: when there is none.
    """
    try:
        found = Path(path).expanduser()
        if not stat.S_ISREG(found.stat().st_mode):
            raise ValueError("it is no regular file")
        return found.open("rb")
    except (TypeError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def dump_json(data: Mapping[str, Any]) -> bytes:
    """A sealed JSON file's bytes.

    Raises:
        ValueError, TypeError: for data that are not plain and finite.
    """
    return seal(json.dumps({SEAL: UNSEALED, **data}, allow_nan=False).encode())


def load_json(path: str | PathLike[str], what: str) -> dict[str, Any]:
    """The entries of a JSON file that `dump_json` wrote, or that has no seal.

    Raises:
        DataError: for a file that is missing, damaged, or holds no object.
    """
    try:
        with open_plain(path) as file:
            text = file.read(MOST_JSON + 1)
            if len(text) > MOST_JSON:
                raise ValueError(f"it is longer than {MOST_JSON} bytes")
            sealed = check_seal(file, text)
        data = parse_json(text)
        if not isinstance(data, dict):
            raise ValueError("it holds no object")
        if data.pop(SEAL, None) is not None and not sealed:
            raise ValueError(CHANGED)
    except (OSError, ValueError) as error:
        raise DataError(f"{what}; {said(path)} is none: {reason(error)}") from error
    return data


@contextmanager
def load_saved(path: str | PathLike[str], what: str, mark: str, form: int) -> Iterator[dict[str, Any]]:
    """The entries of a JSON file of this format, to be read within.

    Args:
        path: of the file.
        what: it must be, for messages.
        mark: the entry that has the number of its format.
        form: that number.

    Raises:
        DataError: for a file that is missing, damaged, or refused within.
    """
    data = load_json(path, what)
    try:
        if data.pop(mark, None) != form:
            raise DataError(f"it must have {mark}, {form}")
        yield data
    except DataError as error:
        raise DataError(f"{what}; {said(path)} is not: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """Plain data; NaN and infinity are refused, as is what is nested too deeply.

    Raises:
        ValueError: for anything else.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_whole_line(line: bytes, starts: Sequence[bytes], what: str) -> bool:
    """Whether a file's last line of JSON is all there, or was cut by what ended its process.

    Args:
        line: without its end.
        starts: how the lines of such a file begin.
        what: is wrong with one that begins otherwise, for the message.

    Raises:
        DataError: for a line that was never of such a file: it is another one, and nothing of it may be cut.
    """
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        if not any(line[: len(start)] == start[: len(line)] for start in starts):
            raise DataError(f"{what}; got {shown(line[:60])}.") from None
        return False
    return True


def record(value: Any, what: str, readers: Mapping[str, Reader], error: type[CmllmError] = DataError) -> dict[str, Any]:
    """An object with exactly these entries, each read by its reader."""
    value = object_of(value, what, error)
    if unlike := set(value) ^ set(readers):
        raise error(f"{what} must have the entries {', '.join(readers)}; these differ: {', '.join(sorted(unlike))}.")
    return {name: read(value[name], f"{what}'s {name}") for name, read in readers.items()}


def object_of(value: Any, what: str, error: type[CmllmError] = DataError) -> dict[str, Any]:
    """An object, whatever it has."""
    if not isinstance(value, dict):
        raise error(f"{what} must be an object; got {shown(value)}.")
    return value


def entries_of(value: Any, what: str, read: Reader, error: type[CmllmError] = DataError) -> dict[str, Any]:
    """An object, whatever its entries, each of them read."""
    return {name: read(each, f"{what}'s {name}") for name, each in object_of(value, what, error).items()}


def items(value: Any, what: str, read: Reader, error: type[CmllmError] = DataError) -> tuple[Any, ...]:
    """A list, each item read."""
    if not isinstance(value, list):
        raise error(f"{what} must be a list; got {shown(value)}.")
    return tuple(read(item, f"{what}[{index}]") for index, item in enumerate(value))


def pair_of(value: Any, what: str, read: Reader, error: type[CmllmError] = DataError) -> tuple[Any, Any]:
    """A list of two, each read."""
    found = items(value, what, read, error)
    if len(found) != 2:
        raise error(f"{what} must be two; got {shown(value)}.")
    return found[0], found[1]


def sides_of(value: Any, what: str, error: type[CmllmError] = DataError) -> tuple[int, int]:
    """Width and height, or rows and columns."""
    return pair_of(value, what, partial(whole_number, least=1, most=1_000_000, error=error), error)


def unread(value: Any, what: str) -> Any:
    """What is looked into later, when more is known."""
    return value


def or_none(read: Reader) -> Reader:
    """What `read` reads, or null."""
    return lambda value, what: None if value is None else read(value, what)


def as_tuple(value: Any) -> Any:
    """Lists, and those within them, as the tuples that were saved."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def text_of(value: Any, what: str, error: type[CmllmError] = DataError) -> str:
    """A text."""
    if not isinstance(value, str):
        raise error(f"{what} must be a text; got {shown(value)}.")
    return value


def array_of(
    value: Any, what: str, shape: Iterable[int], error: type[CmllmError] = DataError, missing: bool = False
) -> np.ndarray:
    """Nested lists of finite numbers as a float array of this shape; null becomes nan where some may be `missing`."""
    shape, kinds = tuple(shape), {int, float, type(None)} if missing else {int, float}
    try:
        found = np.array(value, object)
        good = found.shape == shape and {type(each) for each in found.ravel()} <= kinds
        numbers = found.astype(float) if good else None
    except (ValueError, OverflowError):
        numbers = None
    if numbers is None or np.isinf(numbers).any():
        raise error(f"{what} must be finite numbers of shape {shape}; got {shown(value)}.")
    return numbers


# A whole number that was saved.
whole = partial(whole_number, error=DataError)


def finite(value: Any, what: str, least: float | None = None, most: float | None = None) -> float:
    """A number that was saved."""
    return number(value, what, least, most, error=DataError)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
