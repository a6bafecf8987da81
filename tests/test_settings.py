"""Settings are read where they are given: as plain values, or as an error that says what must hold."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.errors import SigmaError
from cmllm_tools.referring import loop
from cmllm_tools.referring.latent_method import LatentMethod
from cmllm_tools.referring.registry import METHODS, method_from_json, register
from cmllm_tools.referring.updates import GradientSteps

REGION = cm.Box(12, 5, 30, 30)
PLAIN = cm.ControlMLLM(steps=2, step_size=2.0, early_stop=0.0)


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        ({"steps": np.int64(3)}, "steps", 3),
        ({"steps": torch.tensor(3)}, "steps", 3),
        ({"step_size": np.float32(0.5)}, "step_size", 0.5),
        ({"layers": range(0, 2)}, "layers", (0, 2)),
        ({"layers": np.array([1, 3])}, "layers", (1, 3)),
        ({"layers": [1, 3]}, "layers", (1, 3)),
        ({"heads": (head for head in (2, 0))}, "heads", (2, 0)),
        ({"heads": np.array([[0, 1], [2, 3]])}, "heads", ((0, 1), (2, 3))),
        ({"heads": torch.tensor([1, 1, 2])}, "heads", (1, 2)),
        ({"queries": np.int32(7)}, "queries", 7),
        ({"queries": iter(["red", 5])}, "queries", ("red", 5)),
        ({"without": {3}}, "without", (3,)),
        ({"early_stop": 0}, "early_stop", 0.0),
        ({"betas": [np.float64(0.5), 0]}, "betas", (0.5, 0.0)),
    ],
)
def test_settings_become_plain_values_that_can_be_saved(settings, name, expected):
    method = cm.ControlMLLMPlus(**settings)
    value = getattr(method, name)
    assert value == expected
    assert json.loads(json.dumps(value)) == json.loads(json.dumps(expected))
    assert type(value) is type(expected)
    assert method_from_json(json.loads(json.dumps(method.to_json()))) == method
    assert cm.ControlMLLMPlus(**{name: expected}) == method


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": True}, "steps must be a whole number of at least 1; got True"),
        ({"steps": "3"}, "got '3'"),
        ({"steps": 1.0}, r"got 1\.0"),
        ({"step_size": "1"}, "step_size must be a finite number above 0"),
        ({"step_size": float("nan")}, "got nan"),
        ({"heads": "12"}, "Heads must be several numbers"),
        ({"heads": np.array([True, False, True])}, "whole number"),
        ({"heads": (0, 1.5)}, r"got 1\.5"),
        ({"heads": ()}, "one or more numbers"),
        ({"heads": (-1,)}, "at least 0"),
        ({"heads": 3}, "Heads must be several numbers"),
        ({"layers": range(0, 6, 2)}, "range of step 1"),
        ({"layers": range(0)}, "range of step 1"),
        ({"layers": (0, 1, 2)}, "window"),
        ({"layers": (3, 3)}, "window"),
        ({"layers": "03"}, "several whole numbers"),
        ({"layers": (True, 2)}, "whole number"),
        ({"queries": True}, "whole number"),
        ({"queries": ()}, "At least one query token"),
        ({"queries": 1.5}, r"got 1\.5"),
        ({"queries": np.array([False, True])}, "whole number"),
        ({"sigma": -1}, "sigma must be above 0; got -1"),
        ({"sigma": 1e-200}, "sigma must lie in"),
        ({"sigma": 1e300}, "sigma must lie in"),
        ({"rule": "areal"}, "rule must be 'area' or 'reference'"),
        ({"early_stop": float("nan")}, "early_stop must be a finite number of at least 0"),
        ({"early_stop": -0.1}, "early_stop must be"),
        ({"without": "3"}, "without must be several whole numbers"),
        ({"without": np.zeros(64, bool)}, "whole number"),
        ({"contrast": -1}, "contrast must be"),
        ({"contrast_cut": 0}, "contrast_cut must be"),
        ({"contrast_cut": None}, "contrast_cut must be"),
        ({"loss_scale": -1}, "loss_scale must be a finite number above 0; got -1"),
        ({"betas": (0.9, 1.0)}, "betas must be below 1"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"betas": "09"}, "betas must be two numbers"),
        ({"eps": 0}, "eps must be a finite number above 0"),
    ],
)
def test_what_is_no_setting_is_refused_when_the_method_is_made(settings, message):
    with pytest.raises(cm.SettingsError, match=message):
        cm.ControlMLLMPlus(**settings)


@pytest.mark.parametrize("settings", [{"accumulate": "no"}, {"accumulate": 1}, {"scale_gradient": 0}, {"ema": "1"}])
def test_settings_of_the_gradient_steps_are_read_too(settings):
    with pytest.raises(cm.SettingsError, match=next(iter(settings))):
        cm.ControlMLLM(**settings)


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (-1, r"sigma must be above 0; got -1\."),
        (0, r"sigma must be above 0; got 0\."),
        (float("nan"), "sigma must be a finite number"),
        ("wide", "sigma must be a finite number"),
        (1e-200, r"sigma must lie in 0\.0001\.\.10000"),
    ],
)
def test_a_sigma_has_one_error_wherever_it_enters(tiny, sigma, message):
    mllm, prompt = tiny
    attention = cm.capture_attention(mllm, prompt)
    cmap = cm.context_map(attention)
    examples = [cm.analysis.Example(prompt.image, "what ?", REGION)]
    for use in (
        lambda: cm.ControlMLLM(sigma=sigma),
        lambda: cm.energy(cmap, REGION, sigma=sigma),
        lambda: cm.region_share(cmap, cm.Point(20, 20), sigma=sigma),
        lambda: cm.soft_energy(torch.rand(4), torch.rand(4), sigma),
        lambda: cm.analysis.head_shares(attention, REGION, sigma=sigma),
        lambda: cm.analysis.gradient_profile(mllm, prompt, REGION, sigma=sigma),
        lambda: cm.analysis.rank_heads(mllm, examples, sigma=sigma),
    ):
        with pytest.raises(SigmaError, match=message):
            use()


def test_a_sigma_that_reaches_no_visual_token_is_refused(tiny):
    mllm, prompt = tiny
    with pytest.raises(cm.RegionError, match="sigma must be wide enough to reach a visual token"):
        cm.optimize(mllm, prompt, cm.Point(24, 24), cm.ControlMLLM(sigma=1e-4))


def test_everything_is_checked_before_the_first_step(tiny):
    mllm, prompt = tiny
    before = prompt.visual[0] - 1
    with pytest.raises(cm.SettingsError, match=r"heads must be numbers in 0\.\.3; got \(99,\)"):
        cm.ControlMLLM(heads=(99,)).resolve(mllm)
    for settings, error, message in (
        ({"queries": "zebra"}, cm.PromptError, "'zebra'"),
        ({"queries": 999}, cm.PromptError, "999"),
        ({"queries": (before, "red")}, cm.PromptError, "must not stand before the image"),
        ({"without": (16,)}, cm.CaptureError, "and not all of them"),
        ({"without": range(16)}, cm.CaptureError, "and not all of them"),
        ({"heads": ((0, 9),)}, cm.SettingsError, "heads in 0"),
    ):
        with pytest.raises(error, match=message):
            cm.Steering(mllm, prompt, REGION, cm.ControlMLLM(**settings))


def test_numbers_of_captures_and_maps_are_read_strictly(tiny):
    mllm, prompt = tiny
    attention = cm.capture_attention(mllm, prompt)
    for use in (
        lambda **given: cm.capture_attention(mllm, prompt, **given),
        lambda **given: cm.context_map(attention, **given),
        lambda **given: cm.analysis.gradient_profile(mllm, prompt, REGION, **given),
    ):
        for given in ({"layers": [0.5]}, {"layers": "01"}, {"layers": [True]}, {"heads": [0.0]}, {"heads": "01"}):
            with pytest.raises(cm.CaptureError, match=r"whole number|several numbers"):
                use(**given)
        for queries in (1.5, [True], [], b"red", np.array([True, False])):
            with pytest.raises(cm.PromptError, match=r"whole number|At least one"):
                use(queries=queries)
    with pytest.raises(cm.CaptureError, match="whole number"):
        cm.context_map(attention, without=[1.5])
    assert torch.equal(cm.context_map(attention, layers=iter([1, 1])).values, cm.context_map(attention, layers=[1]).values)
    numpy = cm.capture_attention(mllm, prompt, layers=np.arange(2), heads=np.array([1]), queries=np.array([-1]))
    assert (numpy.layers, numpy.heads, numpy.queries) == ((0, 1), (1,), (len(prompt.tokens) - 1,))
    assert json.dumps([numpy.layers, numpy.heads, numpy.queries])
    with pytest.raises(cm.SettingsError, match="seed must be a whole number"):
        cm.analysis.rank_heads(mllm, [cm.analysis.Example(prompt.image, "what ?", REGION)], seed=0.5)


def test_tokens_before_the_image_cannot_look_at_it(tiny):
    mllm, prompt = tiny
    for queries in (0, [0, -1]):
        with pytest.raises(cm.PromptError, match=r"it begins at position \d+; got .*, of which \[0\] stand before it"):
            cm.capture_attention(mllm, prompt, queries=queries)


def test_a_map_that_is_all_zero_has_no_energy(tiny, monkeypatch):
    mllm, prompt = tiny
    values = torch.zeros(16)
    cmap = cm.ContextMap(values, prompt.layout, ("x",))
    for use in (
        lambda: cm.hard_energy(values, torch.ones(16)),
        lambda: cm.soft_energy(values, torch.ones(16)),
        lambda: cm.energy(cmap, REGION),
        lambda: cm.region_share(cmap, REGION),
    ):
        with pytest.raises(cm.CaptureError, match="some attention on the image, for its energy or share"):
            use()
    with pytest.raises(cm.CaptureError, match="or not finite"):
        cm.hard_energy(values + torch.nan, torch.ones(16))
    monkeypatch.setattr(loop, "mean_maps", lambda values, *_: values.mean((-3, -2)) * 0)
    with pytest.raises(cm.OptimizationError, match=r"at step 0 it has none\. Take query tokens that look"):
        cm.optimize(mllm, prompt, REGION, PLAIN)


def test_latents_and_baselines_that_are_not_finite_are_refused(tiny):
    mllm, prompt = tiny
    latent = prompt.zero_latent().detach()
    latent[3, 4] = torch.nan
    for use in (
        lambda: mllm.generate(prompt, latent),
        lambda: cm.capture_attention(mllm, prompt, latent=latent),
        lambda: cm.analysis.gradient_profile(mllm, prompt, REGION, latent=latent),
    ):
        with pytest.raises(cm.CaptureError, match=r"A latent must be finite; 1 of these \d+ values are not"):
            use()
    with pytest.raises(cm.SettingsError, match="Baseline states must be finite"):
        cm.analysis.attribute(mllm, prompt, "red", baseline=latent)


def test_shares_and_distances_of_other_tokens_have_no_energy():
    values = torch.rand(4)
    for inside in (torch.rand(5), torch.full((4,), torch.nan), np.ones(4)):
        for energy in (cm.hard_energy, cm.soft_energy):
            with pytest.raises(cm.RegionError, match="one finite share or distance for each of the 4 visual tokens"):
                energy(values, inside)
    with pytest.raises(cm.CaptureError, match="must be a tensor"):
        cm.hard_energy(np.ones(4), torch.ones(4))


def test_what_is_no_method_choice_or_count_is_refused(tiny):
    mllm, prompt = tiny
    examples = [cm.analysis.Example(prompt.image, "what ?", REGION)]
    for use in (
        lambda: cm.Steering(mllm, prompt, REGION, "ControlMLLM"),
        lambda: cm.optimize(mllm, prompt, REGION, cm.ControlMLLM),
        lambda: cm.analysis.sweep_windows(mllm, examples, method="x"),
        lambda: cm.analysis.sweep_windows(mllm, examples, windows=0),
        lambda: cm.analysis.sweep_windows(mllm, examples, windows=[(0.5, 2)]),
        lambda: cm.analysis.sweep_windows(mllm, examples, windows=[()]),
        lambda: cm.analysis.sweep_windows(mllm, examples, contexts=5),
        lambda: cm.analysis.sweep_windows(mllm, examples, max_copies=1.5),
        lambda: cm.analysis.Choice((), "last"),
        lambda: cm.EarlyStopping("x"),
        lambda: cm.Contrast("1"),
        lambda: cm.Contrast(float("inf")),
        lambda: cm.analysis.attribute(mllm, prompt, "red", steps=1.5),
        lambda: cm.analysis.attribute(mllm, prompt, "red", seed=-1),
        lambda: cm.analysis.attribute(mllm, prompt, "red", batch=True),
    ):
        with pytest.raises(cm.SettingsError):
            use()


def test_a_run_is_gone_through_once(tiny):
    run = cm.Steering(*tiny, REGION, PLAIN)
    for step in run:
        if step.number == 1:
            break
    assert [step.number for step in run] == [2]
    assert list(run) == []
    assert [step.number for step in run.trace.steps] == [0, 1, 2]
    assert run.trace.stopped == "finished"


@dataclass(frozen=True)
class Slower(cm.ControlMLLM):
    """A method of a user's own."""

    brake: float = 2.0

    def start(self, latent):
        return GradientSteps(latent, self.step_size / self.brake, self.ema, False, False)


