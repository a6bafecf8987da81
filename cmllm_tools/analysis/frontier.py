"""How far ways of referring move the answer for the damage that they do, as their strength grows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, NotFiniteError, OptimizationError, SettingsError, UnsupportedModelError, carry
from ..files import write_whole
from ..models.mllm import Mllm, require
from ..notation import text_table
from ..progress import progress_bar
from ..referring.baseline import Baseline, attention_share
from ..referring.compare import named_methods
from ..referring.method import Method
from ..referring.run import refer
from ..shown import Fact, Shown
from ..stored import Reader, array_of, dump_json, finite, items, load_saved, or_none, record, text_of, unread, whole
from ..strict import flag, number, one_of, several
from .examples import Example, as_examples
from .intervals import interval_text, resampled

MARK, FORMAT = "cmllm_frontier", 1
# Multiples of a method's own strength.
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Nats per token at which ways are set side by side.
BOUND = 0.1
FIGURES = ("share", "effect", "damage", "seconds")
TEXT, CANDIDATES = "text", "candidates"


@dataclass(frozen=True, eq=False)
class Curve:
    """One way, at each of its strengths.

    Args:
        name: of the way.
        setting: the name of its strength; "" for a way that has none, which is one point.
        strengths: rising; None for a way that has none.
        values: (figure, strength, example): share of the question's attention in the region, effect (change of the right
            answer's log-odds), damage (nats per token) and seconds; nan where a run failed.
    """

    name: str
    setting: str
    strengths: tuple[float | None, ...]
    values: np.ndarray

    def figure(self, name: str) -> np.ndarray:
        """(strength, example): one of "share", "effect", "damage" and "seconds"."""
        result: np.ndarray = self.values[FIGURES.index(one_of(name, "A curve's figure", FIGURES, DataError))]
        return result

    def means(self, name: str) -> np.ndarray:
        """(strength,): mean of a figure over the examples; nan where a run failed."""
        result: np.ndarray = self.figure(name).mean(1)
        return result

    def effect_at(self, damage: float = BOUND) -> tuple[float, float, float] | None:
        """The most effect for at most so much damage: low end, mean and high end of its 95 % interval.

        Between two strengths, effect and damage are taken to lie on a line. Intervals are by a bootstrap over the examples.
        None where even the weakest does more damage.
        """
        effect, lost = self.figure("effect"), self.figure("damage")
        mean = most_within(effect.mean(1)[None], lost.mean(1)[None], damage)[0]
        if np.isnan(mean):
            return None
        ends = most_within(resampled(effect.T), resampled(lost.T), damage)
        low, high = np.nanpercentile(ends, [2.5, 97.5])
        return float(low), float(mean), float(high)


def most_within(effect: np.ndarray, damage: np.ndarray, bound: float) -> np.ndarray:
    """(curve,): the most effect of each curve (curve, point) where its damage is at most a bound; nan where there is none.

    Points are joined by lines, in their order.
    """
    allowed = np.where(damage <= bound, effect, np.nan)
    crosses = (damage[:, :-1] <= bound) != (damage[:, 1:] <= bound)
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (bound - damage[:, :-1]) / (damage[:, 1:] - damage[:, :-1])
        between = np.where(crosses, effect[:, :-1] + along * (effect[:, 1:] - effect[:, :-1]), np.nan)
    every = np.concatenate([allowed, between], 1)
    result: np.ndarray = np.where(np.isnan(every).all(1), np.nan, np.nan_to_num(every, nan=-np.inf).max(1))
    return result


@dataclass(frozen=True, eq=False, repr=False)
class Frontier(Shown):
    """Ways of referring as curves of effect against damage, over a set.

    Args:
        model: its name.
        examples: how many were measured.
        damage_to: "text", an unrelated one; or "candidates", where the model does not speak its language; see
            `Baseline.moved`.
        curves: one to each way.
        complete: False where an interrupt left examples out.

    Examples:
        >>> example = cm.analysis.Example(scene.image, scene.question, box, "red cross", ["blue zero"])
        >>> found = cm.analysis.frontier(mllm, [example], methods=ways[1:], progress=False)
        >>> found.examples, [curve.name for curve in found.curves]
        (1, ['red circle'])
    """

    model: str
    examples: int
    damage_to: str
    curves: tuple[Curve, ...]
    complete: bool = True

    def __getitem__(self, name: str) -> Curve:
        found = next((each for each in self.curves if each.name == name), None)
        if found is None:
            raise SettingsError(f"A way must be one of {', '.join(each.name for each in self.curves)}; got {name!r}.")
        return found

    def effect_at(self, damage: float = BOUND) -> dict[str, tuple[float, float, float] | None]:
        """Of each way, the most first: see `Curve.effect_at`."""
        bound = number(damage, "A bound on damage")
        found = {each.name: each.effect_at(bound) for each in self.curves}
        return dict(sorted(found.items(), key=lambda each: np.inf if each[1] is None else -each[1][1]))

    def table(self, damage: float = BOUND) -> str:
        """The ways at equal damage, and every point of their curves, as plain text."""
        bound = number(damage, "A bound on damage")
        best = [["", f"effect at {bound:g} nats a token", "95 % interval"]]
        for name, found in self.effect_at(bound).items():
            ends = "" if found is None else interval_text(self.examples, (found[0], found[2]), "+.2f")
            best.append([name, "more damage at any strength" if found is None else f"{found[1]:+.2f}", ends])
        points = [["", "strength", "share in region", "effect", "damage", "s"]]
        for curve in self.curves:
            share, effect, lost, seconds = (curve.means(name) for name in FIGURES)
            for at, strength in enumerate(curve.strengths):
                words = "-" if strength is None else f"{curve.setting} {strength:.4g}"
                cells = f"{share[at]:.1%}", f"{effect[at]:+.2f}", f"{lost[at]:+.3f}", f"{seconds[at]:.2f}"
                points.append([curve.name, words, *cells])
        lines = [text_table(best, "<><"), "", text_table(points, "<<>>>>")]
        return "\n".join(lines + ["Interrupted: examples are missing."] * (not self.complete))

    def facts(self) -> list[Fact]:
        best = [(name, found[1]) for name, found in self.effect_at().items() if found is not None]
        facts = [("", self.model), ("", f"{len(self.curves)} ways"), ("", f"{self.examples} examples")]
        facts += [(f"most effect at {BOUND:g} nats a token", f"{best[0][0]} {best[0][1]:+.2f}")] if best else []
        return facts + [("damage to", f"the {self.damage_to}")] + [("", "interrupted")] * (not self.complete)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it as JSON with a hash of its bytes.

        Raises:
            OutputError: when the file cannot be written.
        """
        curves = [
            {
                "name": each.name,
                "setting": each.setting,
                "strengths": list(each.strengths),
                "values": [[[None if np.isnan(v) else v for v in row] for row in part] for part in each.values.tolist()],
            }
            for each in self.curves
        ]
        plain = {name: getattr(self, name) for name in ("model", "examples", "damage_to", "complete")}
        data = {MARK: FORMAT, **plain, "curves": curves}
        return write_whole(path, lambda file: file.write(dump_json(data)), "It is still in memory.")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Frontier":
        """Reopen a saved frontier; what it holds is checked.

        Raises:
            DataError: for a file that is missing, damaged, or no frontier.
        """
        with load_saved(path, "A frontier must be a file written by Frontier.save", MARK, FORMAT) as data:
            found = record(data, "a frontier", _FIELDS)
            curves = tuple(_stored_curve(each, found["examples"]) for each in found["curves"])
            return cls(**found | {"curves": curves})


