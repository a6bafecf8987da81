"""Several ways of referring side by side: what each makes the model answer, how far it moves it, and at what price."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import DataError, SettingsError
from ..files import said, write_whole
from ..inputs.images import ImageSource
from ..inputs.regions import Region, Regions
from ..models.mllm import Mllm
from ..notation import text_table
from ..progress import progress_bar
from ..shown import Fact, Shown
from ..stored import Reader, dump_json, finite, items, load_json, or_none, record, text_of
from ..strict import flag, several, shown, whole_number
from .asked import Asked
from .baseline import Baseline, Effect
from .method import Method, as_method
from .methods.attention_bias import AttentionEdit
from .methods.controlmllm import ControlMLLMPlus
from .methods.guidance import RegionGuidance
from .methods.key_steering import KeySteering
from .methods.outside import Crop, OutsideHidden
from .outcome import Outcome
from .run import refer
from .trace_file import regions_of

FORMAT = 1
UNSTEERED = "unsteered"


def usual_methods() -> dict[str, Method]:
    """One of each kind: a latent, keys, attention, decoding, pixels outside, pixels cut out."""
    ways = ControlMLLMPlus(), KeySteering(), AttentionEdit(), RegionGuidance(), OutsideHidden(), Crop()
    return {way.called(): way for way in ways}


@dataclass(frozen=True)
class Row:
    """What one way came to.

    Args:
        name: of the way.
        answer: None where there is none.
        log_odds: for each candidate, ln p - ln (1 - p) of its probability p among the candidates.
        share: of the question's attention on the image, what lies in the regions; 0..1.
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
        """The row as texts, for a table; with a column for each candidate."""
        odds = [f"{value:+.1f}" for value in self.log_odds] or ["-"] * candidates
        share = "-" if self.share is None else f"{self.share:.1%}"
        damage = ["-" if value is None else f"{value:+.3f}" for value in (self.damage, self.own_damage)]
        seconds = "-" if self.seconds is None else f"{self.seconds:.2f}"
        memory = "-" if self.peak_memory is None else f"{self.peak_memory / 2**20:.0f}"
        return [self.name, *odds, share, *damage, seconds, memory, self.error or repr(self.answer)]


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
        return ["", *odds, "share in region", "damage", "to own answer", "s", "MiB", "answer"]

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
        data = {"cmllm_comparison": FORMAT, **plain}
        return write_whole(path, lambda file: file.write(dump_json(data)), "It is still in memory.")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Comparison":
        """Reopen a saved comparison, without its outcomes; what it holds is checked.

        Raises:
            DataError: for a file that is missing, damaged, or no comparison.
        """
        what = "A comparison must be a file written by Comparison.save"
        data = load_json(path, what)
        try:
            found = record(data, "a comparison", _FIELDS)
            if found.pop("cmllm_comparison") != FORMAT:
                raise DataError(f"it must be of format {FORMAT}")
            if any(len(row.log_odds) not in (0, len(found["candidates"])) for row in found["rows"]):
                raise DataError("its rows must have log-odds for each candidate, or none")
            return cls(**found | {"regions": regions_of(found["regions"], found["size"])})
        except DataError as error:
            raise DataError(f"{what}; {said(path)} is not: {error}") from error


