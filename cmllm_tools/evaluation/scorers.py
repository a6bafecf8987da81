"""How an answer is scored: scorers as values, each with the figures that it gives and how they are summed up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from ..analysis.intervals import RESAMPLES, bootstrap, says_something, wilson
from ..data.example import Example
from ..data.prompts import others_of
from ..errors import DataError, SettingsError
from ..strict import kind_of, register_class, shown
from .captions import LONGEST, Described
from .judging import PROMPT, judged
from .matching import parts_of, published_match, strict_match


class Scored(Protocol):
    """What is summed up: an answer with its own scores, and what was right."""

    @property
    def answer(self) -> str | None: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def scores(self) -> dict[str, float]: ...
    @property
    def tags(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Figure:
    """A figure over several answers.

    Args:
        mean: of them.
        low: of the 95 % interval; with `high` the mean where there is none.
        high: likewise.
        count: number of answers.

    Examples:
        >>> evaluation = cm.evaluate(mllm, examples, [cm.methods.AttentionEdit(3)], progress=False)
        >>> figure = evaluation.figures("attention-edit")["right"]
        >>> figure.low <= figure.mean <= figure.high
        True
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Scorer:
    """A way of scoring: a subclass gives figures of each answer, or of all answers together.

    Attributes:
        name: by which it is asked for.

    Examples:
        >>> cm.evaluation.Strict().score("red cross", examples[0])
        {'right': 1.0}
    """

    name: ClassVar[str] = ""

    def score(self, answer: str, example: Example) -> dict[str, float]:
        """Figures of one answer, each by its name; empty where there are none of one alone.

        Raises:
            DataError: for an example that has not what is needed.
        """
        return {}

    def figures(self, scored: Sequence[Scored]) -> dict[str, Figure]:
        """Figures of several answers with intervals: Wilson's of what is right or wrong, else from resampled answers."""
        found = {}
        for name in dict.fromkeys(name for each in scored for name in each.scores):
            found[name] = mean_of([each.scores[name] for each in scored if name in each.scores])
        return found

    def each(self, scored: Sequence[Scored]) -> dict[str, np.ndarray]:
        """Figures (answer,) of each of several answers, to compare two ways by; nan where there is none."""
        names = dict.fromkeys(name for each in scored for name in each.scores)
        return {name: np.array([each.scores.get(name, np.nan) for each in scored], float) for name in names}


def mean_of(values: Sequence[float]) -> Figure:
    """The mean of figures of several answers, with its interval."""
    numbers = np.array(values, float)
    mean = float(numbers.mean())
    binary = bool(np.isin(numbers, (0.0, 1.0)).all())
    low, high = wilson(np.array(mean), len(numbers)).tolist() if binary else _spread(mean, bootstrap(numbers), len(numbers))
    return Figure(mean, low, high, len(numbers))


def _spread(mean: float, interval: np.ndarray, count: int) -> tuple[float, float]:
    """A bootstrap's interval, or the mean where there are too few answers for one."""
    low, high = interval.tolist()
    return (low, high) if says_something(count, (low, high)) else (mean, mean)


Kind = TypeVar("Kind", bound=type[Scorer])
SCORERS: dict[str, type[Scorer]] = {}


def scorer(kind: Kind) -> Kind:
    """Make a scorer known by its name; a decorator.

    Raises:
        SettingsError: for what is no scorer, or a name that another one has.

    Examples:
        >>> from dataclasses import dataclass
        >>> @cm.evaluation.scorer
        ... @dataclass(frozen=True)
        ... class Short(cm.evaluation.Scorer):
        ...     "Whether an answer has at most three words."
        ...
        ...     name = "short"
        ...
        ...     def score(self, answer, example):
        ...         return {"short": float(len(answer.split()) <= 3)}
        >>> Short().score("red cross", examples[0])
        {'short': 1.0}
    """
    if not (isinstance(kind, type) and issubclass(kind, Scorer) and kind.name):
        raise SettingsError(f"A scorer must be a subclass of evaluation.Scorer with a name; got {shown(kind)}.")
    register_class(SCORERS, kind.name, kind, "A scorer")
    return kind


@scorer
@dataclass(frozen=True)
class Published(Scorer):
    """ROC's and RTC's published matcher: whether the name or a synonym stands in the answer; that of both is right.

    Examples:
        >>> cm.evaluation.Published().score("the red cross, not the zero", examples[0])
        {'right': 1.0}
    """

    name = "published"

    def score(self, answer: str, example: Example) -> dict[str, float]:
        first, *synonyms = _named(example)
        return {"right": float(published_match(answer, first, synonyms))}


