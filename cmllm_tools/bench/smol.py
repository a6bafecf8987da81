"""Evaluate `smol` on its held-out sets: its eyes, its answers by itself, and referring by each kind of region."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..analysis.intervals import bootstrap, wilson
from ..data.formats.roc import ReferringExample
from ..errors import SettingsError
from ..evaluation.matching import names_it, strict_match
from ..inputs.regions import REGION_KINDS, Region
from ..layout.region_weights import shares
from ..loading import load
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.scoring import continuation, continuations
from ..models.smol import NAME
from ..models.together import answers_together
from ..progress import progress_bar
from ..referring.baseline import UNRELATED
from ..referring.method import Method, as_method
from ..referring.methods.controlmllm import ControlMLLMPlus
from ..referring.methods.key_steering import KeySteering
from ..referring.outcome import Outcome, Sent
from ..referring.run import refer_each
from ..strict import kind_of, one_of, several, whole_number
from .embedded import SEED, background_box, chooses
from .heldout import DESCRIPTIONS
from .smol_sets import SEEN, SETS, UNSEEN, smol_held_out, smol_names

BACKGROUND = "background"
KINDS = (*REGION_KINDS, BACKGROUND)
# Visual tokens of which the object covers this share should carry its word.
COVERED = 0.5

# What was found on each scene, by style, method, kind of region and figure.
Scores = dict[tuple[str, ...], list[float]]


def evaluate_smol(
    count: int | None = None,
    mllm: Mllm | None = None,
    *,
    methods: Mapping[str, Method] | None = None,
    kinds: Sequence[str] = KINDS,
    styles: Sequence[str] = SETS,
    skip: int = 0,
) -> dict[str, Any]:
    """Accuracies on `count` held-out scenes of each style after the first `skip` (all when None); a progress bar on stderr.

    Args:
        count: of scenes.
        mllm: `load("smol")` when None.
        methods: by name; KeySteering and ControlMLLMPlus when None.
        kinds: of regions, of "box", "mask", "scribble", "point" and, as a control, "background": a box where nothing is.
        styles: "seen_styles", "held_out_style", or both.
        skip: scenes left out before.

    Raises:
        SettingsError: for no scenes, kinds or styles that do not exist, or what are no methods.

    Returns:
        `{"n", "weights", "tower": {STYLE: share}, "unsteered": {...}, METHOD: {KIND: {...}}, "held_out_style": {the same},
        "seconds"}`. *tower*: of the visual tokens that the object covers, those whose nearest name is its own. *names*:
        names a thing of the scene and none that is absent. *a_or_b*: names the thing referred to and no other of the scene,
        with its 95 % interval. *describe*: names it. *damage*: nats per token by which a text that has nothing to do with
        the picture gets less likely. After an interrupt, of the scenes that were done, with an entry `interrupted`.
    """
    started = time.perf_counter()
    count = None if count is None else whole_number(count, "count", least=0)
    skip = whole_number(skip, "skip", least=0)
    kinds, styles = _some(kinds, "kinds", KINDS), _some(styles, "styles", SETS)
    needs = "methods must be given by name, as {'keys': KeySteering()}"
    chosen = kind_of(methods or {"key_steering": KeySteering(), "controlmllm_plus": ControlMLLMPlus()}, dict, needs)
    chosen = {name: as_method(method) for name, method in chosen.items()}
    if mllm is None:
        mllm = load(NAME)
    require(mllm)
    scenes = [
        (style, number, *pair)
        for style in styles
        for number, pair in enumerate(zip(smol_held_out(style), smol_held_out(style, DESCRIPTIONS), strict=True))
        if number >= skip and (count is None or number < skip + count)
    ]
    if not scenes:
        raise SettingsError(f"An evaluation needs at least one scene; got count={count} after skipping {skip}.")
    scores: Scores = defaultdict(list)
    done, interrupted = 0, {}
    try:
        for style, number, choice, name in progress_bar(scenes, "scenes"):
            for key, value in _of_scene(mllm, number, choice, name, chosen, kinds).items():
                scores[(style, *key)] += value
            done += 1
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = {"interrupted": True}
    seconds = round(time.perf_counter() - started, 1)
    found = {style: _summary(scores, style, tuple(chosen), kinds) for style in styles if (style, "tower") in scores}
    return {
        "n": len(scores[styles[0], "unsteered", "a_or_b"]),
        "weights": mllm.revision,
        "tower": {style: round(float(np.mean(scores[style, "tower"])), 4) for style in found},
        **found.get(SEEN, {}),
        **({UNSEEN: found[UNSEEN]} if UNSEEN in found else {}),
        "seconds": seconds,
        **interrupted,
    }


def _some(given: object, what: str, known: Sequence[str]) -> tuple[str, ...]:
    """One or several of what there is."""
    found = several(given, f"{what} must be several of {', '.join(known)}")
    if not found:
        raise SettingsError(f"{what} must be some of {', '.join(known)}; got none.")
    return tuple(one_of(each, f"Each of the {what}", known) for each in found)


def _of_scene(
    mllm: Mllm,
    number: int,
    choice: ReferringExample,
    name: ReferringExample,
    methods: Mapping[str, Method],
    kinds: Sequence[str],
) -> Scores:
    scores: Scores = defaultdict(list)
    look = mllm.look(choice.image)
    prompts = [mllm.prepare(look, example.question) for example in (choice, name)]
    scores["tower",] = words_right(mllm, prompts[0], choice)
    answers = [str(answer) for answer in answers_together(mllm, prompts, 64)]
    scores["unsteered", "a_or_b"].append(chooses(answers[0], choice))
    absent = set(smol_names()) - set(choice.objects)
    scores["unsteered", "names"].append(strict_match(answers[1], (*choice.objects, *choice.names), absent))
    # Of a text that has nothing to do with any picture, after the picture.
    plain = continuation(mllm, prompts[1], UNRELATED[0]).mean().item()
    control = background_box(choice, np.random.default_rng([SEED, number]))
    regions: list[Region] = [control if kind == BACKGROUND else choice.region(kind) for kind in kinds]
    for method, how in methods.items():
        chosen, named = (refer_each(mllm, look, each.question, regions, how, progress=False) for each in (choice, name))
        if any(outcome.interrupted for outcome in (*chosen, *named)):
            raise KeyboardInterrupt
        damage = [plain - each for each in _language(mllm, prompts[1], named)]
        for kind, first, second, worse in zip(kinds, chosen, named, damage, strict=True):
            key = (method, kind)
            scores[*key, "a_or_b"].append(chooses(str(first.answer), choice))
            scores[*key, "describe"].append(any(names_it(str(second.answer), each) for each in choice.names))
            scores[*key, "damage"].append(worse)
    return scores


def words_right(mllm: Mllm, prompt: Prompt, example: ReferringExample) -> list[float]:
    """For each visual token that the object covers, whether the name nearest to it among all names is the object's."""
    weights = shares(example.region("mask"), prompt.layout.boxes, prompt.layout.image_size)
    covered = np.nonzero(weights >= COVERED)[0]
    if not len(covered):
        return []
    tokenizer, names = mllm.processor.tokenizer, smol_names()
    ids = [tokenizer(f" {each}", add_special_tokens=False)["input_ids"][0] for each in (*names, ".")]
    with torch.inference_mode():
        known = mllm.model.get_input_embeddings().weight[ids].float()
        pixels = prompt.inputs["pixel_values"].to(mllm.model.dtype)
        seen = mllm.model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output[0].float()
        # Words have much in common, which says nothing.
        middle = known.mean(0)
        near = torch.nn.functional.cosine_similarity((seen[covered] - middle)[:, None], (known - middle)[None], dim=-1)
    wanted = names.index(example.names[0])
    return [float(each == wanted) for each in near.argmax(-1).tolist()]


