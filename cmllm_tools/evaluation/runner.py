"""Examples x methods: every answer by `refer`, kept when it is given, and gone on with after what ended a run."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

from ..data.dataset import Dataset, as_dataset
from ..data.example import Example
from ..data.prompts import others_of
from ..errors import CmllmError, OutputError, SettingsError
from ..models.look import Seen
from ..models.mllm import Mllm, require
from ..referring.baseline import Baseline
from ..referring.latent_method import LatentMethod
from ..referring.method import Method, Request, as_method
from ..referring.methods.controlmllm import ControlMLLMPlus
from ..referring.outcome import Outcome
from ..referring.provenance import Provenance
from ..referring.run import refer
from ..strict import flag, several, shown, whole_number
from .kept import Plan, failed
from .records import Record
from .scorers import Scorer, as_scorer
from .summary import Evaluation
from .thumbnails import thumbnails

# New tokens of an answer in the published runs.
MAX_NEW_TOKENS = 30


@dataclass(frozen=True)
class Unsteered(Method):
    """Nothing is done: the question as it is, to compare the other ways with.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.evaluation.Unsteered()).answer)
        blue zero at the center
    """

    label: ClassVar[str] = "unsteered"
    told: ClassVar[bool] = False


def evaluate(
    mllm: Mllm,
    dataset: Dataset | Iterable[Example],
    methods: Mapping[str, Method] | Iterable[Method] | None = None,
    *,
    path: str | PathLike[str] | None = None,
    scorer: Scorer | str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    effects: bool = False,
    batch: int = 1,
    strict: bool = False,
    retry: bool = False,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Answer and score every example by every method.

    With a `path`, each answer is a line of the file before the next is begun; the same call goes on after whatever ended
    it, and answers nothing twice. An example that fails is recorded with its reason, and the run goes on. An interrupt ends
    it with what there is.

    Args:
        mllm: the model.
        dataset: from `data.read`, or examples.
        methods: by names of one's own, or several, named as people call them; unsteered and `ControlMLLMPlus()` when None.
        path: file of the records, JSON lines; kept nowhere when None.
        scorer: or its name; the one that the set is published with when None.
        max_new_tokens: upper bound on an answer's length.
        effects: whether it is measured too how far each method moves the right answer's log-odds against the wrong ones,
            and what it costs the language (`Baseline`); each example takes some forwards more.
        batch: how many questions of one image, which come one after another, are answered at once by methods that do
            nothing to the model; one by one where its family does not keep them apart. Answers are the same, but for
            rounding.
        strict: whether an example that fails ends the run.
        retry: whether examples that are recorded as failed are tried again.
        progress: whether a bar is shown, with the time that is left.
        **options: for `Mllm.generate`.

    Raises:
        DataError: for no examples, or a file of another run.
        SettingsError: for what are no methods, or a setting that does not fit the model.
        OutputError: when the file cannot be written, or another process writes it.
        CmllmError: what an example failed with, where `strict`.

    Examples:
        >>> evaluation = cm.evaluate(mllm, examples, [cm.methods.AttentionEdit(3)], path="records.jsonl", progress=False)
        >>> evaluation.figures("attention-edit")["right"].count
        2
        >>> len(cm.Evaluation.load("records.jsonl").records)
        2
    """
    dataset, named, strict = as_dataset(dataset), as_methods(methods), flag(strict, "strict")
    options = {"max_new_tokens": whole_number(max_new_tokens, "max_new_tokens", 1), **options}
    with Plan.opened(dataset, named, path, retry, progress) as plan:
        effects, batch = flag(effects, "effects"), whole_number(batch, "batch", 1)
        runner = Runner(mllm, named, as_scorer(scorer, dataset.scorer), options, effects, batch)
        plan.check(mllm.name, runner.settings)
        todo = [(at, name) for at, names in plan.left.items() for name in names]
        return plan.done(runner.records(dataset, todo, strict))


def as_methods(methods: Any) -> dict[str, Method]:
    """Methods by their names.

    Raises:
        SettingsError: for none, or what are no methods.
    """
    if methods is None:
        methods = (Unsteered(), ControlMLLMPlus())
    needs = "Methods must be several, as [ControlMLLMPlus()], or given by name, as {'plus': ControlMLLMPlus()}"
    found: dict[str, Method] = {}
    if isinstance(methods, Mapping):
        for name, method in methods.items():
            if not isinstance(name, str) or not name.strip():
                raise SettingsError(f"A method's name must be a text with words; got {shown(name)}.")
            found[name] = as_method(method)
    else:
        for method in several(methods, needs):
            name = as_method(method).called().lower().replace(" ", "-")
            same = sum(known.partition("#")[0] == name for known in found)
            found[f"{name}#{same + 1}" if same else name] = method
    if not found:
        raise SettingsError(f"{needs}; got none.")
    return found


