"""Answers as lines of a file: one record to each, added whole, read back checked, and put together from several files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from ..analysis.example_lines import begun, merge_lines
from ..data.lines import id_of
from ..errors import DataError
from ..files import reason, said, write_whole
from ..inputs.regions import Region, region_from_json
from ..stored import (
    Reader,
    entries_of,
    finite,
    is_whole_line,
    items,
    object_of,
    open_plain,
    or_none,
    parse_json,
    record,
    text_of,
    whole,
)
from ..strict import shown
from .thumbnails import read_thumbnails

FORMAT = "1"
# How the line of a record begins.
_START = json.dumps({"record": FORMAT})[:-1].encode()
# Bytes of a line; longer ones are no records.
MOST_LINE = 1 << 26


@dataclass(frozen=True)
class Record:
    """One answer, or why there is none; all that is needed to score it again, and to show it.

    Args:
        id: of the example.
        method: name that the run has for the method.
        settings: the method with every setting filled in, as `Method.to_json`.
        model: its name.
        answer: what the model said; None after an error.
        ids: its tokens.
        scores: figures of this answer, each by its name.
        scorer: name of the scorer that gave them.
        question: the user's words.
        sent: the words that a method made of them, where they are others.
        names: right answers.
        others: wrong ones that the example has.
        image: the image's file, where it is one.
        regions: what was referred to, as `Region.to_json`.
        size: (width, height) of the image.
        task: what kind of question it is.
        split: of the set.
        tags: groups that figures are given for.
        where: file and line of the example.
        share: of the context-token map in the regions before and after, where the method took steps.
        attention: small maps of the first and the last step, likewise; see `thumbnails`.
        stopped: why the steps ended, likewise.
        seconds: from image and question to the answer; what several questions or methods share of an image is the first's.
        peak_memory: bytes above what was in use before.
        versions: of the libraries.
        error: kind and message of what went wrong.

    Examples:
        >>> evaluation = cm.evaluate(mllm, examples[:1], [cm.methods.AttentionEdit(3)], progress=False)
        >>> record = evaluation.records[0]
        >>> record.method, record.names[0], record.error
        ('attention-edit', 'red cross', None)
    """

    id: int | str
    method: str
    settings: dict[str, Any]
    model: str
    answer: str | None = None
    ids: tuple[int, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    scorer: str = ""
    question: str = ""
    sent: str | None = None
    names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    image: str | None = None
    regions: tuple[dict[str, Any], ...] = ()
    size: tuple[int, ...] = ()
    task: str = ""
    split: str = ""
    tags: tuple[str, ...] = ()
    where: str = ""
    share: tuple[float, ...] = ()
    attention: dict[str, Any] | None = None
    stopped: str | None = None
    seconds: float = 0.0
    peak_memory: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    error: dict[str, str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What a run has one record of: example and method."""
        return str(self.id), self.method

    @property
    def region(self) -> list[Region]:
        """The regions that were referred to."""
        return [region_from_json(each) for each in self.regions]

    def line(self) -> bytes:
        """As one line of JSON, without its end."""
        return json.dumps({"record": FORMAT, **vars(self)}, allow_nan=False).encode()

    @classmethod
    def of_line(cls, line: bytes) -> "Record":
        """The record of a line.

        Raises:
            DataError: for what is no record; the message goes on from "line 3".
        """
        try:
            data = parse_json(line)
        except ValueError as error:
            raise DataError(f"is not JSON: {error}") from error
        if not isinstance(data, dict) or data.pop("record", None) != FORMAT:
            raise DataError(f"is no record of format {FORMAT}; got {shown(data)}.")
        # Those of before have none.
        return cls(**record({"attention": None} | data, "is no record: it", _READERS))


# Whether a last line is all there; see `stored.is_whole_line`.
is_whole = partial(is_whole_line, starts=(_START,), what="is no record")


