"""Choose a window of layers on one half of a set, and see on the other half whether steering with it answers better."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..analysis import Choice, Recommendation, Sweep, recommend, sweep_windows
from ..analysis.choices import FIGURES
from ..analysis.example_lines import Found, opened
from ..analysis.intervals import bootstrap, interval_text, says_something
from ..analysis.window_sweep import Window
from ..data.dataset import Dataset
from ..data.example import Example
from ..data.formats.roc import ReferringExample
from ..data.lines import Row
from ..errors import DataError, SettingsError, carry
from ..models.mllm import Mllm
from ..models.prompt import Queries
from ..referring.latent_method import LatentMethod
from ..referring.loop import steer_together
from ..running.cluster import Workers
from ..running.drive import run
from ..running.task import Key, Task, Tick, Work, found_of
from ..strict import kind_of, several, shown, whole_number_or_none
from .embedded import chooses
from .sentences import Says, as_says


@dataclass(frozen=True)
class HeldOut:
    """Share of right answers on examples that the window was not chosen on.

    Args:
        n: number of examples that were run.
        recommended: with the recommended choice.
        all_layers: with the best choice of all layers.
        margin: the first less the second.
        margin_ci: 95 % interval of the margin, from resampled examples; of few, or all alike, it means nothing.
        complete: False when an interrupt left examples out.
        failed: where and why, of examples that could not be run.
    """

    n: int
    recommended: float
    all_layers: float
    margin: float
    margin_ci: tuple[float, float]
    complete: bool = True
    failed: tuple[str, ...] = ()

    def __str__(self) -> str:
        interval = interval_text(self.n, self.margin_ci, "+.1%")
        return (
            f"on {self.n} other examples, right answers: {self.recommended:.1%} with the recommended window, "
            f"{self.all_layers:.1%} with all layers, margin {self.margin:+.1%} ({interval})"
        )


def sweep_and_test(
    mllm: Mllm | Workers,
    lines: Sequence[ReferringExample],
    kind: str = "box",
    method: LatentMethod | None = None,
    contexts: Sequence[Queries] = ("text", "last"),
    n: int | None = None,
    held_out: int | None = None,
    path: str | PathLike[str] | None = None,
    *,
    windows: Sequence[Window] | Literal["all"] | int = "all",
    says: Says = str,
    shard: tuple[int, int] | None = None,
    strict: bool = False,
    retry: bool = False,
) -> tuple[Sweep, Recommendation | None, HeldOut | None]:
    """Sweep the first half of a set, recommend, and test on the second half.

    An interrupt of the sweep ends it there, with neither recommendation nor test; one of the test keeps what was tested. An
    error has what is known of the sweep in its attribute `sweep`.

    Args:
        mllm: the model, or workers that load one each.
        lines: of a set whose questions name what to choose from.
        kind: of region: box, mask, scribble or point.
        method: settings that all choices share; `ControlMLLMPlus()` when None.
        n: sweep this many lines of the first half; all when None.
        held_out: test on this many of the second half; all when None, 0 for no test.
        path: JSON file of the sweep, to resume from.
        windows: see `sweep_windows`.
        says: the answer that names a thing, from its name; in these words answers are scored.
        shard: (number, of): sweep every `of`-th of these lines, from the `number`-th on (1 is the first), and leave it at
            that: recommended and tested is with the merged file of all shards.
        strict: whether an example that fails ends the sweep, or the test.
        retry: whether examples that are recorded as failed are tried again.

    Raises:
        DataError: for a set of fewer than four lines, or what are no lines.
        SettingsError: for numbers of examples that make no sense.
    """
    lines = several(lines, "Lines must be several examples of a set, from read_roc", DataError)
    for line in lines:
        kind_of(line, ReferringExample, "Each line must be an example of a set, from read_roc", DataError)
    n, held_out = whole_number_or_none(n, "n", 2), whole_number_or_none(held_out, "held_out", 0)
    says = as_says(says)
    half = len(lines) // 2
    if half < 2:
        raise DataError(f"A set to sweep and to test on must have at least four lines; got {len(lines)}.")
    swept = Dataset.of([_said(line.example(kind), says) for line in lines[:half][:n]])
    if shard is not None:
        needs = "A shard must be its number and how many there are"
        which = several(shard, needs, SettingsError)
        if len(which) != 2:
            raise SettingsError(f"{needs}; got {shown(shard)}.")
        swept = swept.shard(*which)
    sweep = sweep_windows(
        mllm, swept, windows=windows, contexts=contexts, method=method, path=path, strict=strict, retry=retry
    )
    if shard is not None or sweep.done < len(sweep.examples):
        return sweep, None, None
    try:
        chosen = recommend(sweep)
        rest = lines[half:][:held_out]
        return sweep, chosen, _tested(mllm, rest, kind, sweep.method, chosen, strict) if rest else None
    except BaseException as error:
        carry(error, "sweep", sweep, "The whole sweep")
        raise


def _said(example: Example, says: Says) -> Example:
    """An example whose answers are as the model would give them."""
    answer = None if example.answer is None else says(example.answer)
    return replace(example, answer=answer, alternatives=[says(each) for each in example.alternatives])


def _tested(
    mllm: Mllm | Workers,
    lines: Sequence[ReferringExample],
    kind: str,
    method: LatentMethod,
    chosen: Recommendation,
    strict: bool,
) -> HeldOut | None:
    task = _Test(tuple(lines), kind, method, (chosen.choice, chosen.against))
    numbered = [replace(line.example(kind), id=number) for number, line in enumerate(lines)]
    with suppress(KeyboardInterrupt):
        return run(task, mllm, Dataset.of(numbered), strict=strict)
    return None


@dataclass(frozen=True)
class _Test(Task[Found, HeldOut]):
    """Each line answered with two choices."""

    gives: ClassVar[str] = "held_out"
    unit: ClassVar[str] = "example"

    lines: tuple[ReferringExample, ...]
    kind: str
    method: LatentMethod
    choices: tuple[Choice, Choice]

    def keys(self, dataset: Dataset) -> list[list[Key]]:
        return [[str(each)] for each in dataset.ids]

    def start(self, mllm: Mllm) -> "_Testing":
        return _Testing(self, mllm)

    def kept(self, path: str | PathLike[str], shared: None) -> tuple[dict[Key, Found], bool]:
        raise DataError("A test has no file.")

    def is_whole(self, line: bytes) -> bool:
        return False

    def of_line(self, line: bytes, shared: None) -> Found:
        return Found.of_line(opened(line))

    def failed(self, shared: None, row: Row, key: Key, error: dict[str, str]) -> Found:
        return Found(key, {}, row.where, error)

    def result(
        self, shared: None, keys: Sequence[Key], records: Sequence[Found], path: Path | None, complete: bool
    ) -> HeldOut:
        found, failed = found_of(records, complete)
        right = np.array([each.figures["right"] for each in found], float).T
        margin = right[0] - right[1]
        low, high = bootstrap(margin).tolist()
        means = float(right[0].mean()), float(right[1].mean()), float(margin.mean())
        return HeldOut(len(found), *means, (low, high), complete, failed)


class _Testing(Work[Found, HeldOut]):
    """A model that is tested."""

    def __init__(self, task: _Test, mllm: Mllm):
        self.task: _Test = task
        self.mllm, self.shared = mllm, None

    def record(self, example: Example, key: Key, tick: Tick) -> Found:
        line = self.task.lines[int(key)]
        right = _answers_right(self.mllm, line, self.task.kind, self.task.method, self.task.choices)
        return Found(key, {"right": right})


def _answers_right(
    mllm: Mllm, line: ReferringExample, kind: str, method: LatentMethod, choices: Sequence[Choice]
) -> list[bool]:
    """Whether the answer with each choice names the region's object, and no other."""
    prompt = mllm.prepare(line.image, line.question)
    target = method.target(prompt.layout, line.region(kind))
    right = []
    for group in [choices] if mllm.family.batch else [[choice] for choice in choices]:
        runs = [replace(method, layers=choice.layers, queries=choice.queries) for choice in group]
        for latent in steer_together(mllm, prompt, target, runs).latent:
            answer = mllm.generate(prompt, latent, method.contrast_decoding)
            right.append(chooses(answer, line))
    return right


def as_json(sweep: Sweep, chosen: Recommendation | None, tested: HeldOut | None) -> dict[str, Any]:
    """`{"recommended": {"layers", "context", ...}, "held_out": {...}, "windows": [...]}`; null for what there is not.

    Intervals of too few examples to have one are null too.
    """
    recommended = chosen and {
        "layers": list(chosen.choice.layers),
        "context": chosen.choice.queries,
        "by": chosen.by,
        "gain": chosen.gain,
        "gain_ci": list(chosen.interval) if says_something(chosen.count, chosen.interval) else None,
        "against": {"layers": list(chosen.against.layers), "context": chosen.against.queries},
        "reason": chosen.reason,
    }
    windows = [
        {
            "layers": list(row["choice"].layers),
            "context": row["choice"].queries,
            **{name.replace(" ", "_"): None if np.isnan(row[name]) else row[name] for name in FIGURES},
        }
        for row in sweep.rows()
    ]
    return {
        "recommended": recommended,
        "held_out": tested and asdict(tested) | ({} if says_something(tested.n, tested.margin_ci) else {"margin_ci": None}),
        "examples": sweep.done,
        "windows": windows,
    }
