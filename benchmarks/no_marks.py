"""Attention moves in and the answer leaves: `python -m benchmarks.no_marks [--n 24] [--steered 5] [--json]`.

The embedded model beside `embedded-no-marks`, which was trained on the same scenes with no mark drawn into any. On
held-out scenes ("is the object a A or a B?", both there, the box around one of them), attention is moved into the box in
the lower half of the layers or the upper: what becomes of the answer, what controls say, and by which road it goes. Effects
are changes in log-odds of the box's object against the other one, damage is that of `Baseline.moved`. What takes steps,
and controls, are run on the first scenes alone. See `docs/findings.md`.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

import cmllm_tools as cm
from cmllm_tools.analysis.controls import ELSEWHERE, RANDOM, REGION, REMOVED, WRONG, controls
from cmllm_tools.analysis.intervals import bootstrap
from cmllm_tools.attention.observe import AttentionCall, Observer, observed
from cmllm_tools.bench.heldout import DESCRIPTIONS, held_out
from cmllm_tools.causes import knockout_grid
from cmllm_tools.evaluation.matching import names_it
from cmllm_tools.loading import EMBEDDED, NO_MARKS
from cmllm_tools.models.undisturbed import undisturbed

MODELS = {EMBEDDED: None, NO_MARKS: NO_MARKS}
LOWER, UPPER = (0, 3), (3, 6)
HALVES = {"lower": LOWER, "upper": UPPER}
EDITS: dict[str, cm.Method] = {
    "bias 5, layers 0..2 (3)": cm.methods.AttentionEdit(5.0, layers=LOWER),
    "bias 5, layer 4": cm.methods.AttentionEdit(5.0, layers=(4, 5)),
}
STEERED: dict[str, cm.Method] = {
    "KeySteering, layers 0..2 (3)": cm.methods.KeySteering(layers=LOWER),
    "KeySteering, layers 3..5 (3)": cm.methods.KeySteering(layers=UPPER),
    "ControlMLLM++, layers 0..2 (3)": cm.ControlMLLMPlus(layers=LOWER),
}
LOW, (KEYS, _, LATENT) = next(iter(EDITS)), STEERED
CONTROLLED = (LOW, KEYS)
CONTROLS = (REGION, WRONG, ELSEWHERE, RANDOM, REMOVED)


@dataclass
class Scene:
    """One held-out scene, asked about by one model: the box is around the first of two objects that the question names."""

    mllm: cm.Mllm
    example: cm.bench.ReferringExample
    description: cm.bench.ReferringExample
    number: int

    def __post_init__(self) -> None:
        named = [each for each in self.example.data["objects"] if each["name"] in self.example.question]
        (other,) = (each for each in named if each["name"] not in self.example.names)
        x, y, width, height = other["bbox"]
        self.pair = (self.example.names[0], other["name"])
        self.box, self.wrong = self.example.region("box"), cm.Box(x, y, x + width, y + height)
        self.look = self.mllm.look(self.example.image)
        self.baseline = cm.Baseline(self.mllm, self.look, self.example.question, candidates=self.pair)
        self.prompt = self.baseline.prompt
        self.edits = self.referred(EDITS)

    @cached_property
    def steered(self) -> dict[str, cm.Outcome]:
        """Of what takes steps."""
        return self.referred(STEERED)

    def referred(self, methods: dict[str, cm.Method]) -> dict[str, cm.Outcome]:
        asked = self.mllm, self.look, self.example.question, self.box
        return {name: cm.refer(*asked, method, progress=False) for name, method in methods.items()}

    def effect(self, intervention: cm.Intervention | None) -> float:
        return self.baseline.odds_of(self.prompt, intervention) - self.baseline.log_odds[0]


class KeysAndValues(Observer):
    """What attention meets, kept or put in: keys and values of the visual tokens, by layer."""

    def __init__(self, visual: Sequence[int], put: Mapping[str, Mapping[int, torch.Tensor]] | None = None):
        self.visual, self.put = list(visual), put
        self.found: dict[str, dict[int, torch.Tensor]] = {"key": {}, "value": {}}

    def before(self, call: AttentionCall) -> AttentionCall:
        changed = {}
        for name in self.found:
            states = getattr(call, name)
            if self.put is None:
                self.found[name][call.layer] = states[:, :, self.visual].detach().clone()
            # Tokens of an answer that come one by one bring no visual tokens.
            elif call.layer in self.put.get(name, {}) and states.shape[2] > max(self.visual):
                changed[name] = states.index_copy(2, torch.tensor(self.visual), self.put[name][call.layer])
        return replace(call, **changed)


@dataclass(frozen=True, eq=False)
class Put(cm.Intervention):
    """Keys, values, or both, of another run's visual tokens."""

    put: Any = None

    def opened(self, mllm: cm.Mllm, prompt: cm.Prompt, copies: int = 1) -> AbstractContextManager[None]:
        return observed(mllm, KeysAndValues(prompt.visual, self.put))