def frontier(
    mllm: Mllm,
    examples: Iterable[Example],
    *,
    methods: Mapping[str, Method] | Sequence[Method] | None = None,
    factors: Sequence[float] = FACTORS,
    text: str | None = None,
    progress: bool = True,
) -> Frontier:
    """Refer with each method at growing strengths, and measure how far the answer moves and what that costs.

    A method declares which of its settings is its strength (`Method.strength_setting`); it is made so many times what it is
    for the model, where that is in its range. A method without one is a single point. An interrupt ends it with the
    examples that were done; another error has them as its `.frontier`.

    Args:
        mllm: the model.
        examples: with the right answer and wrong ones, each.
        methods: by name, or several; `usual_methods()` when None.
        factors: multiples of a method's own strength.
        text: an unrelated one, that damage is measured on; see `Baseline`.
        progress: show a progress bar.

    Raises:
        DataError: for no examples, or one without answers.
        SettingsError: for what are no methods or factors.

    Examples:
        >>> example = cm.analysis.Example(scene.image, scene.question, box, "red cross", ["blue zero"])
        >>> found = cm.analysis.frontier(mllm, [example], methods=ways, factors=[0.5, 1], progress=False)
        >>> [len(curve.strengths) for curve in found.curves]
        [2, 2]
    """
    require(mllm)
    chosen, shown_bar = as_examples(examples), flag(progress, "progress")
    for example in chosen:
        if example.answer is None or not example.alternatives:
            raise DataError(
                "Each example of a frontier must have its answer and alternatives, whose log-odds are measured."
            )
    times = sorted({number(each, "Each of the factors", above=0) for each in several(factors, "factors must be several")})
    if not times:
        raise SettingsError("factors must be one or more; got none.")
    ways = {name: _strengths(way.resolve(mllm), times) for name, way in named_methods(methods).items()}
    values: list[list[np.ndarray]] = []
    speaks: bool | None = None
    complete = True
    try:
        for example in progress_bar(chosen, "frontier", shown=shown_bar, unit="example"):
            candidates = (example.answer, *example.alternatives)
            baseline = Baseline(mllm, mllm.look(example.image), example.question, candidates=candidates, text=text)
            # By the first: a mean is over what is the same for all.
            speaks = baseline.speaks if speaks is None else speaks
            values.append([np.stack([_figures(baseline, example, way, speaks) for way in of], 1) for of in ways.values()])
    except KeyboardInterrupt:
        complete = False
        if not values:
            raise
    except BaseException as error:
        if values:
            so_far = _frontier(mllm, ways, values, bool(speaks), complete=False)
            carry(error, "frontier", so_far, f"The frontier over the {len(values)} examples so far")
        raise
    return _frontier(mllm, ways, values, bool(speaks), complete)


