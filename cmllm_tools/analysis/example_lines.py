"""What is found of each example, a line of a file as soon as it is found; several processes may add to one file."""

import json
from collections.abc import Iterable, Mapping
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import appending, held, reason, said, write_whole
from ..stored import SEAL, UNSEALED, check_seal, dump_json, open_plain, parse_json, text_of
from ..strict import shown

FORMAT = 1
# The entry of a file's first line that says so; it comes behind the seal.
KEY = "cmllm_examples"
_START = json.dumps({SEAL: UNSEALED})[:-2].encode().removesuffix(UNSEALED.encode())
# Bytes of a line: what one example gives is less.
MOST_LINE = 1 << 28


class ExampleLines:
    """A file of one head, which says what all lines are of, and a line to each example, each sealed by itself.

    What others have added is read when one's own is added, and no line twice.

    Args:
        path: of the file.
        what: what it must be, for messages: "A sweep must be read from its own file".

    Raises:
        DataError: for what is no path.

    Attributes:
        head: of the file; None as long as there is none.
    """

    def __init__(self, path: str | PathLike[str], what: str):
        try:
            self.path, self.what = Path(path).expanduser(), what
        except (TypeError, RuntimeError) as error:
            raise DataError(f"{what}; {said(path)} names none: {reason(error)}") from error
        self.head: dict[str, Any] | None = None
        self._read = self._lines = 0

    @classmethod
    def begun(cls, path: str | PathLike[str]) -> bool:
        """Whether there is such a file; False for none, an empty one, or one of another kind."""
        try:
            with open_plain(path) as file:
                return _is_ours(file.read(1 << 8))
        except (OSError, ValueError):
            return False

    def news(self) -> dict[str, dict[str, Any]]:
        """What was found of examples since this was last asked for, by their digests; a last line that was cut is left out.

        Raises:
            DataError: for a file that is missing, or damaged.
        """
        found: dict[str, dict[str, Any]] = {}
        try:
            with open_plain(self.path) as file:
                file.seek(self._read)
                while (line := file.readline(MOST_LINE)).endswith(b"\n"):
                    self._lines += 1
                    data = _opened(line, self._lines)
                    if self.head is None:
                        self.head = {name: value for name, value in data.items() if name != KEY}
                    else:
                        found[text_of(data.pop("example", None), f"line {self._lines}'s example")] = data
                    self._read = file.tell()
        except (OSError, ValueError, DataError) as error:
            raise DataError(f"{self.what}; {said(self.path)} is none: {reason(error)}") from error
        return found

    def add(self, head: Mapping[str, Any], several: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Add what was found of examples, by their digests, and read what others have added meanwhile.

        Args:
            head: for a file that there is none of yet.

        Raises:
            OutputError: when the file cannot be written, or another process holds it for a minute.
            DataError: for a damaged file.
        """
        own = parse_json(dump_json(head))
        del own[SEAL]
        with held(self.path) as path, appending(path, _is_whole) as append:
            news = self.news()
            if self.head is None:
                append(dump_json({KEY: FORMAT, **head}))
            elif self.head != own:
                raise DataError(f"A file is added to by runs of the same kind; {said(path)} has become another run's.")
            for example, data in several.items():
                append(dump_json({"example": example, **data}))
            # One's own, as nobody else adds while the file is held.
            self.news()
        return {example: data for example, data in news.items() if example not in several}

    def written_anew(self, head: Mapping[str, Any], several: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Put such a file in the place of one of another kind, whole or not at all.

        Raises:
            OutputError: when it cannot be written.
        """
        lines = [dump_json({KEY: FORMAT, **head}), *(dump_json({"example": each, **data}) for each, data in several)]
        write_whole(self.path, lambda file: [file.write(line + b"\n") for line in lines])
        self.head, self._read, self._lines = None, 0, 0
        self.news()


def _is_ours(begin: bytes, entry: bytes = b'", "%s": %d' % (KEY.encode(), FORMAT)) -> bool:
    """Whether a file or line begins as one of these, whatever its seal is, or is the beginning of one."""
    start, end = _START, len(_START) + len(UNSEALED)
    return bool(begin) and start.startswith(begin[: len(start)]) and entry.startswith(begin[end : end + len(entry)])


def _opened(line: bytes, number: int) -> dict[str, Any]:
    if not check_seal(BytesIO(), line.rstrip(b"\n")):
        raise DataError(f"line {number} has no hash of its bytes")
    data = parse_json(line)
    if not isinstance(data, dict) or (number == 1) != (data.get(KEY) == FORMAT):
        raise DataError(f"line {number} must be {'the head' if number == 1 else 'of an example'}; got {shown(data)}")
    del data[SEAL]
    return data


def _is_whole(line: bytes) -> bool:
    """Whether a last line without its end is all there."""
    head, example = _is_ours(line), _is_ours(line, b'", "example": ')
    if not (head or example):
        raise DataError(f"A file that is gone on with must be of examples' lines; its last one is {shown(line[:60])}.")
    try:
        return bool(_opened(line, 2 if example else 1))
    except (ValueError, DataError):
        return False
