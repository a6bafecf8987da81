"""Was it the region? What an outcome does beside what its like does elsewhere, by lot, in part, and without the pixels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import SettingsError
from ..inputs.images import ImageSource, read_image
from ..inputs.pixels import hidden, pixels_of_all
from ..inputs.regions import Region, Regions, as_regions
from ..models.interventions import Intervention
from ..models.mllm import Mllm, require
from ..notation import text_table
from ..progress import progress_bar
from ..referring.baseline import Baseline, read_candidates
from ..referring.method import Request
from ..referring.outcome import Outcome
from ..referring.run import refer
from ..referring.target import Target
from ..shown import Fact, Shown
from ..strict import kind_of, several, whole_number, whole_seed
from .intervals import bootstrap, interval_text
from .region_shares import moved_over

# In the order of the table.
REGION, ELSEWHERE, WRONG = "the region", "regions of equal area elsewhere", "the wrong object"
RANDOM, INSIDE, OUTSIDE, REMOVED = "a random direction of equal norm", "inside only", "outside only", "without its pixels"


@dataclass(frozen=True)
class Control:
    """What one control came to.

    Args:
        name: of the control.
        effects: (trial,), change of the first candidate's log-odds against the unsteered model.
        answers: (trial,), where the model answered; of several outcomes none.
        note: why there are no trials; "" where there are.
    """

    name: str
    effects: tuple[float, ...]
    answers: tuple[str, ...] = ()
    note: str = ""

    @property
    def mean(self) -> float:
        """Of the effects."""
        return float(np.mean(self.effects))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean by a bootstrap over the trials; `interval_text` says whether it means anything."""
        low, high = bootstrap(self.effects)
        return float(low), float(high)


@dataclass(frozen=True, eq=False, repr=False)
class Controls(Shown):
    """An outcome's effect beside that of its controls; sizes and intervals, and no verdict.

    Args:
        method: what people call it.
        candidates: answers, of the first of which the log-odds against the others are the effect.
        outcomes: how many outcomes the effects are of; of several each trial is an outcome's mean.
        controls: the first is the region itself.
        complete: False where an interrupt ended it.

    Examples:
        >>> tested = cm.controls(mllm, outcome, candidates=two, count=1, progress=False)
        >>> tested.controls[0].name
        'the region'
    """

    method: str
    candidates: tuple[str, ...]
    outcomes: int
    controls: tuple[Control, ...]
    complete: bool = True

    def __getitem__(self, name: str) -> Control:
        found = next((each for each in self.controls if each.name == name), None)
        if found is None:
            raise SettingsError(f"A control must be one of {', '.join(each.name for each in self.controls)}; got {name!r}.")
        return found

    def cells(self, control: Control) -> list[str]:
        """A control as texts for a table: name, trials, mean effect, its share of the region's, interval or note."""
        if not control.effects:
            return [control.name, "0", "-", "-", control.note]
        own = self.controls[0].mean
        share = f"{control.mean / own:.0%}" if abs(own) > 1e-6 else "-"
        words = "one trial" if len(control.effects) == 1 else interval_text(len(control.effects), control.interval, "+.2f")
        return [control.name, str(len(control.effects)), f"{control.mean:+.2f}", share, words]

    @property
    def head(self) -> list[str]:
        """Headings of `cells`."""
        return ["", "trials", "effect", "of the region's", "95 % interval"]

    def table(self) -> str:
        """One control to a line, as plain text."""
        lines = [text_table([self.head, *map(self.cells, self.controls)], "<>>><")]
        return "\n".join(lines + ["Interrupted: controls are missing."] * (not self.complete))

    def facts(self) -> list[Fact]:
        facts = [
            ("", self.method),
            ("effect", "change in log-odds" + (f" of {self.candidates[0]!r}" if self.candidates else "")),
            ("", f"{self.outcomes} outcomes") if self.outcomes > 1 else ("of the region", f"{self.controls[0].mean:+.2f}"),
        ]
        facts += [(each.name, f"{each.mean:+.2f}") for each in self.controls[1:] if each.effects]
        return facts + [("", "interrupted")] * (not self.complete)

    @classmethod
    def pooled(cls, several_controls: Iterable["Controls"]) -> "Controls":
        """Controls of several outcomes of one method as one: each trial is an outcome's mean; intervals are over them.

        Raises:
            SettingsError: for none, or those of several methods.
        """
        what = "Controls to be pooled must be several, from controls(...)"
        found = [kind_of(each, cls, what) for each in several(several_controls, what)]
        if not found or len({each.method for each in found}) > 1:
            raise SettingsError("Controls to be pooled must be one or more, all of one method.")
        names = dict.fromkeys(control.name for each in found for control in each.controls)
        trials = {name: [c for each in found for c in each.controls if c.name == name] for name in names}
        pooled = tuple(
            Control(name, tuple(each.mean for each in of_name if each.effects), note=of_name[0].note)
            for name, of_name in trials.items()
        )
        return cls(found[0].method, (), sum(each.outcomes for each in found), pooled, all(each.complete for each in found))