def _frontier(
    mllm: Mllm, ways: Mapping[str, Sequence[Method]], values: Sequence[Sequence[np.ndarray]], speaks: bool, complete: bool
) -> Frontier:
    curves = tuple(
        _curve(name, ways[name], np.stack(of, -1)) for name, of in zip(ways, zip(*values, strict=True), strict=True)
    )
    return Frontier(mllm.name, len(values), TEXT if speaks else CANDIDATES, curves, complete)


def _strengths(method: Method, factors: Sequence[float]) -> list[Method]:
    """The method at each strength that is in its range, rising."""
    if method.strength_setting() is None:
        return [method]
    found: dict[float, Method] = {}
    for factor in factors:
        try:
            way = method.times(factor)
        except SettingsError:
            continue
        found.setdefault(_strength(way) or 0.0, way)
    return list(found.values()) or [method]


def _strength(method: Method) -> float | None:
    declared = method.strength_setting()
    return None if declared is None else float(getattr(method, declared.name))


def _figures(baseline: Baseline, example: Example, way: Method, speaks: bool) -> np.ndarray:
    """(figure,) of one run; nan where it went too far, or the way cannot be gone here."""
    try:
        look = baseline.prompt.look or baseline.prompt.image
        outcome = refer(baseline.mllm, look, example.question, example.region, way, progress=False)
        if outcome.interrupted:
            raise KeyboardInterrupt
        effect, damage = baseline.moved(outcome, speaks)
        prompt = baseline.prompt_of(outcome)
        share = attention_share(baseline.mllm, prompt, outcome.intervention, outcome.sent.regions)
        return np.array([share, effect, damage, outcome.seconds])
    except (OptimizationError, NotFiniteError, SettingsError, UnsupportedModelError):
        return np.full(len(FIGURES), np.nan)


def _curve(name: str, ways: Sequence[Method], values: np.ndarray) -> Curve:
    declared = ways[0].strength_setting()
    return Curve(name, "" if declared is None else declared.name, tuple(map(_strength, ways)), values)


def _stored_curve(value: Any, examples: int) -> Curve:
    readers: dict[str, Reader] = {
        "name": text_of,
        "setting": text_of,
        "strengths": partial(items, read=or_none(finite)),
        "values": unread,
    }
    found = record(value, "a curve", readers)
    shape = len(FIGURES), len(found["strengths"]), examples
    return Curve(**found | {"values": array_of(found["values"], "a curve's values", shape, missing=True)})


_FIELDS: dict[str, Reader] = {
    "model": text_of,
    "examples": partial(whole, least=1, most=1_000_000),
    "damage_to": partial(one_of, choices=(TEXT, CANDIDATES), error=DataError),
    "complete": partial(flag, error=DataError),
    "curves": partial(items, read=unread),
}
