"""What ways of referring came to, side by side: a table that can be shown, saved and opened again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import write_whole
from ..inputs.regions import Region
from ..notation import text_table
from ..shown import Fact, Shown
from ..stored import (
    Reader,
    dump_json,
    finite,
    items,
    load_saved,
    or_none,
    pair_of,
    record,
    sides_of,
    text_of,
    unread,
    whole,
)
from ..strict import flag, shown
from .outcome import Outcome
from .trace_file import saved_regions

MARK, FORMAT = "cmllm_comparison", 1
# Of all heads of all layers, whichever a method has for its own: other than the share of a run's steps.
SHARE = "share, all layers"


@dataclass(frozen=True)
class Row:
    """What one way came to.

    Args:
        name: of the way.
        answer: None where there is none.
        log_odds: for each candidate, ln p - ln (1 - p) of its probability p among the candidates.
        share: of the question's attention on the image, in all layers and heads, what lies in the regions; 0..1.
        damage: nats per token by which an unrelated text gets less likely.
        own_damage: the same of the unsteered answer.
        seconds: from image and question to the answer.
        peak_memory: the most that was in use meanwhile above what was before, in bytes.
        error: why there are no figures; "" where there are.
    """

    name: str
    answer: str | None = None
    log_odds: tuple[float, ...] = ()
    share: float | None = None
    damage: float | None = None
    own_damage: float | None = None
    seconds: float | None = None
    peak_memory: int | None = None
    error: str = ""

    def cells(self, candidates: int) -> list[str]:
        """The row as texts, for a table; with a column for each candidate, and the beginning of a long answer."""
        odds = [f"{value:+.1f}" for value in self.log_odds] or ["-"] * candidates
        share = "-" if self.share is None else f"{self.share:.1%}"
        damage = ["-" if value is None else f"{value:+.3f}" for value in (self.damage, self.own_damage)]
        seconds = "-" if self.seconds is None else f"{self.seconds:.2f}"
        memory = "-" if self.peak_memory is None else f"{self.peak_memory / 2**20:.0f}"
        return [self.name, *odds, share, *damage, seconds, memory, self.error or shown(self.answer)]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Shown):
    """Ways of referring to the same regions, for the same question.

    Args:
        model: its name.
        question: the user's words.
        regions: in pixels of the image.
        size: (width, height) of the image.
        candidates: answers whose log-odds are given; none, or two or more.
        text: that damage was measured on.
        plain: log-probability per token of the text unsteered, and that of one drawn by lot. Damage to a text less likely
            than that, which is in no language of the model's, says nothing.
        rows: the first is unsteered.
        complete: False where an interrupt ended it.
        outcomes: by name, what there is to show and answer again; not saved.

    Examples:
        >>> compared.candidates, [row.name for row in compared.rows]
        (('red cross', 'blue zero'), ['unsteered', 'attention edit', 'red circle'])
        >>> len(compared.table().splitlines()) > 3
        True
    """

    model: str
    question: str
    regions: tuple[Region, ...]
    size: tuple[int, int]
    candidates: tuple[str, ...]
    text: str
    plain: tuple[float, float]
    rows: tuple[Row, ...]
    complete: bool = True
    outcomes: Mapping[str, Outcome] = field(default_factory=dict, repr=False)

    @property
    def head(self) -> list[str]:
        """Headings of the rows' cells."""
        odds = [f"log-odds {candidate!r}" for candidate in self.candidates]
        return ["", *odds, SHARE, "damage", "to own answer", "s", "MiB", "answer"]

    @property
    def notes(self) -> list[str]:
        """What must be known to read the figures."""
        found = []
        if self.plain[0] < self.plain[1]:
            found.append(
                f"The unrelated text has {self.plain[0]:.1f} nats a token unsteered, less than one drawn by lot "
                f"({self.plain[1]:.1f}): of this model damage to it says nothing."
            )
        return found + ["Interrupted: ways are missing."] * (not self.complete)

    def table(self) -> str:
        """One way to a line, as plain text; damage is in nats per token."""
        rows = [row.cells(len(self.candidates)) for row in self.rows]
        sides = "<" + ">" * (len(self.head) - 2) + "<"
        return "\n".join([text_table([self.head, *rows], sides), *self.notes])

    def facts(self) -> list[Fact]:
        answers = {row.answer for row in self.rows if row.answer is not None}
        failed = [row.name for row in self.rows if row.error]
        facts = [
            ("", self.model),
            ("question", repr(self.question)),
            ("regions", ", ".join(map(repr, self.regions))),
            ("", f"{len(self.rows) - 1} ways, {len(answers)} different answers"),
            ("damage", f"in nats a token, to {self.text!r}"),
        ]
        return [*facts, *[("without figures", ", ".join(failed))] * bool(failed), *(("", note) for note in self.notes)]

    def save(self, path: str | PathLike[str]) -> Path:
        """Write figures and answers as JSON with a hash of its bytes; the outcomes are saved each by itself.

        Raises:
            OutputError: when the file cannot be written.
        """
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "outcomes"}
        plain |= {"regions": [region.to_json() for region in self.regions], "rows": [asdict(row) for row in self.rows]}
        data = {MARK: FORMAT, **plain}
        return write_whole(path, lambda file: file.write(dump_json(data)), "It is still in memory.")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Comparison":
        """Reopen a saved comparison, without its outcomes; what it holds is checked.

        Raises:
            DataError: for a file that is missing, damaged, or no comparison.
        """
        with load_saved(path, "A comparison must be a file written by Comparison.save", MARK, FORMAT) as data:
            found = record(data, "a comparison", _FIELDS)
            if any(len(row.log_odds) not in (0, len(found["candidates"])) for row in found["rows"]):
                raise DataError("its rows must have log-odds for each candidate, or none")
            return cls(**found | {"regions": saved_regions(found["regions"], found["size"])})


def _stored_row(value: Any, what: str) -> Row:
    number = or_none(finite)
    readers: dict[str, Reader] = {
        "name": text_of,
        "answer": or_none(text_of),
        "log_odds": partial(items, read=finite),
        "share": or_none(partial(finite, least=0, most=1)),
        "damage": number,
        "own_damage": number,
        "seconds": number,
        "peak_memory": or_none(partial(whole, least=0)),
        "error": text_of,
    }
    return Row(**record(value, what, readers))


_FIELDS: dict[str, Reader] = {
    "model": text_of,
    "question": text_of,
    "regions": unread,
    "size": sides_of,
    "candidates": partial(items, read=text_of),
    "text": text_of,
    "plain": partial(pair_of, read=finite),
    "rows": partial(items, read=_stored_row),
    "complete": partial(flag, error=DataError),
}
