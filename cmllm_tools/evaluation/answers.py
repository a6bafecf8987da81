"""Examples x methods: every answer by `refer`, a record of its own, as a task of the one runner."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar

from ..data.dataset import Dataset
from ..data.example import Example
from ..data.lines import Row
from ..data.prompts import others_of
from ..errors import DataError
from ..models.look import Seen, answer_together
from ..models.mllm import Mllm
from ..referring.baseline import Baseline
from ..referring.latent_method import LatentMethod
from ..referring.method import Method, Request
from ..referring.outcome import Outcome
from ..referring.provenance import Provenance
from ..referring.run import refer
from ..running.task import Key, Task, Tick, Work
from ..strict import shown
from .records import Record, is_whole, latest, read_records, same_settings
from .scorers import Scorer
from .summary import Evaluation
from .thumbnails import thumbnails


@dataclass(frozen=True)
class Answers(Task[Record, Evaluation]):
    """Every example answered by every method, and scored.

    Args:
        methods: by their names.
        scorer: of the answers.
        options: for `refer`.
        effects: whether the effect of each outcome is measured.
        batch: how many plain answers are given at once, and how many images' prompts are held.
    """

    gives: ClassVar[str] = "evaluation"
    unit: ClassVar[str] = "answer"

    methods: Mapping[str, Method]
    scorer: Scorer
    options: Mapping[str, Any]
    effects: bool = False
    batch: int = 1

    def keys(self, dataset: Dataset) -> list[list[Key]]:
        return [[(str(each), name) for name in self.methods] for each in dataset.ids]

    def start(self, mllm: Mllm) -> "Answering":
        return Answering(self, mllm)

    def kept(self, path: str | PathLike[str], shared: Any) -> tuple[dict[Key, Record], bool]:
        known: dict[Key, Record] = {each.key: each for each in latest(read_records(path))}
        model, settings = shared
        for each in known.values():
            if each.model != model or not same_settings(settings.get(each.method, each.settings), each.settings):
                raise DataError(
                    "A file that is gone on with must be of this model and these settings; "
                    f"{shown(fspath(path))} has {each.method} of {each.model} with {each.settings}. "
                    "Give another file, or the method another name."
                )
        return known, True

    def is_whole(self, line: bytes) -> bool:
        return is_whole(line)

    def of_line(self, line: bytes, shared: Any) -> Record:
        return Record.of_line(line)

    def failed(self, shared: Any, row: Row, key: Key, error: dict[str, str]) -> Record:
        model, settings = shared
        _, name = key
        facts = {"method": name, "settings": settings[name], "model": model, "scorer": self.scorer.name}
        return Record(id=row.id, **facts, where=row.where, split=row.split, error=error)

    def result(
        self, shared: Any, keys: Sequence[Key], records: Sequence[Record], path: Path | None, complete: bool
    ) -> Evaluation:
        return Evaluation(tuple(records), path, complete)


class Answering(Work[Record, Evaluation]):
    """A model with its methods: gives the records of examples, one after another.

    Args:
        task: whose methods are filled in for the model, so that a setting that does not fit ends no run of hours.
        mllm: the model.

    Raises:
        SettingsError: for a setting that does not fit the model.
    """

    def __init__(self, task: Answers, mllm: Mllm):
        self.task: Answers = task
        self.mllm, self.scorer, self.options = mllm, task.scorer, dict(task.options)
        self.methods = {name: method.resolve(mllm) for name, method in task.methods.items()}
        # As a file gives them back.
        self.settings = {name: _plain(method.to_json()) for name, method in self.methods.items()}
        self.shared = mllm.name, self.settings
        self.versions = Provenance.of(mllm).versions
        # The images of the last examples, or of those that were answered ahead, which the next one may have too.
        self._images: list[tuple[Any, Seen]] = []
        # What the model says of an example by itself.
        self._baseline: tuple[Example, Baseline] | None = None
        # Numbers of the examples that were answered ahead, or could not be.
        self._ahead: set[Any] = set()

    def record(self, example: Example, key: Key, tick: Tick) -> Record:
        """The record of an example by a method.

        Raises:
            KeyboardInterrupt: also where a method's steps were interrupted, as half of them are no result.
        """
        _, name = key
        baseline = self._baseline_of(example) if self.task.effects else None
        return self._answered(example, name, baseline)

    def failed(self, row: Row, example: Example | None, key: Key, error: dict[str, str]) -> Record:
        if example is None:
            return super().failed(row, example, key, error)
        _, name = key
        return Record(**self._asked(example, name), error=error)

    def ahead(self, dataset: Dataset, example: Example, left: Sequence[tuple[int, Sequence[Key]]]) -> None:
        """Give plain answers to the next examples at once.

        What fails here is tried by itself when its own turn comes, and recorded where it fails again.
        """
        number, batch = left[0][0], self.task.batch
        if batch < 2 or number in self._ahead or self.options.keys() > {"max_new_tokens"}:
            return
        several: dict[Any, tuple[Example, set[str]]] = {}
        for other, keys in left[:batch]:
            with suppress(Exception):
                several[other] = example if other == number else dataset[other], {name for _, name in keys}
        self._ahead = set(several)
        for name, method in self.methods.items():
            if isinstance(method, LatentMethod) or type(method).intervention is not Method.intervention:
                continue
            asked = []
            for each in (each for each, names in several.values() if name in names):
                with suppress(Exception):
                    seen = self._seen_of(each)
                    sent = method.sent(Request(seen.image, each.question, each.regions), self.mllm).named("")
                    if sent.image is seen.image:
                        # What cannot be a prompt is none of the others' matter.
                        seen.prompt(sent.question)
                        asked.append((seen, sent.question))
            # A batch can fail by itself, as for want of memory, where its answers one by one do not.
            with suppress(Exception):
                if len(asked) > 1:
                    answer_together(asked, self.options["max_new_tokens"])

    def _baseline_of(self, example: Example) -> Baseline:
        """What the model says of an example by itself; the right answer's odds are those against the wrong ones."""
        if self._baseline is not None and self._baseline[0] is example:
            return self._baseline[1]
        self._baseline = None
        names = () if example.answer is None else (example.answer,)
        wrong = tuple(example.alternatives) or others_of(example.question, example.names)
        candidates = (*names, *wrong) if names and wrong else ()
        limit = self.options["max_new_tokens"]
        found = Baseline(self.mllm, example.image, example.question, candidates=candidates, max_new_tokens=limit)
        self._baseline = example, found
        return found

    def _answered(self, example: Example, name: str, baseline: Baseline | None) -> Record:
        asked = self._seen_of(example), example.question, example.region
        outcome = refer(self.mllm, *asked, self.methods[name], progress=False, **self.options)
        if outcome.interrupted:
            raise KeyboardInterrupt
        trace = outcome.trace
        return Record(
            **self._asked(example, name),
            answer=str(outcome.answer),
            ids=outcome.answer.ids,
            scores=self.scorer.score(str(outcome.answer), example) | _effect(baseline, outcome),
            sent=None if outcome.sent.question == example.question else outcome.sent.question,
            size=outcome.size,
            share=() if trace is None else (trace.steps[0].share, trace.steps[-1].share),
            # On another image than the user's its places would be others.
            attention=None if trace is None or outcome.sent.size != outcome.size else thumbnails(trace),
            stopped=None if trace is None else trace.stopped,
            seconds=outcome.seconds,
            peak_memory=outcome.peak_memory,
        )

    def _seen_of(self, example: Example) -> Seen:
        """The example's image, with what was seen of it for the methods and the examples before."""
        image = example.image
        for known, seen in self._images:
            if _same(known, image):
                return seen
        # What goes makes room before the next one is looked at.
        del self._images[: max(0, 1 + len(self._images) - self.task.batch)]
        self._images.append((image, Seen(self.mllm, image)))
        return self._images[-1][1]

    def _asked(self, example: Example, name: str) -> dict[str, Any]:
        """What a record has of its example and method."""
        image = example.image
        return {
            "id": example.id,
            "method": name,
            "settings": self.settings[name],
            "model": self.mllm.name,
            "scorer": self.scorer.name,
            "question": example.question,
            "names": tuple(example.names),
            "others": tuple(example.alternatives),
            "image": str(image) if isinstance(image, str | PathLike) else None,
            "regions": tuple(region.to_json() for region in example.regions),
            "task": example.task,
            "split": example.split,
            "tags": example.tags,
            "where": example.where,
            "versions": self.versions,
        }


def _same(one: Any, other: Any) -> bool:
    """Whether two examples have the same image: the same file, or the same object."""
    return one is other or (
        isinstance(one, str | PathLike) and isinstance(other, str | PathLike) and str(one) == str(other)
    )


def _effect(baseline: Baseline | None, outcome: Outcome) -> dict[str, float]:
    """Gain of the right answer's log-odds, and damage in nats per token, to an unrelated text and the own answer."""
    if baseline is None:
        return {}
    effect = baseline.effect(outcome)
    before = baseline.log_odds
    gain = {"gain": effect.log_odds[0] - before[0]} if before else {}
    return gain | {"damage": effect.damage, "own damage": effect.own_damage}


def _plain(value: Any) -> Any:
    """Tuples as the lists that a file has of them."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