class Drawn(Observer):
    """What heads draw at the prompt's last token, kept, or put in, by layer."""

    def __init__(self, last: int, put: Mapping[int, torch.Tensor] | None = None):
        self.last, self.put = last, put
        self.found: dict[int, torch.Tensor] = {}

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        self.found[call.layer] = output[:, self.last].detach().clone()
        if self.put is not None and call.layer in self.put:
            output = output.clone()
            output[:, self.last] = self.put[call.layer]
        return output


def run(scene: Scene, intervention: cm.Intervention | None, *observers: Observer) -> Any:
    """The model's output for the prompt, with states, while something is done to it."""
    with ExitStack() as stack:
        stack.enter_context(undisturbed(scene.mllm.model))
        if intervention is not None:
            stack.enter_context(intervention.opened(scene.mllm, scene.prompt))
        for observer in observers:
            stack.enter_context(observed(scene.mllm, observer))
        return scene.mllm.model(**scene.prompt.inputs, use_cache=False, output_hidden_states=True)


def answers(scene: Scene) -> Iterator[tuple[str, float]]:
    """What is said unsteered and steered, and how far attention moves, in either half of the layers."""
    first, described = (
        scene.baseline.answer,
        scene.mllm.generate(scene.mllm.prepare(scene.look, scene.description.question)),
    )
    yield "unsteered: names one of the two", any(names_it(first, name) for name in scene.pair)
    yield "unsteered: names the box's object", cm.bench.chooses(first, scene.example)
    yield "unsteered: describes one that is there", any(names_it(described, name) for name in scene.example.objects)
    yield from shares(scene, "unsteered", None)
    yield from moved(scene, scene.edits)


def moved(scene: Scene, outcomes: dict[str, cm.Outcome]) -> Iterator[tuple[str, float]]:
    for name, outcome in outcomes.items():
        effect, damage = scene.baseline.moved(outcome)
        yield f"{name}: effect", effect
        yield f"{name}: damage", damage
        yield f"{name}: names the box's object", cm.bench.chooses(str(outcome.answer), scene.example)
        yield f"{name}: names the other", names_it(str(outcome.answer), scene.pair[1])
        yield from shares(scene, name, outcome.intervention)


def shares(scene: Scene, name: str, intervention: cm.Intervention | None) -> Iterator[tuple[str, float]]:
    """Of the last token's attention on the image, what lies in the box, in either half of the layers."""
    for half, (low, high) in HALVES.items():
        found = cm.capture_attention(scene.mllm, scene.prompt, range(low, high), queries="last", latent=intervention)
        yield f"{name}: share in {half} layers", cm.region_share(cm.context_map(found), scene.box)


def steered(scene: Scene) -> Iterator[tuple[str, float]]:
    """The same of what takes steps, the road of ControlMLLM++'s latent, and the effects of controls, one trial each."""
    yield from moved(scene, scene.steered)
    kept = KeysAndValues(scene.prompt.visual)
    run(scene, scene.steered[LATENT].intervention, kept)
    for name, parts in (("keys alone", ["key"]), ("values alone", ["value"]), ("both", ["key", "value"])):
        yield f"latent of ControlMLLM++, {name}", scene.effect(Put({part: kept.found[part] for part in parts}))
    given: dict[str, Any] = {"image": scene.example.image, "candidates": scene.pair, "wrong": [scene.wrong]}
    for name in CONTROLLED:
        outcome = (scene.edits | scene.steered)[name]
        found = controls(scene.mllm, outcome, count=1, seed=scene.number, progress=False, **given)
        for control in CONTROLS:
            if found[control].effects:
                yield f"{name}, {control}", found[control].mean