def controls(
    mllm: Mllm,
    outcome: Outcome,
    *,
    image: ImageSource | None = None,
    candidates: Sequence[str] = (),
    wrong: Sequence[Regions] = (),
    count: int = 12,
    seed: int = 0,
    progress: bool = True,
) -> Controls:
    """Hold what an outcome does to the answer against what the same method does where it should do nothing.

    - *regions of equal area elsewhere*: the same shape, at places of the image that do not overlap it, drawn by lot;
    - *the wrong object*: the regions that are given for it;
    - *a random direction of equal norm*: noise in place of latent or offsets; of a bias or weights, their numbers at tokens
      drawn by lot;
    - *inside only*, *outside only*: what was done to the visual tokens inside the region, or to the others, alone;
    - *without its pixels*: the method, the same region, and an image in which this has the mean colour; against that image
      unsteered.

    An interrupt ends it with the controls that were done.

    Args:
        mllm: the model that gave the outcome.
        outcome: from `refer`.
        image: the user's image, where the method sends another one; what was sent when None.
        candidates: two or more answers; the effect is on the log-odds of the first against the others. The outcome's answer
            and the unsteered one when there are none.
        wrong: regions of other things, each one region or several.
        count: trials of each control by lot.
        seed: for what is drawn by lot.
        progress: show a progress bar.

    Raises:
        SettingsError: for no outcome, or one of a conversation, a method that sends another image when the user's is
            not given, and an answer that is the unsteered one when there are no candidates.
        PromptError, CaptureError: for an outcome of another model.

    Examples:
        >>> tested = cm.controls(mllm, outcome, candidates=two, wrong=[cm.Box(83, 57, 124, 121)], count=1, progress=False)
        >>> tested.controls[0].mean > tested.controls[1].mean  # the region, against another place
        True
    """
    require(mllm)
    kind_of(outcome, Outcome, "Controls are of an Outcome, as refer(...) gives it")
    if outcome.sent.conversation is not None:
        raise SettingsError(
            "Controls are of one image and one question; this outcome is of a conversation. Refer without one."
        )
    count, rng = whole_number(count, "count", 1, 1000), np.random.default_rng(whole_seed(seed))
    others = [as_regions(each) for each in several(wrong, "The wrong object must be several regions, as [Box(...)]")]
    trials = _Trials(mllm, outcome, _own_image(mllm, outcome, image), candidates)
    planned = trials.planned(others, count, rng)
    done, complete = [], True
    try:
        for plan in progress_bar(planned, "controls", shown=progress, unit="control"):
            done.append(plan())
    except KeyboardInterrupt:
        complete = False
        if not done:
            raise
    return Controls(outcome.method.called(), trials.baseline.candidates, 1, tuple(done), complete)


def _own_image(mllm: Mllm, outcome: Outcome, image: ImageSource | None) -> Image.Image:
    if image is not None:
        return read_image(image)
    sent = outcome.sent.image
    if sent.size == outcome.size:
        again = outcome.method.sent(Request(sent, outcome.question, outcome.regions), mllm).image
        if again is sent:
            return sent
    raise SettingsError(
        f"The image must be given for these controls: {outcome.method.called()} sends another, or it was reopened."
    )


