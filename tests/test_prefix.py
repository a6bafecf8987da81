"""The prefix run once, and offsets on its keys: as the model's own forward has them, in every family, or refused."""

import gc
import re
import weakref
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest
import torch
from tests_support import noise
from tiny_families import TINY, at_hand
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.attention import key_offsets
from cmllm_tools.attention.context_map import context_map
from cmllm_tools.attention.key_offsets import KeyOffsets, visual_keys
from cmllm_tools.errors import CaptureError
from cmllm_tools.models.families import FAMILIES
from cmllm_tools.models.prefix import continued_answer, prefix_of

QUESTION = "is the object a red cross or a blue seven ?"
REGION = cm.Box(5, 5, 40, 40)


@cache
def prepared(name):
    torch.manual_seed(0)
    mllm = cm.load(TINY[name]())
    return mllm, mllm.prepare(noise((64, 64)), QUESTION)


@pytest.fixture(params=at_hand())
def family(request):
    return prepared(request.param)


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is this ?")


def answered(mllm, prompt, **options):
    """Ids and the logits that each of them was chosen by; none where the model's generate does not show them."""
    scores = []
    if not mllm.family.processors:
        return mllm.generate(prompt, max_new_tokens=4, **options).ids, torch.zeros(1, 1)

    def keep(ids, logits):
        scores.append(logits[0].float().clone())
        return logits

    ids = mllm.generate(prompt, max_new_tokens=4, logits_processor=[keep], **options).ids
    return ids, torch.stack(scores)


@pytest.mark.slow
def test_an_answer_over_the_cached_image_is_the_plain_one(family):
    """Zero offsets change nothing: token for token, and logits within 1e-5 of the largest; or the family is refused."""
    mllm, prompt = family
    if mllm.family.no_prefix:
        with pytest.raises(cm.UnsupportedModelError, match="must be able to continue from a cached image"):
            prefix_of(mllm, prompt)
        return
    prefix = prefix_of(mllm, prompt)
    with continued_answer(prefix):
        ids, logits = answered(mllm, prompt)
    plain_ids, plain = answered(mllm, prompt)
    assert ids == plain_ids
    torch.testing.assert_close(logits, plain, atol=1e-5 * plain[plain.isfinite()].abs().max().item(), rtol=1e-4)
    zero_ids, zero = answered(mllm, prompt, intervention=KeyOffsets(prefix.zero))
    assert zero_ids == ids
    torch.testing.assert_close(zero, logits, atol=1e-6, rtol=1e-3)


@pytest.mark.slow
def test_a_step_lowers_the_energy_that_capture_finds(family):
    mllm, prompt = family
    method = cm.methods.KeySteering(steps=2, step_size=0.003, layers=(), queries="text")
    if mllm.family.no_keys:
        with pytest.raises(cm.UnsupportedModelError, match=mllm.family.name):
            cm.optimize(mllm, prompt, REGION, method)
        return
    trace = cm.optimize(mllm, prompt, REGION, method)
    assert trace.steps[-1].energy < trace.steps[0].energy
    for latent, step in ((None, trace.steps[0]), (trace, trace.steps[-1])):
        cmap = context_map(cm.capture_attention(mllm, prompt, latent=latent))
        assert cm.energy(cmap, REGION, sigma=method.sigma).item() == pytest.approx(step.energy, rel=1e-4)


BESIDE = [name for name, family in FAMILIES.items() if family.beside and family.tested]


@pytest.mark.parametrize("name", BESIDE)
def test_keys_beside_the_text_are_moved_where_the_model_makes_them(name):
    """The same answer as from a model whose own key projections have the offsets added, and none at zero."""
    mllm, prompt = prepared(name)
    keys = visual_keys(mllm, prompt)
    zero_ids, zero = answered(mllm, prompt, intervention=KeyOffsets(torch.zeros(keys.zero.shape)))
    ids, plain = answered(mllm, prompt)
    assert zero_ids == ids
    torch.testing.assert_close(zero, plain)
    offsets = 0.05 * torch.randn(keys.zero.shape, generator=torch.Generator().manual_seed(0))
    moved_ids, moved = answered(mllm, prompt, intervention=KeyOffsets(offsets))
    with key_projections(mllm, prompt, keys, offsets):
        expected_ids, expected = answered(mllm, prompt)
    assert moved_ids == expected_ids
    torch.testing.assert_close(moved, expected, atol=1e-4 * expected[expected.isfinite()].abs().max().item(), rtol=1e-4)
    assert moved_ids != ids or not torch.allclose(moved, plain)