def compare(
    mllm: Mllm,
    image: ImageSource,
    question: str,
    regions: Regions,
    *,
    methods: Mapping[str, Method] | Sequence[Method] | None = None,
    candidates: Sequence[str] = (),
    text: str | None = None,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> Comparison:
    """Refer to the same regions in several ways, and measure what each does and what it costs.

    A way that fails has its error in the table, and the others go on. An interrupt ends it with the ways that were done.

    Args:
        mllm: the model.
        image: all that `read_image` takes.
        question: the user's words; `{place}` in them becomes what a method calls the region.
        regions: one or several, in pixels of the image.
        methods: by name, or several, which are called by what they are; `usual_methods()` when None.
        candidates: answers whose log-odds are measured: none, or two or more.
        text: an unrelated one, that damage is measured on; see `Baseline`.
        max_new_tokens: upper bound on each answer's length.
        progress: show a progress bar.

    Raises:
        ImageError, PromptError, RegionError: as `refer` does.
        SettingsError: for what are no methods or candidates.

    Examples:
        >>> ways = [cm.methods.AttentionEdit(3), cm.methods.RedCircle()]
        >>> compared = cm.compare(mllm, scene.image, scene.question, box, methods=ways, candidates=two, progress=False)
        >>> [str(row.answer) for row in compared.rows]
        ['blue zero at the center', 'red cross at the right', 'red cross at the right']
    """
    shown_bar = flag(progress, "progress")
    asked = mllm, image, question, regions
    options: dict[str, Any] = {"candidates": candidates, "text": text, "max_new_tokens": max_new_tokens}
    run, complete = Comparing(*asked, methods=methods, **options), True
    try:
        for _ in progress_bar(run, "ways", shown=shown_bar, unit="way"):
            pass
    except KeyboardInterrupt:
        complete = False
    return run.so_far(complete)


class Comparing:
    """A comparison way by way: whoever goes through it has the name of each way that was done; see `compare`.

    Args:
        **options: for `Baseline`.

    Attributes:
        ways: the methods by name.
    """

    def __init__(
        self,
        mllm: Mllm,
        image: ImageSource,
        question: str,
        regions: Regions,
        *,
        methods: Mapping[str, Method] | Sequence[Method] | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ):
        self.ways = named_methods(methods)
        self._user, self._most = Asked.of(image, question), max_new_tokens
        self._regions, talk = self._user.regions(regions), self._user.conversation
        given = (self._user.image, question) if talk is None else (talk, None)
        self._asked = (*given, self._regions)
        baseline = Baseline(mllm, *given, max_new_tokens=max_new_tokens, **options)
        unsteered = baseline.unsteered(self._regions)
        self._baseline, self._outcomes = baseline, dict[str, Outcome]()
        self._rows = [_row(UNSTEERED, str(baseline.answer), unsteered, baseline.cost.seconds, baseline.cost.peak_memory)]

    def __len__(self) -> int:
        return len(self.ways)

    def __iter__(self) -> Iterator[str]:
        for name, way in self.ways.items():
            row, outcome = _tried(name, way, self._baseline, self._asked, self._most)
            self._rows.append(row)
            if outcome is not None:
                self._outcomes[name] = outcome
            yield name

    def so_far(self, complete: bool) -> Comparison:
        """What was done; `complete` is whether that is all that is wanted."""
        return Comparison(
            model=self._baseline.mllm.name,
            question=self._user.question,
            regions=self._regions,
            size=self._user.image.size,
            candidates=self._baseline.candidates,
            text=self._baseline.text,
            plain=self._baseline.plain,
            rows=tuple(self._rows),
            complete=complete,
            outcomes=dict(self._outcomes),
        )


def named_methods(methods: Any) -> dict[str, Method]:
    """Methods by name; those without are called by what they are, and numbered where several are called the same.

    Raises:
        SettingsError: for what are no methods, or none, or the name of what is unsteered.
    """
    if methods is None:
        return usual_methods()
    if isinstance(methods, Mapping):
        found = {str(name): as_method(method) for name, method in methods.items()}
    else:
        given = [as_method(each) for each in several(methods, "methods must be several, as [ControlMLLMPlus(), Crop()]")]
        found = dict(_numbered(given))
    if not found or UNSTEERED in found:
        raise SettingsError(f"methods must be one or more, none of them called {UNSTEERED!r}; got {shown(methods)}.")
    return found


def _numbered(methods: Sequence[Method]) -> Iterator[tuple[str, Method]]:
    called = [method.called() for method in methods]
    for at, (name, method) in enumerate(zip(called, methods, strict=True)):
        yield (f"{name} {called[: at + 1].count(name)}" if called.count(name) > 1 else name), method


def _tried(
    name: str, way: Method, baseline: Baseline, asked: tuple[Any, str, tuple[Region, ...]], max_new_tokens: int
) -> tuple[Row, Outcome | None]:
    try:
        outcome = refer(baseline.mllm, *asked, way, max_new_tokens=max_new_tokens)
        if outcome.interrupted:
            raise KeyboardInterrupt
        row = _row(name, str(outcome.answer), baseline.effect(outcome), outcome.seconds, outcome.peak_memory)
        return row, outcome
    except Exception as error:
        # A method may be anyone's: its fault is shown in its place, whatever it is.
        return Row(name, error=f"{type(error).__name__}: {error}"), None


def _row(name: str, answer: str, effect: Effect, seconds: float | None, peak_memory: int | None) -> Row:
    return Row(name, answer, **asdict(effect), seconds=seconds, peak_memory=peak_memory)


def _stored_row(value: Any, what: str) -> Row:
    number = or_none(finite)
    readers: dict[str, Reader] = {
        "name": text_of,
        "answer": or_none(text_of),
        "log_odds": lambda each, name: items(each, name, finite),
        "share": or_none(lambda each, name: finite(each, name, 0, 1)),
        "damage": number,
        "own_damage": number,
        "seconds": number,
        "peak_memory": or_none(lambda each, name: whole_number(each, name, 0, error=DataError)),
        "error": text_of,
    }
    return Row(**record(value, what, readers))


def _pair(value: Any, what: str, read: Reader) -> tuple[Any, ...]:
    found = items(value, what, read)
    if len(found) != 2:
        raise DataError(f"{what} must be two; got {shown(value)}.")
    return found


_FIELDS: dict[str, Reader] = {
    "cmllm_comparison": lambda value, what: value,
    "model": text_of,
    "question": text_of,
    "regions": lambda value, what: value,
    "size": lambda value, what: _pair(value, what, lambda each, name: whole_number(each, name, 1, 1_000_000, DataError)),
    "candidates": lambda value, what: items(value, what, text_of),
    "text": text_of,
    "plain": lambda value, what: _pair(value, what, finite),
    "rows": lambda value, what: items(value, what, _stored_row),
    "complete": lambda value, what: flag(value, what, DataError),
}