def roads(scene: Scene) -> Iterator[tuple[str, float]]:
    """Where the bias below acts on the answer's first word: what is drawn there, or where the layers above then look."""
    words = scene.mllm.processor.tokenizer.get_vocab()
    first, second = (words[name.split()[0]] for name in scene.pair)
    last, edit = len(scene.prompt.tokens) - 1, scene.edits[LOW].intervention
    plain, edited = Drawn(last), Drawn(last)
    before, after = run(scene, None, plain), run(scene, edit, edited)

    def odds(output: Any) -> float:
        return float(output.logits[0, -1, first] - output.logits[0, -1, second])

    above = {layer: plain.found[layer] for layer in range(*UPPER)}
    yield "first word, bias 5 below", odds(after) - odds(before)
    yield "first word, the layers above draw what they drew", odds(run(scene, edit, Drawn(last, above))) - odds(before)
    for half, layers in HALVES.items():
        put = {layer: edited.found[layer] for layer in range(*layers)}
        yield f"first word, only what the {half} layers then draw", odds(run(scene, None, Drawn(last, put))) - odds(before)
    norm, head = scene.mllm.model.model.language_model.norm, scene.mllm.model.lm_head
    for name, output in (("unsteered", before), ("bias 5 below", after)):
        said = head(norm(output.hidden_states[UPPER[0]][0, -1])).detach()
        yield f"first word by the lens after layer 2, {name}", float(said[first] - said[second])


def rescued(scene: Scene) -> Iterator[tuple[str, float]]:
    """The bias below with the same one in layer 4 beside it: whether what was lost below can still be read above."""
    edit = scene.edits[LOW].intervention
    both = replace(edit, layers=(*range(*LOWER), 4))
    yield "bias 5, layers 0..2 and 4: effect", scene.effect(both)
    said = str(scene.mllm.generate(scene.prompt, both))
    yield "bias 5, layers 0..2 and 4: names the box's object", cm.bench.chooses(said, scene.example)


def cut(scene: Scene) -> Iterator[tuple[str, float]]:
    """Attention from the answering tokens to the box forbidden in either half of the layers."""
    asked: dict[str, Any] = {"together": True, "candidates": scene.pair, "progress": False}
    found = knockout_grid(scene.mllm, scene.prompt, "answering", scene.box, window=3, step=3, **asked).change[:, 0]
    for half, change in zip(HALVES, found, strict=True):
        yield f"no attention to the box in {half} layers", change


def asked_for(scene: Scene) -> Iterator[tuple[str, float]]:
    """Whether the box's object can still be asked for by name, nothing done and steered."""
    color, kind = scene.pair[0].split()
    ways = {"unsteered": None} | {name: outcome.intervention for name, outcome in scene.edits.items()}
    for question, right, what in (
        (f"what color is the {kind}?", color, "color"),
        (f"what is the {color} object?", kind, "kind"),
    ):
        prompt = scene.mllm.prepare(scene.look, question)
        for name, intervention in ways.items():
            yield f"{name}: its {what}, asked by name", names_it(str(scene.mllm.generate(prompt, intervention)), right)


PARTS = (answers, roads, rescued, cut, asked_for)


def measure(mllm: cm.Mllm, count: int, skip: int = 0, first: int = 0) -> dict[str, np.ndarray]:
    """Each figure (scene,); those of `steered` of the first scenes alone."""
    found: dict[str, list[float]] = defaultdict(list)
    pairs = list(zip(held_out(), held_out(DESCRIPTIONS), strict=True))[skip:][:count]
    for at, pair in enumerate(tqdm(pairs, mllm.name)):
        scene = Scene(mllm, *pair, skip + at)
        for part in (*PARTS, steered) if at < first else PARTS:
            for name, value in part(scene):
                found[name].append(float(value))
    return {name: np.array(values) for name, values in found.items()}


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=24, help="scenes")
    parser.add_argument("--skip", type=int, default=0, help="scenes left out before")
    parser.add_argument("--model", choices=list(MODELS), nargs="+", default=list(MODELS))
    parser.add_argument("--steered", type=int, default=5, metavar="N", help="scenes that steps and controls are run on too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(None if arguments is None else list(arguments))
    found = {name: measure(cm.load(MODELS[name]), options.n, options.skip, options.steered) for name in options.model}
    result = {
        model: {
            name: {"mean": float(values.mean()), "interval": bootstrap(values).tolist(), "n": len(values)}
            for name, values in figures.items()
        }
        for model, figures in found.items()
    }
    if options.json:
        print(json.dumps({"n": options.n, "skip": options.skip, "models": result}))
        return
    for name in next(iter(result.values())):
        each = [result[model][name] for model in result]
        print(f"{name:<62}", *("{:+6.2f} ({:+.2f} to {:+.2f})".format(one["mean"], *one["interval"]) for one in each))


if __name__ == "__main__":
    main()