class Runner:
    """A model with its methods and scorer: gives the records of examples, one after another.

    Args:
        mllm: the model.
        methods: by their names; each is filled in for the model, so that a setting that does not fit ends no run of hours.
        scorer: of the answers.
        options: for `refer`.
        effects: whether the effect of each outcome is measured.
        batch: how many plain answers of one image are given at once.

    Raises:
        SettingsError: for a setting that does not fit the model.
    """

    def __init__(
        self,
        mllm: Mllm,
        methods: Mapping[str, Method],
        scorer: Scorer,
        options: Mapping[str, Any],
        effects: bool = False,
        batch: int = 1,
    ):
        require(mllm)
        self.batch = batch
        self.mllm, self.scorer, self.options, self.effects = mllm, scorer, dict(options), effects
        self.methods = {name: method.resolve(mllm) for name, method in methods.items()}
        # As a file gives them back.
        self.settings = {name: _plain(method.to_json()) for name, method in self.methods.items()}
        self.versions = Provenance.of(mllm).versions
        # The image of the last example, which the next one may have too.
        self._image: tuple[Any, Seen] | None = None

    def records(self, dataset: Dataset, todo: Iterable[tuple[int, str]], strict: bool) -> Iterable[Record]:
        """The records of examples, given by number, and methods, given by name.

        Raises:
            KeyboardInterrupt: also where a method's steps were interrupted, as half of them are no result.
            CmllmError: what an example failed with, where `strict`.
        """
        at, example, baseline = None, None, None
        todo = list(todo)
        ahead: set[int] = set()
        for place, (number, name) in enumerate(todo):
            try:
                # Methods of one example come one after another.
                if at != number or example is None:
                    at, example, baseline = number, dataset[number], None
                    if self.batch > 1 and number not in ahead:
                        ahead = self._answer_ahead(dataset, example, todo[place:])
                if self.effects and baseline is None:
                    baseline = self._baseline(example)
                yield self._answered(example, name, baseline)
            except OutputError:
                raise
            except Exception as error:
                # Recorded, and counted for all to see; the other examples are as good as they were.
                if strict:
                    raise
                yield self._failed(dataset, number, example if at == number else None, name, error)

    def _answer_ahead(self, dataset: Dataset, example: Example, todo: Sequence[tuple[int, str]]) -> set[int]:
        """Plain answers to the next examples of the same image at once; the numbers of those examples.

        What fails here is tried by itself when its own turn comes, and recorded where it fails again.
        """
        wanted: dict[int, set[str]] = {}
        for number, name in todo:
            wanted.setdefault(number, set()).add(name)
        several = {}
        with suppress(Exception):
            for number in list(wanted)[: self.batch]:
                each = dataset[number]
                if not _same(example.image, each.image):
                    break
                several[number] = each
        if len(several) < 2 or self.options.keys() > {"max_new_tokens"}:
            return set(several)
        for name, method in self.methods.items():
            if isinstance(method, LatentMethod) or type(method).intervention is not Method.intervention:
                continue
            # A batch can fail by itself, as for want of memory, where its answers one by one do not.
            with suppress(Exception):
                seen = self._seen_of(example)
                asked = [
                    method.sent(Request(seen.image, each.question, each.regions), self.mllm).named("")
                    for number, each in several.items()
                    if name in wanted[number]
                ]
                questions = [each.question for each in asked if each.image is seen.image]
                if len(questions) > 1:
                    seen.answer_together(questions, self.options["max_new_tokens"])
        return set(several)

    def _baseline(self, example: Example) -> Baseline:
        """What the model says of an example by itself; the right answer's odds are those against the wrong ones."""
        names = () if example.answer is None else (example.answer,)
        wrong = tuple(example.alternatives) or others_of(example.question, example.names)
        candidates = (*names, *wrong) if names and wrong else ()
        limit = self.options["max_new_tokens"]
        return Baseline(self.mllm, example.image, example.question, candidates=candidates, max_new_tokens=limit)

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
        if self._image is None or not _same(self._image[0], image):
            self._image = None
            self._image = image, Seen(self.mllm, image)
        return self._image[1]

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

    def _failed(self, dataset: Dataset, number: int, example: Example | None, name: str, error: Exception) -> Record:
        message = str(error) if isinstance(error, CmllmError) else repr(error)
        kind, row = type(error).__name__, dataset.rows[number]
        if example is None:
            return failed(row, name, self.settings[name], self.mllm.name, self.scorer.name, kind, message)
        return Record(**self._asked(example, name), error={"kind": kind, "message": message})


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