def test_a_subclass_has_its_base_classs_defaults_and_is_reopened_once_registered(tiny, tmp_path):
    mllm, prompt = tiny
    slower = Slower(steps=2, step_size=4.0, early_stop=0.0)
    assert slower.resolve(mllm).ema == cm.ControlMLLM().resolve(mllm).ema
    trace = cm.optimize(mllm, prompt, REGION, slower)
    assert torch.equal(trace.latent, cm.optimize(mllm, prompt, REGION, PLAIN).latent)
    path = trace.save(tmp_path / "run.safetensors")
    with pytest.raises(cm.TraceError, match=r"class of your own is made known by cmllm_tools\.methods\.register"):
        cm.Trace.load(path)
    try:
        assert register(Slower) is Slower
        assert cm.Trace.load(path).method == trace.method
        assert register(Slower) is Slower
    finally:
        METHODS.pop("Slower", None)
    for method, message in ((type("ControlMLLM", (cm.ControlMLLM,), {}), "name of its own"), (3, "subclass of Method")):
        with pytest.raises(cm.SettingsError, match=message):
            register(method)


class InPlace(GradientSteps):
    def update(self, gradient):
        self.latent -= gradient


@dataclass(frozen=True)
class Overwriting(cm.ControlMLLM):
    def start(self, latent):
        return InPlace(latent, self.step_size, self.ema, False, False)


