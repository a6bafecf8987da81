"""When to stop: one rule for all models beside fixed numbers of steps, each of which may be another model's best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ..data.formats.roc import ReferringExample
from ..errors import SettingsError
from ..loading import EMBEDDED, load
from ..models.mllm import Mllm, require
from ..models.smol import NAME
from ..progress import progress_bar
from ..referring.baseline import Baseline
from ..referring.energy import odds_gain
from ..referring.latent_method import LatentMethod, given_latent_method
from ..referring.methods.controlmllm import ControlMLLMPlus
from ..referring.methods.key_steering import KeySteering
from ..referring.steering import Steering
from ..strict import kind_of, number, one_of, several, whole_number, whole_numbers
from .embedded import chooses
from .heldout import held_out
from .sentences import SAYS, Says, as_says
from .smol_sets import smol_held_out

# How many times what it was attention in the region, against that elsewhere, may become.
GAINS = (2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0)
# Effects may differ by so much where the more cautious rule is taken.
EQUAL = 0.02
WAYS: dict[str, Callable[..., LatentMethod]] = {
    "KeySteering": KeySteering,
    "ControlMLLMPlus": partial(ControlMLLMPlus, relative=True),
}
# Step size and fixed numbers of steps of each: as small as the model needs that is moved most easily, and as many as the
# other takes.
STEPS: dict[str, dict[str, tuple[float, tuple[int, ...]]]] = {
    "KeySteering": {EMBEDDED: (0.02, (1, 2, 4, 8, 15)), NAME: (0.004, (1, 2, 3, 5, 8))},
    "ControlMLLMPlus": {EMBEDDED: (0.03, (2, 5, 10, 20)), NAME: (0.02, (1, 2, 3, 5))},
}
# Scenes of `smol` that its step sizes were chosen on.
TRIED = 4


@dataclass(frozen=True, eq=False)
class Stops:
    """What each way of stopping comes to, scene by scene.

    Args:
        gains: rules: the gains in odds at which a run ends.
        steps: fixed numbers of steps.
        right: (way, scene), whether the answer names the region's object and no other; first the rules, then the fixed.
        effect: (way, scene), change of its log-odds.
        taken: (way, scene), the steps that were taken.
    """

    gains: tuple[float, ...]
    steps: tuple[int, ...]
    right: np.ndarray
    effect: np.ndarray
    taken: np.ndarray

    def of(self, scenes: slice) -> "Stops":
        """Of some of the scenes."""
        return replace(self, right=self.right[:, scenes], effect=self.effect[:, scenes], taken=self.taken[:, scenes])

    def best_rule(self) -> float:
        """The gain with most right answers; of those within EQUAL of it, the smallest."""
        right = self.right[: len(self.gains)].mean(1)
        return self.gains[int(np.argmax(right >= right.max() - EQUAL))]

    def summary(self, gain: float) -> dict[str, Any]:
        """Right answers with a rule, and with the fixed number of steps that is best on these very scenes."""
        at, fixed = self.gains.index(gain), self.right[len(self.gains) :].mean(1)
        best = int(fixed.argmax())

        def mean(values: np.ndarray) -> float:
            return round(float(values.mean()), 4)

        return {
            "n": self.right.shape[1],
            "rule": mean(self.right[at]),
            "best_fixed": mean(fixed[best]),
            "gain": gain,
            "rule_effect": mean(self.effect[at]),
            "rule_steps": mean(self.taken[at]),
            "fixed_steps": self.steps[best],
            "fixed_effect": mean(self.effect[len(self.gains) + best]),
            "by_fixed": {str(count): mean(self.right[len(self.gains) + k]) for k, count in enumerate(self.steps)},
            "by_gain": {f"{each:g}": mean(self.right[k]) for k, each in enumerate(self.gains)},
        }


def stops(
    mllm: Mllm,
    scenes: Sequence[ReferringExample],
    method: LatentMethod,
    steps: Sequence[int],
    *,
    says: Says = str,
    gains: Sequence[float] = GAINS,
) -> Stops:
    """Run a method once for each scene, in small steps without end, and look at its answers where each rule would end it.

    Args:
        mllm: the model.
        scenes: whose question names what to choose from.
        method: with as many steps as the longest fixed run, and small ones.
        steps: fixed numbers of steps.
        says: the answer that names a thing, from its name.
        gains: of the rules.

    Raises:
        SettingsError: for no scenes, gains or steps, or fixed runs longer than the method's.
        UnsupportedModelError: for what is no model.
    """
    require(mllm)
    chosen = [
        kind_of(each, ReferringExample, "A scene must be a ReferringExample, as read_roc gives them")
        for each in several(scenes, "scenes must be several")
    ]
    counts = whole_numbers(steps, "steps", least=1)
    rules = tuple(number(each, "Each of the gains", above=0) for each in several(gains, "gains must be several numbers"))
    taken = given_latent_method(method, KeySteering())
    if not chosen or not counts or not rules or max(counts) > taken.resolve(mllm).steps:
        raise SettingsError(
            "Stops need a scene or more, a gain, a number of steps, and a method of at least as many as the longest fixed "
            "run."
        )
    found = [_of_scene(mllm, scene, taken, counts, as_says(says), rules) for scene in progress_bar(chosen, "stops")]
    return Stops(rules, counts, *np.stack(found, -1))


def rule_beside_fixed(
    count: int, smol: int = 0, mllm: Mllm | None = None, *, way: str = "KeySteering"
) -> dict[str, dict[str, Any]]:
    """The rule for a way, chosen on the first half of the embedded model's scenes, on the other half and on `smol`.

    Args:
        count: scenes of the embedded model, two or more.
        smol: scenes of `smol` after the first four, which takes seconds for each answer; 0 leaves it out.
        mllm: the embedded model when None.
        way: "KeySteering" or "ControlMLLMPlus".

    Returns:
        `Stops.summary` of the scenes it was "chosen_on", and by model: "rule" and "best_fixed" are shares of right answers.

    Raises:
        SettingsError: for fewer than two scenes, or another way.
    """
    whole_number(count, "count, one half of which chooses the rule that is shown on the other,", 2)
    whole_number(smol, "smol", 0)
    one_of(way, "way", tuple(WAYS))
    found = _in_small_steps(load() if mllm is None else mllm, EMBEDDED, held_out()[:count], way)
    chosen_on, others = found.of(slice(count // 2)), found.of(slice(count // 2, None))
    gain = chosen_on.best_rule()
    result = {"chosen_on": chosen_on.summary(gain), EMBEDDED: others.summary(gain)}
    if smol:
        scenes = smol_held_out()[TRIED : TRIED + smol]
        result[NAME] = _in_small_steps(load(NAME), NAME, scenes, way).summary(gain)
    return result


def _in_small_steps(mllm: Mllm, model: str, scenes: Sequence[ReferringExample], way: str) -> Stops:
    size, fixed = STEPS[way][model]
    return stops(mllm, scenes, WAYS[way](steps=fixed[-1], step_size=size), fixed, says=SAYS[model])


def _of_scene(
    mllm: Mllm,
    scene: ReferringExample,
    method: LatentMethod,
    steps: tuple[int, ...],
    says: Says,
    gains: tuple[float, ...],
) -> np.ndarray:
    """(figure, way): whether right, effect, steps taken."""
    right = scene.names[0]
    other = next(name for name in scene.objects if name not in scene.names and name in scene.question)
    candidates = [says(name) for name in (right, other)]
    baseline = Baseline(mllm, mllm.look(scene.image), scene.question, candidates=candidates)
    run = Steering(mllm, baseline.prompt, scene.region("box"), replace(method, early_stop=0.0, until=0.0))
    latents, reached = [], []
    for step in run:
        latents.append(run.intervention)
        first = run.trace.steps[0].share
        reached.append(odds_gain(torch.tensor(first), torch.tensor(step.share)).item())
    last = len(latents) - 1
    ends = [next((at for at, gain in enumerate(reached) if at and gain >= wanted), last) for wanted in gains]
    measured: dict[int, tuple[float, float]] = {}
    for at in {*ends, *steps}:
        answer = mllm.generate(baseline.prompt, latents[at], max_new_tokens=16)
        effect = baseline.odds_of(baseline.prompt, latents[at]) - baseline.log_odds[0]
        measured[at] = float(chooses(answer, scene)), effect
    return np.array([[*measured[at], at] for at in [*ends, *steps]]).T