@scorer
@dataclass(frozen=True)
class Strict(Scorer):
    """Whether a right name stands in the answer as whole words, and none of the wrong ones.

    Wrong ones are the example's alternatives, else what its question gives to choose from ("a A or a B?").

    Examples:
        >>> cm.evaluation.Strict().score("a red cross at the right", examples[0])
        {'right': 1.0}
    """

    name = "strict"

    def score(self, answer: str, example: Example) -> dict[str, float]:
        names = [part for name in _named(example) for part in parts_of(name)]
        others = example.alternatives or others_of(example.question, names)
        return {"right": float(strict_match(answer, names, others))}


@scorer
@dataclass(frozen=True)
class Captions(Scorer):
    """BLEU-1 to BLEU-4 and CIDEr of all descriptions together, per cent, as RefCOCOg and ScreenSpot are published.

    METEOR and SPICE need Java; see `captions`.

    Examples:
        >>> example = cm.data.Example(scene.image, "describe it.", box, names=["a red cross"])
        >>> cm.evaluation.Captions().score("a red cross", example)  # none of one alone
        {}
    """

    name = "captions"

    def score(self, answer: str, example: Example) -> dict[str, float]:
        _named(example)
        return {}

    def figures(self, scored: Sequence[Scored]) -> dict[str, Figure]:
        described, count = _described(scored), len(scored)
        cider = 100 * described.cider
        found = super().figures(scored) | {"CIDEr": mean_of(cider.tolist())}
        # Weights of a resample are how often it holds each answer, as in `bootstrap`.
        weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        means, spread = 100 * described.bleu(), 100 * described.bleu(weights)
        for size in range(LONGEST):
            mean = float(means[size])
            low, high = _spread(mean, np.percentile(spread[:, size], [2.5, 97.5]), count)
            found[f"BLEU-{size + 1}"] = Figure(mean, low, high, count)
        return found

    def each(self, scored: Sequence[Scored]) -> dict[str, np.ndarray]:
        return {"CIDEr": 100 * _described(scored).cider} | super().each(scored)


@scorer
@dataclass(frozen=True)
class Judged(Scorer):
    """Scores in 0..1 from a judge, as ViP-Bench has them, in all and for each capability.

    Args:
        judge: is given what is to be completed and gives a text that starts with the score; a model on this machine, say.
        prompt: what comes before question, truth and answer: the rules and some examples. The published one is in
            ViP-LLaVA's `vip-bench_evaluator.py`.

    Examples:
        >>> judge = cm.evaluation.Judged(lambda text: "0.5", prompt="Score the answer.")
        >>> judge.score("a cross", examples[0])
        {'score': 0.5}
    """

    name = "judged"

    judge: Callable[[str], str] | None = None
    prompt: str = field(default=PROMPT, repr=False)

    def score(self, answer: str, example: Example) -> dict[str, float]:
        if self.judge is None:
            raise SettingsError("Answers are judged by evaluation.Judged(judge), a function from a text to a text.")
        return {"score": judged(self.judge, self.prompt, example.question, " <OR> ".join(_named(example)), answer)}

    def figures(self, scored: Sequence[Scored]) -> dict[str, Figure]:
        found = super().figures(scored)
        for tag in sorted({tag for each in scored for tag in each.tags}):
            some = [each.scores["score"] for each in scored if tag in each.tags and "score" in each.scores]
            if some:
                found[f"score {tag}"] = mean_of(some)
        return found


def as_scorer(given: Any, otherwise: str) -> Scorer:
    """A scorer, or the one of a name, or of another name when it is None.

    Raises:
        SettingsError: for what is neither.
    """
    name = otherwise if given is None else given
    if isinstance(name, str):
        if name not in SCORERS:
            raise SettingsError(f"A scorer must be one of {', '.join(SCORERS)}; got {shown(name)}.")
        return SCORERS[name]()
    return kind_of(name, Scorer, f"A scorer must be one of {', '.join(SCORERS)}, or an evaluation.Scorer")


def scorer_named(name: str) -> Scorer:
    """The scorer of records that name one; for one that is not known here, the plain means of its figures."""
    return SCORERS[name]() if name in SCORERS else Scorer()


def _named(example: Example) -> Sequence[str]:
    if not example.names:
        raise DataError("An answer is scored against a right one; this example has none.")
    return example.names


def _described(scored: Sequence[Scored]) -> Described:
    return Described.of([each.answer or "" for each in scored], [list(each.names) or [""] for each in scored])
