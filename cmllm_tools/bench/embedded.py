"""Evaluate the embedded model on its held-out set: unsteered, marked, and steered by each kind of region."""

import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..data.formats.roc import ReferringExample
from ..errors import SettingsError
from ..evaluation.matching import names_it, strict_match
from ..inputs.marks import marked
from ..inputs.overlays import OVERLAYS
from ..inputs.regions import REGION_KINDS, Box, Region
from ..loading import load
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..progress import progress_bar
from ..referring.latent_method import LatentMethod, given_latent_method
from ..referring.methods.controlmllm import ControlMLLM, ControlMLLMPlus
from ..referring.methods.key_steering import KeySteering
from ..referring.steering import optimize
from ..strict import kind_of, one_of, several, whole_number
from .heldout import DESCRIPTIONS, held_out, vocabulary

CONTROL = "random_background"
SEED = 0


def evaluate(
    count: int | None = None,
    mllm: Mllm | None = None,
    methods: dict[str, LatentMethod] | None = None,
    regions: Sequence[str] = (*REGION_KINDS, CONTROL),
    skip: int = 0,
) -> dict[str, Any]:
    """Accuracies on `count` held-out scenes after the first `skip` (all when None), as fractions; a progress bar on stderr.

    Raises:
        SettingsError: for no scenes, a kind of region that does not exist, or what are no methods.

    Returns:
        `{"n", "unsteered": {"describe_valid", "a_or_b", "marked", "marked_by_overlay"}, METHOD: {REGION: {"a_or_b",
        "describe", "hallucinated"}}, "seconds"}`. *describe_valid*: names an object of the scene and nothing absent.
        *a_or_b*: names the referred object and not the other. *marked*: describes the object that carries an overlay.
        *describe*: names the referred object; *hallucinated*: names something absent. After an interrupt, of the scenes
        that were done, with an entry `interrupted`.

    Examples:
        >>> found = cm.bench.evaluate(1, mllm, {"plus": cm.ControlMLLMPlus(steps=2)}, regions=["box"])
        >>> found["n"], sorted(found["plus"]["box"])
        (1, ['a_or_b', 'describe', 'hallucinated'])
    """
    started = time.perf_counter()
    count = None if count is None else whole_number(count, "count", least=0)
    skip = whole_number(skip, "skip", least=0)
    wanted = several(regions, "regions must be several kinds, as ('box', 'mask')")
    regions = [one_of(kind, "Each of the regions", (*REGION_KINDS, CONTROL)) for kind in wanted]
    if mllm is not None:
        require(mllm)
    methods = (
        {} if methods is None else kind_of(methods, dict, "methods must be given by name, as {'plus': ControlMLLMPlus()}")
    )
    methods = {name: given_latent_method(method, ControlMLLM()) for name, method in methods.items()}
    methods = methods or {
        "controlmllm": ControlMLLM(),
        "controlmllm_plus": ControlMLLMPlus(),
        "key_steering": KeySteering(),
    }
    mllm = mllm or load()
    pairs = list(zip(held_out(), held_out(DESCRIPTIONS), strict=True))[skip:][:count]
    if not pairs:
        raise SettingsError(f"An evaluation needs at least one scene; got count={count} after skipping {skip}.")
    scores: Scores = defaultdict(list)
    done, interrupted = 0, {}
    try:
        for choice, description in progress_bar(pairs, "scenes"):
            of_scene = _scene_scores(mllm, done, choice, description, methods, regions)
            for key, right in of_scene.items():
                scores[key] += right
            done += 1
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = {"interrupted": True}
    return _summary(scores, done, tuple(methods), regions, time.perf_counter() - started) | interrupted


# Whether each answer was right, by what was done for it.
Scores = dict[tuple[str, ...], list[bool]]


def _scene_scores(
    mllm: Mllm,
    number: int,
    choice: ReferringExample,
    description: ReferringExample,
    methods: dict[str, LatentMethod],
    regions: Sequence[str],
) -> dict[tuple[str, ...], list[bool]]:
    scores: Scores = defaultdict(list)
    rng = np.random.default_rng([SEED, number])
    # Both questions are about one image.
    look = mllm.look(choice.image)
    prompts = {
        "a_or_b": mllm.prepare(look, choice.question),
        "describe": mllm.prepare(look, description.question),
    }
    _score_unsteered(scores, mllm, prompts, choice)
    _score_marked(scores, mllm, description, OVERLAYS[number % len(OVERLAYS)], rng)
    control = background_box(choice, rng)
    for kind in regions:
        region = control if kind == CONTROL else choice.region(kind)
        for name, method in methods.items():
            _score_steered(scores, (name, kind), mllm, prompts, choice, region, method)
    return scores


