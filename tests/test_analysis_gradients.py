from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.analysis import gradient_profile, gradients

REGION = cm.Box(12, 5, 30, 30)


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


def gradient_of(mllm, prompt, start, **options):
    """The gradient of the energy of what `capture_attention(**options)` gives, by itself."""
    latent = start.clone().requires_grad_()
    energy = cm.energy(cm.context_map(cm.capture_attention(mllm, prompt, latent=latent, **options)), REGION)
    return energy.item(), torch.autograd.grad(energy, latent)[0].flatten()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_layers_gradient_is_that_of_its_own_energy(tiny, checkpointing):
    mllm, prompt = tiny
    torch.manual_seed(0)
    start = 0.1 * torch.randn(16, 32)
    before = snapshot(mllm)
    mllm.gradient_checkpointing = checkpointing
    try:
        profile = gradient_profile(mllm, prompt, REGION, latent=start)
    finally:
        mllm.gradient_checkpointing = False
    assert_same(before, snapshot(mllm))
    alone = [gradient_of(mllm, prompt, start, layers=[layer]) for layer in range(3)]
    _, together = gradient_of(mllm, prompt, start)
    assert profile.layers == (0, 1, 2)
    assert np.allclose(profile.energies, [energy for energy, _ in alone], rtol=1e-5)
    assert np.allclose(profile.norms, [gradient.norm() for _, gradient in alone], rtol=1e-4)
    for one, (_, gradient) in enumerate(alone):
        for other, (_, second) in enumerate(alone):
            cosine = torch.nn.functional.cosine_similarity(gradient, second, 0)
            assert profile.cosines[one, other] == pytest.approx(cosine.item(), abs=1e-4)
        cosine = torch.nn.functional.cosine_similarity(gradient, together, 0)
        assert profile.together[one] == pytest.approx(cosine.item(), abs=1e-4)


def test_norm_is_the_steepest_finite_difference(tiny):
    mllm, prompt = tiny
    profile = gradient_profile(mllm, prompt, REGION, layers=[1], heads=[(1, 2)], queries="last")
    options = {"layers": [1], "heads": [(1, 2)], "queries": "last"}
    zero = torch.zeros(16, 32)
    _, gradient = gradient_of(mllm, prompt, zero, **options)
    along = 1e-2 * (gradient / gradient.norm()).view(16, 32)
    high, low = (gradient_of(mllm, prompt, point, **options)[0] for point in (along, -along))
    assert profile.norms[0] == pytest.approx((high - low) / 2e-2, rel=1e-2)
    assert profile.cosines.tolist() == [[pytest.approx(1)]]


def test_a_step_for_one_layer_is_one_against_a_layer_of_negative_cosine(mllm, prompt, box):
    profile = gradient_profile(mllm, prompt, box, queries="last")
    assert profile.layers == (0, 1, 2, 3, 4, 5)
    assert np.allclose(profile.cosines, profile.cosines.T, atol=1e-6)
    assert np.allclose(np.diag(profile.cosines), 1, atol=1e-5)
    strongest = profile.layers[int(profile.norms.argmax())]
    assert f"strongest pull layer {strongest}, |gradient| {profile.norms.max():.3g}" in repr(profile)
    assert "least cosine" in profile._repr_html_()


def test_a_layer_that_does_not_look_at_the_image_pulls_at_nothing(tiny, monkeypatch):
    def blind(*arguments):
        attention = cm.capture_attention(*arguments)
        sees = torch.tensor([1.0, 0.0, 1.0])[:, None, None, None]
        return replace(attention, values=attention.values * sees)

    monkeypatch.setattr(gradients, "capture_attention", blind)
    profile = gradient_profile(*tiny, REGION)
    assert np.isnan(profile.energies[1])
    assert profile.norms[1] == 0
    assert (profile.cosines[1] == 0).all()
    assert (profile.norms[[0, 2]] > 0).all()


def test_bad_input_is_refused(tiny):
    with pytest.raises(cm.CaptureError, match="Layers must be"):
        gradient_profile(*tiny, REGION, layers=[7])
    with pytest.raises(cm.CaptureError, match="A latent must have shape"):
        gradient_profile(*tiny, REGION, latent=torch.zeros(3, 32))