def test_keys_beside_the_text_that_are_not_seen_are_refused_by_name(monkeypatch):
    """As in transformers 5.6, whose Q-Former computes its attention by itself."""
    mllm, prompt = prepared.__wrapped__("instructblip")
    monkeypatch.setattr(key_offsets._Keys, "before", lambda self, call: call)
    with pytest.raises(CaptureError, match=r"attention interface; layers 0, 2 of InstructBlipQFormerModel did not"):
        visual_keys(mllm, prompt)


@contextmanager
def key_projections(mllm, prompt, keys, offsets):
    """Offsets added by hooks on what makes the keys: norms where keys have them, and projections elsewhere."""
    handles = []
    for number, (module, _) in enumerate(sorted(mllm.attention_modules.items(), key=lambda each: each[1])):
        heads, _, width = keys.by_layer[number].shape
        part = keys.norm * offsets[:, number * heads * width : (number + 1) * heads * width]
        makes = [each for path, each in module.named_modules() if re.fullmatch(r"key|k_norm|k_layer_norm", path)]
        makes = makes or [each for path, each in module.named_modules() if path == "k_proj"]

        def add(_, inputs, output, part=part, heads=heads, width=width):
            changed = output.clone()
            change = part.to(output)
            if output.dim() == 3:
                changed[:, list(prompt.visual)] += change
            else:
                changed[:, :, list(prompt.visual)] += change.unflatten(-1, (heads, width)).transpose(0, 1)
            return changed

        handles.append(makes[0].register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("made", [tiny_llava, TINY["mllama"]], ids=["cached", "beside"])
def test_the_gradient_is_that_of_finite_differences(made):
    model, processor = made()
    mllm = cm.load((model.double(), processor))
    prompt = mllm.prepare(noise((50, 40)), "what is this ?")
    run = cm.Steering(mllm, prompt, REGION, cm.methods.KeySteering(steps=1, step_size=0.01, layers=(), queries="text"))
    (first, _) = run
    assert first.gradient_norm > 0

    def energy(offsets):
        attention = cm.capture_attention(mllm, prompt, latent=KeyOffsets(offsets))
        return cm.energy(context_map(attention), REGION, sigma=0.4).item()

    zero, direction = visual_keys(mllm, prompt).zero, run.latent / run.latent.norm()
    step = 1e-4
    slope = (energy(zero + step * direction) - energy(zero - step * direction)) / (2 * step)
    # The update goes against the gradient, by one length.
    assert run.latent.norm().item() == pytest.approx(0.01, rel=1e-6)
    assert slope == pytest.approx(-first.gradient_norm, rel=1e-4)


def test_only_the_keys_that_are_asked_for_are_moved(tiny):
    mllm, prompt = tiny
    method = cm.methods.KeySteering(steps=1, step_size=0.01, layers=(), queries="text", moved_layers=(1, 2))
    latent = cm.optimize(mllm, prompt, REGION, method).latent.unflatten(-1, (mllm.layers, -1))
    assert latent[:, 1].abs().max() > 0
    assert latent[:, [0, 2]].abs().max() == 0


def test_values_and_the_images_own_tokens_stay_as_they_are(tiny):
    mllm, prompt = tiny
    prefix = prefix_of(mllm, prompt)
    before = [(key.clone(), value.clone()) for key, value in prefix.layers]
    moved = prefix.moved(torch.full_like(prefix.zero, 0.01)[None])
    trace = cm.optimize(mllm, prompt, REGION, cm.methods.KeySteering(steps=2, step_size=0.01))
    mllm.generate(prompt, trace)
    for (key, value), (same, kept), (other, unmoved) in zip(prefix.layers, before, moved, strict=True):
        assert torch.equal(key, same)
        assert torch.equal(value, kept)
        assert torch.equal(value, unmoved)
        places = sorted(set(range(prefix.length)) - set(prompt.visual))
        assert torch.equal(other[:, :, places], key[:, :, places])
        assert not torch.equal(other, key)


def test_a_prefix_goes_with_its_prompt():
    """The cached keys of every image would fill the memory otherwise."""
    mllm = cm.load(tiny_llava())
    prompt = mllm.prepare(noise((50, 40)), "what is this ?")
    prefix = prefix_of(mllm, prompt)
    assert prefix_of(mllm, prompt) is prefix
    left = weakref.ref(prefix)
    del prompt, prefix
    gc.collect()
    assert left() is None


def test_offsets_are_kept_with_the_answer(mllm, tmp_path):
    scene = cm.demo_scene()
    outcome = cm.refer(mllm, scene.image, scene.question, scene.region("box"), cm.methods.KeySteering())
    assert scene.names[0] in outcome.answer
    prompt = mllm.prepare(scene.image, scene.question)
    again = cm.Outcome.load(outcome.save(tmp_path / "outcome.safetensors"))
    assert isinstance(again.intervention, KeyOffsets)
    assert mllm.generate(prompt, again.intervention) == outcome.answer
    # Decoded against the plain answer, the pair's second half has its keys where they were.
    assert mllm.generate(prompt, again.intervention, 0.5) != mllm.generate(prompt)


def test_offsets_of_another_prompt_are_refused(tiny):
    mllm, prompt = tiny
    with pytest.raises(cm.CaptureError, match=r"must have shape \(visual token, layers x key heads x width\) = \(16, 48\)"):
        mllm.generate(prompt, KeyOffsets(torch.zeros(16, 47)))
    for wrong in (torch.zeros(3), torch.full((16, 48), float("nan"))):
        with pytest.raises(cm.CaptureError, match="Offsets on keys must be finite numbers"):
            KeyOffsets(wrong)


def test_tokens_of_the_cached_prefix_are_no_queries(tiny):
    """Their rows are not run; others would come in their place."""
    mllm, prompt = tiny
    offsets = KeyOffsets(prefix_of(mllm, prompt).zero)
    for inside in (prompt.visual[0], prompt.visual[-1]):
        with pytest.raises(cm.CaptureError, match=f"which is not run again; got position {inside}"):
            cm.capture_attention(mllm, prompt, queries=[inside], latent=offsets)
        with pytest.raises(cm.CaptureError, match="Take tokens after the image"):
            cm.optimize(mllm, prompt, REGION, cm.methods.KeySteering(steps=1, queries=[inside]))


def test_maps_of_states_refuse_offsets_on_cached_keys(tiny):
    mllm, prompt = tiny
    offsets = KeyOffsets(prefix_of(mllm, prompt).zero)
    for find in (cm.analysis.grad_cam, cm.analysis.token_activation):
        with pytest.raises(cm.CaptureError, match="with offsets on cached keys its image is not"):
            find(mllm, prompt, "a red cross", latent=offsets)


def test_a_saved_trace_answers_as_before(tiny, tmp_path):
    mllm, prompt = tiny
    trace = cm.optimize(
        mllm, prompt, REGION, cm.methods.KeySteering(steps=2, step_size=0.05), callbacks=[cm.Answers("ends")]
    )
    again = cm.Trace.load(trace.save(tmp_path / "run.safetensors"))
    assert isinstance(again.intervention, KeyOffsets)
    assert mllm.generate(prompt, again).ids == mllm.generate(prompt, trace).ids
    assert trace.steps[-1].answer == mllm.generate(prompt, trace)


def test_what_is_known_for_latents_alone_refuses_offsets_by_name(tiny):
    mllm, prompt = tiny
    method = cm.methods.KeySteering(steps=1, step_size=0.05)
    trace = cm.optimize(mllm, prompt, REGION, method)
    refused = "known with latents on the visual tokens alone; got KeyOffsets"
    with pytest.raises(cm.CaptureError, match=refused):
        cm.analysis.relevancy(mllm, prompt, latent=trace)
    example = cm.analysis.Example(prompt.image, "what is this ?", REGION, "a red cross")
    with pytest.raises(cm.SettingsError, match="latents on the visual tokens, and KeySteering moves something else"):
        cm.analysis.sweep_windows(mllm, [example], method=method)


def test_a_model_whose_image_sees_the_question_is_refused_though_its_row_says_nothing(monkeypatch):
    """What the table does not know is found out by the first prompt."""
    monkeypatch.setitem(FAMILIES, "paligemma", replace(FAMILIES["paligemma"], prefix=""))
    mllm = cm.load(TINY["paligemma"]())
    with pytest.raises(cm.UnsupportedModelError, match="as the image's tokens see what comes after them"):
        prefix_of(mllm, mllm.prepare(noise((64, 64)), QUESTION))