def read_records(path: str | PathLike[str]) -> list[Record]:
    """A file's records in their order; a last line that was cut is passed over.

    Raises:
        DataError: for a file that is missing, or a line that is no record.

    Examples:
        >>> run = cm.evaluate(mllm, examples, [cm.methods.RedCircle()], path="circle.jsonl", progress=False)
        >>> [record.method for record in cm.evaluation.read_records("circle.jsonl")]
        ['red-circle', 'red-circle']
    """
    found = []
    try:
        with open_plain(path) as file:
            number = 0
            while line := file.readline(MOST_LINE):
                number += 1
                try:
                    if not line.strip() or (not line.endswith(b"\n") and not is_whole(line)):
                        continue
                    found.append(Record.of_line(line))
                except DataError as error:
                    raise DataError(f"Every line of {said(path)} must be a record; line {number} {error}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Records must be a file of JSON lines; {said(path)} is none: {reason(error)}.") from error
    return found


def latest(records: Iterable[Record]) -> list[Record]:
    """One record to each example and method: the last, as what failed may have been tried again."""
    return list({each.key: each for each in records}.values())


def same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records' settings are those of one run; a setting that came after a record was off in it."""
    alone = one.keys() ^ other.keys()
    return not any(one.get(name) or other.get(name) for name in alone) and all(
        one[name] == other[name] for name in one.keys() & other.keys()
    )


def merge(paths: Sequence[str | PathLike[str]], out: str | PathLike[str]) -> tuple[Path, int]:
    """Put the records of several runs together, as of the shards of a set; an answer comes before an error.

    Files of sweeps (`sweep_windows`) and those of rankings of heads (`rank_heads`) are put together likewise; each is then
    gone on with by the call that it is from, with the whole set.

    Returns:
        The file, and how many records it has.

    Raises:
        DataError: for files that are no records, of different models or settings, or that answer one example differently.
        OutputError: when the file cannot be written.

    Examples:
        >>> for part, name in enumerate(["a.jsonl", "b.jsonl"]):
        ...     run = cm.evaluate(mllm, examples[part : part + 1], [cm.methods.RedCircle()], path=name, progress=False)
        >>> path, count = cm.evaluation.merge(["a.jsonl", "b.jsonl"], "all.jsonl")
        >>> count
        2
    """
    if any(map(begun, paths)):
        return merge_lines(paths, out)
    found: dict[tuple[str, str], Record] = {}
    known: dict[str, tuple[Record, Any]] = {}
    for path in paths:
        for each in latest(read_records(path)):
            first, there = known.setdefault(each.method, (each, path))
            if first.model != each.model or not same_settings(first.settings, each.settings):
                raise DataError(
                    f"Records that are put together must be of one run; {said(path)} has {each.method} with another model "
                    f"or other settings than {said(there)}: {each.model}, {each.settings} and {first.model}, "
                    f"{first.settings}."
                )
            other = found.get(each.key)
            if other is not None and None not in (other.answer, each.answer) and other.answer != each.answer:
                raise DataError(
                    f"Records that are put together must agree; of {each.method} on example {each.id} there are two "
                    f"answers, {shown(other.answer)} and {shown(each.answer)}. Give shards that have no example in common."
                )
            if other is None or other.answer is None:
                found[each.key] = each
    lines = b"".join(each.line() + b"\n" for each in found.values())
    return write_whole(out, lambda file: file.write(lines)), len(found)


_texts: Reader = partial(items, read=text_of)
_count: Reader = partial(whole, least=0)
_READERS: dict[str, Reader] = {
    "id": id_of,
    "method": text_of,
    "settings": object_of,
    "model": text_of,
    "answer": or_none(text_of),
    "ids": partial(items, read=_count),
    "scores": partial(entries_of, read=finite),
    "scorer": text_of,
    "question": text_of,
    "sent": or_none(text_of),
    "names": _texts,
    "others": _texts,
    "image": or_none(text_of),
    "regions": partial(items, read=object_of),
    "size": partial(items, read=_count),
    "task": text_of,
    "split": text_of,
    "tags": _texts,
    "where": text_of,
    "share": partial(items, read=finite),
    "attention": or_none(read_thumbnails),
    "stopped": or_none(text_of),
    "seconds": finite,
    "peak_memory": _count,
    "versions": partial(entries_of, read=text_of),
    "error": or_none(partial(entries_of, read=text_of)),
}