def _language(mllm: Mllm, prompt: Prompt, outcomes: Sequence[Outcome]) -> list[float]:
    """Log-probability per token of a text that has nothing to do with any picture, as each answer was steered.

    Args:
        prompt: of image and question as they were given; what a method made of them is prepared anew.
    """
    given = Sent.of(prompt.image, prompt.question, prompt.text, ())
    if all((each.sent.image_hash, each.sent.text) == (given.image_hash, given.text) for each in outcomes):
        found = continuations(mllm, prompt, UNRELATED[0], [outcome.intervention for outcome in outcomes])
        return found.mean(-1).tolist()
    return [continuation(mllm, each.prompt(mllm), UNRELATED[0], each.intervention).mean().item() for each in outcomes]


def _summary(scores: Scores, style: str, methods: Sequence[str], kinds: Sequence[str]) -> dict[str, Any]:
    def mean(*key: str) -> float:
        return round(float(np.mean(scores[style, *key])), 4)

    def right(*key: str) -> dict[str, Any]:
        low, high = wilson(np.array(np.mean(scores[style, *key])), len(scores[style, *key]))
        return {key[-1]: mean(*key), f"{key[-1]}_ci": [round(float(low), 4), round(float(high), 4)]}

    return {
        "unsteered": {"names": mean("unsteered", "names"), **right("unsteered", "a_or_b")},
        **{
            method: {
                kind: {
                    **right(method, kind, "a_or_b"),
                    **right(method, kind, "describe"),
                    "damage": mean(method, kind, "damage"),
                    "damage_ci": np.round(bootstrap(scores[style, method, kind, "damage"]), 4).tolist(),
                }
                for kind in kinds
            }
            for method in methods
        },
    }
