"""Gradients in float16, held against float32; and that float32 is left as it is."""

import copy

import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.models.gradient import SCALE, computes_in_half, gradients, rescaled
from cmllm_tools.referring.loop import steer_together

IMAGE = noise((32, 32))
REGION = cm.Box(8, 8, 24, 24)


@pytest.fixture(scope="module")
def pair():
    """A random model in float16, and in float32 with the same (rounded) weights."""
    model, processor = tiny_llava(layers=4, width=64)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(0.1 if "language_model.layers" in name else 1.0)
        model.model.multi_modal_projector.linear_2.weight.mul_(100)
    half = model.half()
    return cm.load((half, processor)), cm.load((copy.deepcopy(half).float(), processor))


def energy_at(mllm):
    prompt = mllm.prepare(IMAGE, "what is the red object ?")
    latent = prompt.zero_latent()
    cmap = cm.context_map(cm.capture_attention(mllm, prompt, latent=latent, queries="after_image"))
    return cm.energy(cmap, REGION), latent


def off(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_a_gradient_in_float16_is_that_of_float32(pair):
    half, wide = pair
    expected = torch.autograd.grad(*energy_at(wide))[0]
    value, latent = energy_at(half)
    alone = torch.autograd.grad(value, latent, retain_graph=True)[0]
    scaled = gradients(value, [latent], computes_in_half(half.model))[0]
    assert computes_in_half(half.model) and not computes_in_half(wide.model)
    assert scaled.dtype == torch.float32
    assert off(alone, expected) > 0.1
    assert off(scaled, expected) < 0.01


@pytest.mark.slow
def test_a_gradient_in_float16_at_width_512_in_8_layers_is_that_of_float32():
    """Initialised as language models are, where the energy alone loses parts of its gradient to underflow."""
    model, processor = tiny_llava(layers=8, heads=8, width=512)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(0.1)
        # Visual tokens of the size that they have in LLaVA, many times that of words.
        model.model.multi_modal_projector.linear_2.weight.mul_(100)
    half = model.half()
    wide = cm.load((copy.deepcopy(half).float(), processor))
    half = cm.load((half, processor))
    expected = torch.autograd.grad(*energy_at(wide))[0]
    value, latent = energy_at(half)
    alone = torch.autograd.grad(value, latent, retain_graph=True)[0]
    scaled = gradients(value, [latent], computes_in_half(half.model))[0]
    assert off(alone, expected) > 0.01
    assert off(scaled, expected) < 0.01


def test_everything_that_differentiates_does_so_alike(pair):
    """Steps alone and together, layers' gradients, relevancy and attribution."""
    method = cm.ControlMLLM(steps=1, step_size=1.0, ema=1.0, early_stop=0.0, queries="after_image")
    found = []
    for mllm in pair:
        prompt = mllm.prepare(IMAGE, "what is the red object ?")
        resolved = method.resolve(mllm)
        both = steer_together(mllm, prompt, resolved.target(prompt.layout, REGION), [resolved] * 2)
        score = cm.analysis.attribute(mllm, prompt, "red", "input_x_gradient", progress=False)
        found.append(
            {
                "alone": cm.optimize(mllm, prompt, REGION, method).latent,
                "together": both.latent[1],
                "profile": torch.from_numpy(
                    cm.analysis.gradient_profile(mllm, prompt, REGION, queries="after_image").norms
                ),
                "relevancy": cm.analysis.relevancy(mllm, prompt, "red").values.float(),
                "grad_cam": cm.analysis.grad_cam(mllm, prompt, "red").values,
                "attribution": score.values,
            }
        )
    assert {name: off(found[0][name], found[1][name]) for name in found[0]} == pytest.approx(
        dict.fromkeys(found[0], 0), abs=0.03
    )


def test_a_gradient_that_overflows_is_tried_with_a_smaller_scale():
    tried = []

    def differentiate(scale):
        tried.append(scale)
        return [(torch.tensor([1000.0]) * scale).half()]

    assert rescaled(differentiate, half=True)[0].item() == 1000
    assert tried == [SCALE, SCALE / 16, SCALE / 256, SCALE / 4096]
    start = torch.tensor([3.0], requires_grad=True)
    assert gradients((start.half() * 1000).float().sum(), [start], half=True)[0].item() == 1000
    # What no scale helps is given back as it is.
    assert torch.isinf(rescaled(lambda scale: [torch.tensor([torch.inf])], half=True)[0]).all()


def test_a_run_without_a_number_does_not_cost_the_others_their_scale():
    start = torch.tensor([[1e-3], [1e-3]], requires_grad=True)
    value = start.half().float()[:, 0] * torch.tensor([1e-6, torch.nan])
    assert gradients(value, [start], half=True)[0][0].item() == pytest.approx(1e-6, rel=1e-3)


def test_float32_is_left_bit_by_bit(pair):
    value, latent = energy_at(pair[1])
    expected = torch.autograd.grad(value, latent, retain_graph=True)[0]
    assert torch.equal(gradients(value, [latent], half=False, retain_graph=True)[0], expected)
    # A power of two rounds nothing: were it scaled, it would be the same.
    assert torch.equal(torch.autograd.grad(value * SCALE, latent)[0] / SCALE, expected)


def test_quantised_weights_computed_in_float16_count_as_half(pair):
    wide = copy.deepcopy(pair[1].model)
    wide.lm_head.compute_dtype = torch.float16
    assert computes_in_half(wide)


def test_a_latent_too_large_for_float16_ends_the_run_with_its_trace(pair):
    """And of runs together that one alone."""
    mllm = pair[0]
    prompt = mllm.prepare(IMAGE, "what is the red object ?")
    wild = cm.ControlMLLM(steps=2, step_size=1e30, ema=1.0, early_stop=0.0, layers=(0, 4)).resolve(mllm)
    with pytest.raises(cm.OptimizationError, match="latent must stay finite; at step 1 it is not") as caught:
        cm.optimize(mllm, prompt, REGION, wild)
    assert len(caught.value.trace) == 1
    ends = steer_together(mllm, prompt, wild.target(prompt.layout, REGION), [wild, wild])
    assert torch.isnan(ends.energy[1]).all() and (ends.latent == 0).all()


@pytest.mark.parametrize("part", ["model.language_model", "model.vision_tower", "lm_head"])
def test_a_part_in_float16_counts_as_half(part):
    model, _ = tiny_llava()
    model.get_submodule(part).half()
    assert computes_in_half(model)
