import dataclasses

import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.referring.defaults import method_defaults
from cmllm_tools.referring.registry import method_from_json


def run_updates(method, gradients):
    updates = method.start(torch.zeros(2, 3))
    latents = []
    for gradient in gradients:
        updates.update(gradient)
        latents.append(updates.latent.detach().clone())
    return latents


@pytest.fixture
def gradients():
    torch.manual_seed(0)
    return [torch.randn(2, 3) for _ in range(4)]


def test_gradient_steps_with_moving_average(gradients):
    alpha, beta = 3.0, 0.5
    raw = average = torch.zeros(2, 3)
    for gradient, latent in zip(gradients, run_updates(cm.ControlMLLM(step_size=alpha, ema=beta), gradients), strict=True):
        raw = raw - alpha * gradient
        average = beta * raw + (1 - beta) * average
        assert torch.allclose(latent, average)


def test_accumulation_is_what_the_published_code_does():
    """The published loop, written out with autograd on a quadratic energy: embeddings are changed in place."""
    alpha, beta, steps = 0.05, 0.5, 5
    goal = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))

    embeds = torch.zeros(2, 3)
    prompt = torch.zeros(2, 3, requires_grad=True)
    history, theirs = prompt, []
    for _ in range(steps):
        current = beta * prompt + (1 - beta) * history
        embeds = embeds.detach() + current
        theirs.append(embeds.detach().clone())
        loss = alpha * ((embeds - goal) ** 2).sum()
        history = current.detach()
        (gradient,) = torch.autograd.grad(loss, prompt)
        prompt = (prompt - gradient).detach().requires_grad_()
    final = embeds.detach() + (beta * prompt + (1 - beta) * history).detach()

    updates = cm.ControlMLLM.published(step_size=alpha, ema=beta).start(torch.zeros(2, 3))
    ours = []
    for _ in range(steps):
        latent = updates.latent
        ours.append(latent.clone())
        updates.update(2 * (latent - goal))
    for mine, published in zip([*ours, updates.latent], [*theirs, final], strict=True):
        assert torch.allclose(mine, published, atol=1e-6)


def test_adam_is_the_published_one(gradients):
    lr, scale, beta1, beta2, eps = 0.03, 400.0, 0.9, 0.999, 1e-3
    latent = m = s = torch.zeros(2, 3)
    method = cm.ControlMLLMPlus(step_size=lr)
    for t, (gradient, ours) in enumerate(zip(gradients, run_updates(method, gradients), strict=True), 1):
        scaled = scale * gradient
        m = beta1 * m + (1 - beta1) * scaled
        s = beta2 * s + (1 - beta2) * scaled**2
        latent = latent - lr * (m / (1 - beta1**t)) / ((s / (1 - beta2**t)).sqrt() + eps)
        assert torch.allclose(ours, latent, atol=1e-6)


def test_published_defaults():
    paper = method_defaults("ControlMLLM", "llava", 32, 4096)
    assert (paper["step_size"], paper["ema"], paper["early_stop"]) == (400.0, 0.5, 0.25)
    assert (paper["steps"], paper["queries"], paper["sigma"]) == (5, "text", 0.1)
    plus = method_defaults("ControlMLLMPlus", "llava", 32, 4096)
    assert plus == {"steps": 3, "step_size": 0.03, "layers": (14, 26), "queries": "last", "contrast": 0.7}
    assert cm.ControlMLLMPlus().sigma == 0.4


def test_window_is_scaled_to_the_depth_of_other_models():
    assert method_defaults("ControlMLLMPlus", "llava", 16, 64)["layers"] == (7, 13)
    assert method_defaults("ControlMLLM", "llava", 16, 64)["layers"] == ()


def test_resolve_fills_in_what_is_left_open(mllm):
    resolved = cm.ControlMLLM(step_size=7.0).resolve(mllm)
    assert resolved.step_size == 7.0
    assert all(getattr(resolved, field.name) is not None for field in dataclasses.fields(resolved) if field.name != "heads")
    assert cm.ControlMLLMPlus(layers=(1, 3)).resolve(mllm).layers_of(mllm) == (1, 2)
    assert cm.ControlMLLMPlus(layers=()).resolve(mllm).layers_of(mllm) == tuple(range(mllm.layers))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (cm.ControlMLLM, {"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        (cm.ControlMLLM, {"steps": 2.5}, "got 2.5"),
        (cm.ControlMLLM, {"step_size": -1}, "step_size must be a finite number above 0; got -1"),
        (cm.ControlMLLM, {"step_size": float("inf")}, "step_size must be"),
        (cm.ControlMLLM, {"ema": 0}, "ema must be above 0 and at most 1; got 0"),
        (cm.ControlMLLMPlus, {"sigma": 0}, "sigma must be"),
        (cm.ControlMLLMPlus, {"layers": (2,)}, "window"),
    ],
)
def test_settings_out_of_range(kind, settings, message):
    """Where they are given: a method with a setting out of range cannot be made."""
    with pytest.raises(cm.SettingsError, match=message):
        kind(**settings)


def test_window_past_the_model_is_refused(mllm):
    with pytest.raises(cm.SettingsError, match=r"0 <= a < b <= 6, or \(\) for all; got \(4, 9\)"):
        cm.ControlMLLMPlus(layers=(4, 9)).resolve(mllm)


@pytest.mark.parametrize("method", [cm.ControlMLLM.published(steps=3), cm.ControlMLLMPlus(layers=(1, 3))])
def test_json_round_trip(method):
    assert method_from_json(method.to_json()) == method


def test_unknown_method_or_setting():
    with pytest.raises(cm.SettingsError, match=r"one of ControlMLLM, ControlMLLMPlus, .*; got 'Other'"):
        method_from_json({"name": "Other"})
    with pytest.raises(cm.SettingsError, match=r"got \['speed'\] too"):
        method_from_json({"name": "ControlMLLM", "speed": 3})
