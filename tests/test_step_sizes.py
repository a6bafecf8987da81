"""Steps measured by the model's own visual tokens, a rule that ends a run, and a warning where it went the wrong way."""

import warnings
from dataclasses import replace

import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.referring.energy import odds_gain
from cmllm_tools.referring.updates import GradientSteps

REGION = cm.Box(12, 5, 30, 30)


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


@pytest.mark.parametrize("made", [cm.ControlMLLM, cm.ControlMLLMPlus])
def test_the_first_step_is_a_share_of_the_visual_tokens_norm(tiny, made):
    """Of gradient steps exactly; of Adam, whose epsilon shortens it, at most."""
    mllm, prompt = tiny
    settings = {"ema": 1.0} if made is cm.ControlMLLM else {"eps": 1e-12}
    method = made(steps=1, step_size=0.05, relative=True, early_stop=0.0, **settings)
    trace = cm.optimize(mllm, prompt, REGION, method)
    norm = prompt.call.visual_states.norm().item()
    assert trace.steps[-1].latent_norm == pytest.approx(0.05 * norm, rel=1e-3)


def test_a_model_without_settings_of_its_own_has_relative_steps(tiny, mllm):
    for made in (cm.ControlMLLM, cm.ControlMLLMPlus):
        assert made().resolve(tiny[0]).relative is True
        assert made().resolve(tiny[0]).step_size < 1
        # Whoever gives a step size means the published kind.
        assert made(step_size=2.0).resolve(tiny[0]).relative is False
        # The embedded model has its own.
        assert made().resolve(mllm).relative is False
    assert cm.ControlMLLM.published("llava-1.5", "roc").resolve(tiny[0]).relative is False
    assert cm.ControlMLLM.published("llava-1.5", "roc").resolve(tiny[0]).step_size == 400


def test_steps_after_the_first_follow_the_gradient():
    start = torch.zeros(2, 3, 4)
    steps = GradientSteps(start, 2.0, 1.0, False, False, length=True)
    gradient = torch.randn(2, 3, 4)
    steps.update(gradient)
    assert steps.latent.flatten(1).norm(dim=1) == pytest.approx([2.0, 2.0], rel=1e-5)
    before = steps.latent
    steps.update(gradient / 2)
    # Half the gradient, half the step: of each run by its own.
    assert (steps.latent - before).flatten(1).norm(dim=1) == pytest.approx([1.0, 1.0], rel=1e-5)


def test_a_run_ends_once_the_region_is_looked_at_so_many_times_more(mllm):
    scene = cm.demo_scene()
    prompt = mllm.prepare(scene.image, scene.question)
    method = cm.methods.KeySteering(steps=12, step_size=0.02)
    whole = cm.optimize(mllm, prompt, scene.region("box"), method)
    shares = [step.share for step in whole.steps]
    odds = [share / (1 - share) for share in shares]
    assert odds_gain(torch.tensor(shares[:1]), torch.tensor(shares[3:4])).item() == pytest.approx(
        odds[3] / odds[0], rel=1e-4
    )
    until = (odds[3] + odds[4]) / 2 / odds[0]
    stopped = cm.optimize(mllm, prompt, scene.region("box"), replace(method, until=until))
    assert stopped.stopped == "early stop: the region is looked at enough"
    assert len(stopped) == 5
    assert stopped.steps[-1].share == pytest.approx(shares[4], abs=1e-5)
    never = cm.optimize(mllm, prompt, scene.region("box"), replace(method, until=1e9))
    assert (never.stopped, len(never)) == ("finished", 13)


def test_a_run_whose_energy_rose_says_so(tiny, monkeypatch):
    mllm, prompt = tiny
    found = []
    # Against the gradient the energy falls; along it, it rises.
    steps = GradientSteps.update
    for sign in (1, -1):
        monkeypatch.setattr(GradientSteps, "update", lambda self, gradient, sign=sign: steps(self, sign * gradient))
        method = cm.ControlMLLM(steps=2, step_size=0.05, relative=True, early_stop=0.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trace = cm.optimize(mllm, prompt, REGION, method)
        told = [each for each in caught if each.category is cm.EnergyWarning]
        assert bool(told) == trace.rose == (trace.steps[-1].energy > trace.steps[0].energy)
        assert ("it rose" in trace._repr_html_()) == trace.rose
        found += [(trace, told)] if trace.rose else []
    ((trace, told),) = found
    assert "attention was driven out of the regions" in str(told[0].message)
    assert told[0].filename == __file__
    method = replace(method, early_stop=1e-6)
    with pytest.warns(cm.EnergyWarning):
        assert cm.optimize(mllm, prompt, REGION, method).stopped == "early stop: energy rose"


@pytest.mark.parametrize("made", [cm.ControlMLLM, cm.ControlMLLMPlus])
def test_relative_steps_of_a_model_with_settings_of_its_own_are_those_of_others(tiny, mllm, made):
    """Its own step size is no share of a norm."""
    found = made(relative=True).resolve(mllm)
    assert (found.relative, found.step_size) == (True, made().resolve(tiny[0]).step_size)
    assert made(relative=True, step_size=0.5).resolve(mllm).step_size == 0.5
    assert cm.methods.KeySteering().resolve(mllm).step_size == 0.1


@pytest.mark.parametrize("until", [0.5, 1])
def test_a_gain_that_is_there_before_any_step_is_refused(until):
    with pytest.raises(cm.SettingsError, match="until must be 0, or above 1"):
        cm.ControlMLLM(until=until)
    assert cm.ControlMLLM(until=0).until == 0