@dataclass(frozen=True)
class OverwritingKeys(cm.methods.KeySteering):
    def start(self, latent):
        return InPlace(latent, self.step_size, 1.0, False, False)


def test_an_update_that_writes_into_the_latent_in_use_is_refused(tiny):
    """The step before has it, and would be kept with another one."""
    for method in (Overwriting(steps=2, step_size=4.0), OverwritingKeys(steps=2, step_size=0.1)):
        with pytest.raises(cm.SettingsError, match=r"InPlace\.update must give `latent` a new tensor") as raised:
            cm.optimize(*tiny, REGION, method)
        assert len(raised.value.trace.steps) == 1


def test_a_method_of_its_own_kind_must_be_given_what_has_no_default(tiny):
    class Own(LatentMethod):
        defaults: ClassVar[str] = ""

        def start(self, latent):
            raise NotImplementedError

    with pytest.raises(cm.SettingsError, match="Own must be given steps, step_size, layers, queries, sigma, early_stop"):
        Own().resolve(tiny[0])


def test_what_describes_no_method_is_refused():
    for data in (
        None,
        {"name": ["ControlMLLM"]},
        {"name": "ControlMLLM", "steps": "many"},
        {"name": "ControlMLLM", "ema": 7},
    ):
        with pytest.raises(cm.SettingsError):
            method_from_json(data)