class _Trials:
    """One outcome's controls, each as a call that makes it."""

    def __init__(self, mllm: Mllm, outcome: Outcome, image: Image.Image, candidates: Sequence[str]):
        self.mllm, self.outcome, self.image = mllm, outcome, image
        answers = read_candidates(candidates)
        if not answers:
            plain = str(Baseline(mllm, image, outcome.question).answer)
            answers = (str(outcome.answer), plain)
            if len(set(answers)) < 2 or not all(answers):
                raise SettingsError(
                    f"Candidates must be given where the answer is what the model says by itself; both are {plain!r}. Give "
                    "two answers, the region's first."
                )
        self.baseline = Baseline(mllm, image, outcome.question, candidates=answers)
        self.unsteered = self.baseline.odds()
        self.prompt = outcome.prompt(mllm)

    def planned(
        self, wrong: Sequence[tuple[Region, ...]], count: int, rng: np.random.Generator
    ) -> list[Callable[[], Control]]:
        """The controls, in the order of the table."""
        outcome, layout = self.outcome, self.baseline.prompt.layout
        places = moved_over(layout, outcome.regions)
        chosen = [places[at] for at in rng.permutation(len(places))[:count]]
        return [
            lambda: Control(REGION, (self._effect(outcome),), (str(outcome.answer),)),
            lambda: self._of_regions(ELSEWHERE, chosen, "there is no other place of this size"),
            lambda: self._of_regions(WRONG, wrong, "no region was given for it"),
            lambda: self._changed(RANDOM, self._random(count, rng)),
            lambda: self._changed(INSIDE, self._part(inside=True)),
            lambda: self._changed(OUTSIDE, self._part(inside=False)),
            self._removed,
        ]

    def _effect(self, outcome: Outcome) -> float:
        return self.baseline.odds(outcome) - self.unsteered

    def _of_regions(self, name: str, places: Sequence[tuple[Region, ...]], without: str) -> Control:
        asked = self.outcome.question, self.outcome.method
        found = [refer(self.mllm, self.image, asked[0], place, asked[1], progress=False) for place in places]
        answers = tuple(str(each.answer) for each in found)
        return Control(name, tuple(map(self._effect, found)), answers, "" if places else without)

    def _changed(self, name: str, interventions: Iterable[Intervention]) -> Control:
        effects, answers = [], []
        for each in interventions:
            effects.append(self.baseline.odds_of(self.prompt, each) - self.unsteered)
            answers.append(str(self.mllm.generate(self.prompt, each)))
        note = "" if effects else "nothing is done to the visual tokens one by one"
        return Control(name, tuple(effects), tuple(answers), note)

    def _by_token(self) -> tuple[Intervention, str, torch.Tensor, int] | None:
        """The intervention, with its field that has something for each visual token, and their axis."""
        found = self.outcome.intervention
        if found is None or found.by_token is None:
            return None
        name, axis = found.by_token
        values: torch.Tensor = getattr(found, name)
        return found, name, values, axis % values.dim()

    def _random(self, count: int, rng: np.random.Generator) -> Iterator[Intervention]:
        field = self._by_token()
        if field is None:
            return
        found, name, values, axis = field
        for _ in range(count):
            if axis == values.dim() - 1:
                # A number for each token: others may be out of the range that they must be in.
                other = values.index_select(axis, torch.from_numpy(rng.permutation(values.shape[axis])).to(values.device))
            else:
                noise = torch.from_numpy(rng.standard_normal(tuple(values.shape), np.float32)).to(values)
                other = noise * (values.norm() / noise.norm())
            changed: dict[str, Any] = {name: other}
            yield replace(found, **changed)

    def _part(self, inside: bool) -> Iterator[Intervention]:
        field = self._by_token()
        if field is None:
            return
        found, name, values, axis = field
        sigma = float(getattr(self.outcome.method, "sigma", 0.1))
        weights = Target.of(self.prompt.layout, self.outcome.sent.regions, sigma).weights().clamp(0, 1).to(values)
        kept = weights if inside else 1 - weights
        changed: dict[str, Any] = {name: values * kept.reshape([-1 if at == axis else 1 for at in range(values.dim())])}
        yield replace(found, **changed)

    def _removed(self) -> Control:
        outcome = self.outcome
        without = hidden(self.image, pixels_of_all(outcome.regions, self.image.size, 0.1), "mean")
        baseline = Baseline(self.mllm, without, outcome.question, candidates=self.baseline.candidates)
        found = refer(self.mllm, without, outcome.question, outcome.regions, outcome.method, progress=False)
        return Control(REMOVED, (baseline.odds(found) - baseline.odds(),), (str(found.answer),))
