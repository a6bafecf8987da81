"""Controls of an outcome: equal in what they say, different in what they should do; sizes and intervals, no verdict."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.analysis.controls import ELSEWHERE, INSIDE, OUTSIDE, RANDOM, REGION, REMOVED, WRONG, Control, _Trials
from cmllm_tools.inputs.pixels import hidden

CANDIDATES = "red cross", "blue zero"
EDIT = cm.methods.AttentionEdit(3.0)


@pytest.fixture(scope="module")
def choice():
    return cm.bench.held_out()[7]


@pytest.fixture(scope="module")
def wrong(choice):
    x, y, width, height = next(each["bbox"] for each in choice.data["objects"] if each["name"] == "blue zero")
    return cm.Box(x, y, x + width, y + height)


@pytest.fixture(scope="module")
def outcome(mllm, choice):
    return cm.refer(mllm, choice.image, choice.question, choice.region("box"), EDIT)


@pytest.fixture(scope="module")
def found(mllm, outcome, wrong):
    return cm.controls(mllm, outcome, candidates=CANDIDATES, wrong=[wrong], count=3, progress=False)


@pytest.mark.slow
def test_effects_are_changes_of_log_odds(mllm, choice, outcome, found, wrong):
    baseline = cm.Baseline(mllm, choice.image, choice.question, candidates=CANDIDATES)
    plain = baseline.unsteered(wrong).log_odds[0]
    assert [each.name for each in found.controls] == [REGION, ELSEWHERE, WRONG, RANDOM, INSIDE, OUTSIDE, REMOVED]
    assert [len(each.effects) for each in found.controls] == [1, 3, 1, 3, 1, 1, 1]
    assert found[REGION].effects == pytest.approx((baseline.effect(outcome).log_odds[0] - plain,), abs=1e-4)
    other = cm.refer(mllm, choice.image, choice.question, wrong, EDIT)
    assert found[WRONG].effects == pytest.approx((baseline.effect(other).log_odds[0] - plain,), abs=1e-4)
    assert found[WRONG].answers == (other.answer,)
    without = hidden(choice.image, choice.region("box").cover(*choice.image.size) > 0.5, "mean")
    removed = cm.Baseline(mllm, without, choice.question, candidates=CANDIDATES)
    again = cm.refer(mllm, without, choice.question, choice.region("box"), EDIT)
    expected = removed.effect(again).log_odds[0] - removed.unsteered(wrong).log_odds[0]
    assert found[REMOVED].effects == pytest.approx((expected,), abs=1e-4)


def test_the_object_tells_from_its_controls(found):
    """On the embedded model the answer moves towards the region's object, and towards the other with its region."""
    own = found[REGION].mean
    assert own > 1
    assert found[WRONG].mean < -0.5
    assert abs(found[RANDOM].mean) < own / 3
    assert abs(found[REMOVED].mean) < own / 3
    assert found[INSIDE].mean > found[OUTSIDE].mean


@pytest.mark.slow
def test_parts_add_up_and_directions_have_the_same_norm(mllm, choice):
    box = choice.region("box")
    for way in (EDIT, cm.ControlMLLMPlus(steps=1), cm.methods.KeySteering(steps=1), cm.methods.PromptHighlighter()):
        outcome = cm.refer(mllm, choice.image, choice.question, box, way, max_new_tokens=1)
        trials = _Trials(mllm, outcome, choice.image, CANDIDATES)
        name, axis = outcome.intervention.by_token
        values = getattr(outcome.intervention, name)
        inside, outside = (getattr(next(trials._part(inside=each)), name) for each in (True, False))
        assert torch.allclose(inside + outside, values, atol=1e-6)
        weights = torch.from_numpy(outcome.prompt(mllm).layout.inside(box))
        assert not inside.movedim(axis, 0)[weights == 0].any()
        assert not outside.movedim(axis, 0)[weights == 1].any()
        one, two = (getattr(each, name) for each in trials._random(2, np.random.default_rng(0)))
        assert one.norm().item() == pytest.approx(values.norm().item(), rel=1e-4)
        assert not torch.equal(one, two) and not torch.equal(one, values)


@dataclass(frozen=True)
class Blind(cm.Method):
    """Does the same wherever the region is."""

    def intervention(self, mllm, prompt, regions):
        states = prompt.call.visual_states
        return cm.LatentAdded(0.3 * states.float().std() * torch.ones_like(states))


