"""Whatever the caller has open in torch, results are those without it, and it is as it was afterwards."""

from contextlib import contextmanager

import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.analysis import attribute, grad_cam, gradient_profile, relevancy, rollout, token_activation
from cmllm_tools.models.scoring import AnswerScore

REGION = cm.Box(12, 5, 30, 30)
IMAGE = noise((50, 40))
QUESTION = "what is the red object ?"
METHOD = cm.ControlMLLM(steps=2, early_stop=0.0)

STATES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(IMAGE, QUESTION)


def steered(mllm, prompt):
    steps = list(cm.Steering(mllm, prompt, REGION, METHOD))
    return torch.stack([step.maps for step in steps])


def captured_gradient(mllm, prompt):
    """The user's own step: the latent may have been made where there are no gradients."""
    latent = prompt.zero_latent()
    values = cm.capture_attention(mllm, prompt, latent=latent).values
    assert values.requires_grad
    assert values.dtype == torch.float32
    return values.detach()


def workbench(mllm, prompt):
    from cmllm_tools.widgets import Workbench

    bench = Workbench(mllm, IMAGE, QUESTION, regions=REGION, method=METHOD)
    return torch.tensor([step.energy for step in bench.run().steps])


def prepared_and_steered(mllm, prompt):
    return cm.optimize(mllm, mllm.prepare(IMAGE, QUESTION), REGION, METHOD).latent


USES = {
    "optimize by Adam": lambda mllm, prompt: cm.optimize(mllm, prompt, REGION, cm.ControlMLLMPlus(steps=2)).latent,
    "capture": captured_gradient,
    "optimize": lambda mllm, prompt: cm.optimize(mllm, prompt, REGION, METHOD).latent,
    "steering": steered,
    "prepare": prepared_and_steered,
    "gradient_profile": lambda mllm, prompt: torch.from_numpy(gradient_profile(mllm, prompt, REGION).cosines),
    "relevancy": lambda mllm, prompt: relevancy(mllm, prompt, "red").values,
    "rollout": lambda mllm, prompt: rollout(mllm, prompt).values,
    "token_activation": lambda mllm, prompt: token_activation(mllm, prompt, "red").values,
    "grad_cam": lambda mllm, prompt: grad_cam(mllm, prompt, "red").values,
    "score": lambda mllm, prompt: AnswerScore(mllm, prompt, "red")(
        torch.full_like(prompt.zero_latent(), 0.1)[None]
    ).detach(),
    "attribute": lambda mllm, prompt: attribute(mllm, prompt, "red", progress=False).values,
    "workbench": workbench,
}


def state():
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_results_do_not_depend_on_the_callers_torch_state(tiny, use):
    expected = use(*tiny)
    for name, opened in STATES.items():
        with opened():
            before = state()
            found = use(*tiny)
            assert state() == before, name
        torch.testing.assert_close(found.clone(), expected, rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_memory_is_estimated_in_inference_mode(tiny):
    with torch.inference_mode():
        assert cm.estimate_memory(*tiny, [0]).step > 0


def test_a_latent_of_inference_mode_is_steered_with_and_differentiated(tiny):
    mllm, prompt = tiny
    plain = torch.full(prompt.zero_latent().shape, 0.1)
    with torch.inference_mode():
        made = torch.full(plain.shape, 0.1, requires_grad=True)
    expected = gradient_profile(mllm, prompt, REGION, latent=plain).norms
    assert gradient_profile(mllm, prompt, REGION, latent=made).norms == pytest.approx(expected)
    values = cm.capture_attention(mllm, prompt, latent=made).values
    assert torch.equal(values.detach(), cm.capture_attention(mllm, prompt, latent=plain).values)
    assert mllm.generate(prompt, made, max_new_tokens=2) == mllm.generate(prompt, plain, max_new_tokens=2)


def test_a_model_loaded_in_inference_mode_is_named():
    with torch.inference_mode():
        model, processor = tiny_llava()
    mllm = cm.load((model, processor))
    prompt = mllm.prepare(IMAGE, QUESTION)
    assert cm.capture_attention(mllm, prompt).values.isfinite().all()
    with pytest.raises(cm.UnsupportedModelError, match=r"must not be loaded within torch\.inference_mode"):
        cm.optimize(mllm, prompt, REGION)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDED = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    # Stands for a graphics card, on which tensors would meet those of the model on the CPU.
    "another default device": lambda: torch.device("meta"),
    **STATES,
}


def step_of_ones_own(mllm, prompt):
    """What README shows: capture, map, energy and its gradient."""
    latent = prompt.zero_latent()
    cmap = cm.context_map(cm.capture_attention(mllm, prompt, latent=latent), layers=[1, 2])
    value = cm.energy(cmap, [REGION, cm.Point(20, 20)])
    # The backward pass is one's own; autocast would have it in bfloat16.
    with torch.autocast("cpu", enabled=False):
        (gradient,) = torch.autograd.grad(value, latent)
    assert gradient.dtype == torch.float32
    return gradient


@pytest.mark.parametrize("opened", SURROUNDED.values(), ids=SURROUNDED)
def test_what_is_set_around_is_not_seen_in_maps_energies_steps_and_answers(tiny, opened):
    """An energy was 0.4 % off under autocast, and a latent three digits under a default dtype of bfloat16."""
    mllm, prompt = tiny
    plus = cm.ControlMLLMPlus(steps=2, contrast=0.5)
    gradient, latent = step_of_ones_own(mllm, prompt), cm.optimize(mllm, prompt, REGION, plus).latent
    answer = mllm.generate(prompt, latent, contrast=0.5, max_new_tokens=3)
    share = cm.region_share(cm.context_map(cm.capture_attention(mllm, prompt)), REGION)
    with opened():
        fresh = mllm.prepare(IMAGE, QUESTION)
        found = step_of_ones_own(mllm, fresh), cm.optimize(mllm, fresh, REGION, plus).latent
        assert mllm.generate(fresh, latent, contrast=0.5, max_new_tokens=3) == answer
        assert cm.region_share(cm.context_map(cm.capture_attention(mllm, fresh)), REGION) == share
    assert torch.equal(found[0], gradient)
    assert torch.equal(found[1], latent)
