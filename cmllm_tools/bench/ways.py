"""Every way of referring on the embedded model's held-out scenes: what it answers, at what price, and was it the region."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..analysis.controls import ELSEWHERE, INSIDE, OUTSIDE, RANDOM, REGION, REMOVED, WRONG, controls
from ..analysis.intervals import bootstrap, wilson
from ..data.formats.roc import ReferringExample
from ..errors import SettingsError
from ..evaluation.matching import names_it, strict_match
from ..evaluation.runner import Unsteered
from ..inputs.overlays import OVERLAYS
from ..inputs.pixels import FILLS
from ..inputs.regions import REGION_KINDS, Box, Region
from ..loading import load
from ..models.look import Look
from ..models.mllm import Mllm, require
from ..progress import progress_bar
from ..referring.baseline import Baseline
from ..referring.defaults import UNSTEERED
from ..referring.method import Method, as_method
from ..referring.methods.attention_bias import AttentionEdit
from ..referring.methods.drawn import Drawn
from ..referring.methods.outside import OutsideHidden
from ..referring.outcome import Outcome
from ..referring.registry import all_methods
from ..referring.run import refer
from ..strict import kind_of, one_of, several, whole_number
from .embedded import absent_names, chooses
from .heldout import DESCRIPTIONS, held_out

# Of a way that does not go by the region, what is the same for each of its kinds.
IMAGE = "image"
# What the package calls controls, and their names in results.
CONTROLS = {
    REGION: "region",
    ELSEWHERE: "elsewhere",
    WRONG: "wrong_object",
    RANDOM: "random_direction",
    INSIDE: "inside_only",
    OUTSIDE: "outside_only",
    REMOVED: "without_its_pixels",
}
CONTROLLED = ("ControlMLLMPlus", "KeySteering")
# Opaque, it would hide the object; the middle of the published range.
MASK_ALPHA = 88

# Parts of a result, by which its scores are kept too.
METHODS, CONTROLLED_BY = "methods", "controls"
Scores = dict[tuple[str, ...], list[float]]


def all_ways() -> dict[str, Method]:
    """The package's methods as they are made by default; each overlay, each way to hide what is outside, and both edits."""
    found: dict[str, Method] = {UNSTEERED: Unsteered()}
    for name, method in all_methods().items():
        if not method.__module__.startswith("cmllm_tools."):
            continue
        if method is Drawn:
            found |= {f"{name} {each}": Drawn(each, alpha=MASK_ALPHA if each == "mask" else 255) for each in OVERLAYS}
        elif method is OutsideHidden:
            found |= {f"{name} {fill}": OutsideHidden(fill) for fill in FILLS}
        elif method is AttentionEdit:
            found |= {f"{name} {edit}": AttentionEdit(edit=edit) for edit in ("logits", "weights")}
        else:
            found[name] = method()
    return found


def evaluate_ways(
    count: int | None = None,
    mllm: Mllm | None = None,
    *,
    methods: dict[str, Method] | None = None,
    kinds: Sequence[str] = REGION_KINDS,
    controlled: Sequence[str] | None = None,
    skip: int = 0,
) -> dict[str, Any]:
    """What ways of referring come to on `count` held-out scenes after the first `skip`; a progress bar on stderr.

    Args:
        count: of scenes; all when None.
        mllm: the embedded model when None.
        methods: by name; `all_ways()` when None.
        kinds: of regions, of "box", "mask", "scribble" and "point".
        controlled: names of the methods whose controls (`cm.controls`) are run, with the first of the kinds; those of
            CONTROLLED that are among the methods when None.
        skip: scenes left out before.

    Raises:
        SettingsError: for no scenes, kinds that do not exist, or names that no method has.

    Returns:
        `{"n", "methods": {NAME: {KIND: {"a_or_b", "a_or_b_ci", "describe", "describe_ci", "hallucinated", "damage",
        "damage_ci", "seconds"}}}, "controls": {NAME: {CONTROL: {"follows", "ci"}}}, "seconds"}`. KIND is "image" for a
        method that does not go by the region. *damage*: nats per token by which the names of the scene's objects, together,
        get less likely as descriptions, as the embedded model speaks no language that an unrelated text could be in (see
        `Baseline.moved`). *seconds*: of one answer. *follows*: names the object whose region was given (the other
        one, of "wrong_object"; the one that the scene is about, of all others), and no other. After an interrupt, of the
        scenes that were done, with an entry `interrupted`. The command adds "stopping": `stopping.rule_beside_fixed`.
    """
    started = time.perf_counter()
    count = None if count is None else whole_number(count, "count", least=0)
    skip = whole_number(skip, "skip", least=0)
    kinds = tuple(one_of(each, "Each of the kinds", REGION_KINDS) for each in several(kinds, "kinds must be several"))
    ways = all_ways() if methods is None else _named(methods)
    controlled = [each for each in CONTROLLED if each in ways] if controlled is None else controlled
    if unknown := [each for each in several(controlled, "controlled must be several names") if each not in ways]:
        raise SettingsError(f"controlled must be names of the methods, {', '.join(ways)}; got {unknown}.")
    mllm = load() if mllm is None else mllm
    require(mllm)
    scenes = list(enumerate(zip(held_out(), held_out(DESCRIPTIONS), strict=True)))[skip:][:count]
    if not scenes or not kinds:
        raise SettingsError(f"An evaluation needs at least one scene and kind; got count={count} after skipping {skip}.")
    scores: Scores = defaultdict(list)
    done, interrupted = 0, {}
    try:
        for number, pair in progress_bar(scenes, "scenes", unit="scene"):
            found = _of_scene(mllm, pair, ways, kinds) | _of_controls(mllm, number, pair[0], ways, kinds[0], controlled)
            for key, value in found.items():
                scores[key].append(value)
            done += 1
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = {"interrupted": True}
    return _summary(scores, done) | {"seconds": round(time.perf_counter() - started, 1)} | interrupted