def _score_unsteered(scores: Scores, mllm: Mllm, prompts: dict[str, Prompt], example: ReferringExample) -> None:
    described = mllm.generate(prompts["describe"])
    named = any(names_it(described, name) for name in example.objects)
    scores["unsteered", "describe_valid"].append(named and not absent_names(described, example.objects))
    scores["unsteered", "a_or_b"].append(chooses(mllm.generate(prompts["a_or_b"]), example))


def _score_marked(scores: Scores, mllm: Mllm, example: ReferringExample, overlay: str, rng: np.random.Generator) -> None:
    mask = example.region("mask").cover(*example.image.size) > 0
    answer = mllm.generate(mllm.prepare(marked(example.image, mask, overlay, rng), example.question))
    scores["marked", overlay].append(names_it(answer, example.names[0]))


def _score_steered(
    scores: Scores,
    key: tuple[str, str],
    mllm: Mllm,
    prompts: dict[str, Prompt],
    example: ReferringExample,
    region: Region,
    method: LatentMethod,
) -> None:
    answers = {}
    for question, prompt in prompts.items():
        trace = optimize(mllm, prompt, region, method)
        if trace.stopped == "interrupted":
            # `optimize` keeps what it has, but a run that was cut short is no result.
            raise KeyboardInterrupt
        answers[question] = mllm.generate(prompt, trace)
    scores[*key, "a_or_b"].append(chooses(answers["a_or_b"], example))
    scores[*key, "describe"].append(names_it(answers["describe"], example.names[0]))
    scores[*key, "hallucinated"].append(bool(absent_names(answers["describe"], example.objects)))


def chooses(answer: str, example: ReferringExample) -> bool:
    """Whether an answer to "a A or a B?" names the referred object and no other of the scene.

    Examples:
        >>> scene = cm.bench.demo_scene()
        >>> cm.bench.chooses("a red cross", scene), cm.bench.chooses("a blue zero", scene)
        (True, False)
    """
    return strict_match(answer, example.names, set(example.objects) - set(example.names))


def absent_names(answer: str, objects: Sequence[str]) -> list[str]:
    """Names in an answer, colour and kind, of which the scene has no object."""
    colors, kinds = vocabulary()
    pairs = [f"{one} {two}" for one, two in pairwise(answer.split()) if one in colors and two in kinds]
    return [pair for pair in pairs if pair not in objects]


def background_box(example: ReferringExample, rng: np.random.Generator) -> Box:
    """A box of the referred object's size, or smaller where there is no room, that touches no object."""
    taken = [thing["bbox"] for thing in example.data["objects"]]
    _, _, width, height = example.data["bbox"]
    for attempt in range(1000):
        shrink = 0.97 ** (attempt // 20)
        w, h = width * shrink, height * shrink
        x, y = rng.uniform(0, example.image.width - w), rng.uniform(0, example.image.height - h)
        if all(x >= a + c or a >= x + w or y >= b + d or b >= y + h for a, b, c, d in taken):
            break
    return Box(x, y, x + w, y + h)


def _summary(scores: Scores, count: int, methods: Sequence[str], regions: Sequence[str], seconds: float) -> dict[str, Any]:
    def mean(*key: str) -> float:
        return round(float(np.mean(scores[key])), 4)

    marked = {overlay: scores["marked", overlay] for overlay in OVERLAYS if ("marked", overlay) in scores}
    return {
        "n": count,
        "unsteered": {
            "describe_valid": mean("unsteered", "describe_valid"),
            "a_or_b": mean("unsteered", "a_or_b"),
            "marked": round(float(np.mean([right for values in marked.values() for right in values])), 4),
            "marked_by_overlay": {overlay: mean("marked", overlay) for overlay in marked},
        },
        **{
            method: {
                kind: {figure: mean(method, kind, figure) for figure in ("a_or_b", "describe", "hallucinated")}
                for kind in regions
            }
            for method in methods
        },
        "seconds": round(seconds, 1),
    }