@pytest.mark.slow
def test_a_method_that_does_not_heed_the_region_is_found_out(mllm, choice, wrong):
    outcome = cm.refer(mllm, choice.image, choice.question, choice.region("box"), Blind(), max_new_tokens=4)
    found = cm.controls(mllm, outcome, candidates=CANDIDATES, wrong=[wrong], count=2, progress=False)
    own = found[REGION].mean
    assert found[ELSEWHERE].effects == pytest.approx((own, own), abs=1e-4)
    assert found[WRONG].mean == pytest.approx(own, abs=1e-4)


@pytest.mark.slow
def test_what_has_no_control_says_why(mllm, choice):
    everywhere = cm.Box(0, 0, choice.image.width, choice.image.height)
    outcome = cm.refer(mllm, choice.image, choice.question, everywhere, cm.methods.Words("pixel"), max_new_tokens=2)
    found = cm.controls(mllm, outcome, candidates=CANDIDATES, count=2, progress=False)
    assert found[ELSEWHERE].note == "there is no other place of this size"
    assert found[WRONG].note == "no region was given for it"
    assert found[INSIDE].note == "nothing is done to the visual tokens one by one"
    assert "no region was given for it" in found.table()


def test_controls_are_shown_and_pooled(found):
    table = found.table()
    assert table.count("\n") == len(found.controls)
    assert "n = 3: too few for an interval" in table
    assert ELSEWHERE in found._repr_html_()
    pooled = cm.Controls.pooled([found] * 12)
    assert (pooled.outcomes, len(pooled[REGION].effects)) == (12, 12)
    assert "all 12 alike: no interval" in pooled.table()
    many = Control("many", tuple(np.linspace(0, 1, 30)))
    low, high = many.interval
    assert low < many.mean < high
    with pytest.raises(cm.SettingsError, match="Controls to be pooled must be one or more, all of one method"):
        cm.Controls.pooled([])
    with pytest.raises(cm.SettingsError, match="A control must be one of the region"):
        found["nothing"]


def test_an_interrupt_leaves_the_controls_that_were_done(mllm, outcome, monkeypatch):
    def interrupt(self, *given):
        raise KeyboardInterrupt

    monkeypatch.setattr(_Trials, "_of_regions", interrupt)
    found = cm.controls(mllm, outcome, candidates=CANDIDATES, count=1, progress=False)
    assert [each.name for each in found.controls] == [REGION]
    assert not found.complete
    assert "Interrupted: controls are missing." in found.table()


@pytest.mark.slow
def test_what_cannot_be_controlled_is_refused(mllm, choice, outcome, tmp_path):
    box = choice.region("box")
    with pytest.raises(
        cm.SettingsError, match="Candidates must be given where the answer is what the model says by itself"
    ):
        cm.controls(mllm, outcome, progress=False)
    cropped = cm.refer(mllm, choice.image, choice.question, box, cm.methods.OutsideHidden(), max_new_tokens=1)
    with pytest.raises(cm.SettingsError, match="The image must be given for these controls: outside hidden sends another"):
        cm.controls(mllm, cropped, candidates=CANDIDATES)
    found = cm.controls(mllm, cropped, image=choice.image, candidates=CANDIDATES, count=1, progress=False)
    assert found[REGION].effects
    with pytest.raises(cm.SettingsError, match="Controls are of an Outcome"):
        cm.controls(mllm, "red")
    large = choice.image.resize((600, 600))
    whole = cm.refer(mllm, large, choice.question, cm.Box(0, 0, 100, 100), cm.methods.Words(), max_new_tokens=1)
    reopened = cm.Outcome.load(whole.save(tmp_path / "outcome.safetensors"))
    with pytest.raises(cm.PromptError, match=r"must be whole to be sent again, \(600, 600\); its file kept a copy of"):
        reopened.prompt(mllm)


def test_an_outcome_of_a_conversation_is_refused(mllm, choice):
    talk = [{"role": "user", "content": [choice.image, choice.question]}]
    outcome = cm.refer(mllm, talk, None, choice.region("box"), EDIT, max_new_tokens=1)
    with pytest.raises(cm.SettingsError, match="this outcome is of a conversation"):
        cm.controls(mllm, outcome, candidates=CANDIDATES, progress=False)