def _named(methods: object) -> dict[str, Method]:
    needs = "methods must be given by name, as {'keys': KeySteering()}"
    return {str(name): as_method(method) for name, method in kind_of(methods, dict, needs).items()}


def _of_scene(
    mllm: Mllm, pair: tuple[ReferringExample, ReferringExample], ways: Mapping[str, Method], kinds: Sequence[str]
) -> dict[tuple[str, ...], float]:
    choice, description = pair
    look = mllm.look(choice.image)
    found: dict[tuple[str, ...], float] = {}
    others = [each for each in choice.objects if each not in choice.names]
    baseline = Baseline(mllm, look, description.question, candidates=(choice.names[0], *others))
    for name, way in ways.items():
        for kind in kinds if way.told else (IMAGE,):
            region = choice.region(kinds[0] if kind == IMAGE else kind)
            chosen, described = (_referred(mllm, look, each.question, region, way) for each in pair)
            figures = {
                "a_or_b": chooses(chosen.answer, choice),
                "describe": names_it(described.answer, choice.names[0]),
                "hallucinated": bool(absent_names(described.answer, choice.objects)),
                "damage": baseline.moved(described)[1],
                "seconds": (chosen.seconds + described.seconds) / 2,
            }
            found |= {(METHODS, name, kind, figure): float(value) for figure, value in figures.items()}
    return found


def _referred(mllm: Mllm, look: Look, question: str, region: Region, way: Method) -> Outcome:
    outcome = refer(mllm, look, question, region, way, progress=False)
    if outcome.interrupted:
        raise KeyboardInterrupt
    return outcome


def _of_controls(
    mllm: Mllm, number: int, choice: ReferringExample, ways: Mapping[str, Method], kind: str, controlled: Sequence[str]
) -> dict[tuple[str, ...], float]:
    """Whether the answer follows the region, of each control; one trial of those by lot."""
    found: dict[tuple[str, ...], float] = {}
    right = choice.names[0]
    other = next(each for each in choice.data["objects"] if each["name"] != right and each["name"] in choice.question)
    x, y, width, height = other["bbox"]
    for name in controlled:
        outcome = refer(mllm, choice.image, choice.question, choice.region(kind), ways[name], progress=False)
        tried = controls(
            mllm,
            outcome,
            image=choice.image,
            candidates=(right, other["name"]),
            wrong=[Box(x, y, x + width, y + height)],
            count=1,
            seed=number,
            progress=False,
        )
        if outcome.interrupted or not tried.complete:
            raise KeyboardInterrupt
        for control in tried.controls:
            names = (other["name"],) if control.name == WRONG else choice.names
            if control.answers:
                follows = strict_match(control.answers[0], names, set(choice.objects) - set(names))
                found[CONTROLLED_BY, name, CONTROLS[control.name]] = float(follows)
    return found


def _summary(scores: Scores, count: int) -> dict[str, Any]:
    result: dict[str, Any] = {"n": count, METHODS: {}, CONTROLLED_BY: {}}
    for (what, name, key, *figure), values in scores.items():
        mean, entry = round(float(np.mean(values)), 4), result[what].setdefault(name, {}).setdefault(key, {})
        if what == CONTROLLED_BY:
            entry |= {"follows": mean, "ci": _rounded(wilson(np.array(np.mean(values)), len(values)))}
            continue
        (of,) = figure
        entry[of] = mean
        if of in ("a_or_b", "describe"):
            entry[f"{of}_ci"] = _rounded(wilson(np.array(np.mean(values)), len(values)))
        elif of == "damage":
            entry["damage_ci"] = _rounded(bootstrap(values))
    return result


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(each), 4) for each in values]
