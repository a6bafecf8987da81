"""Token activation maps and Grad-CAM, against both written out with hooks on the model's own modules."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from PIL import Image
from tests_support import noise
from tiny_families import TINY
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.analysis import grad_cam, token_activation
from cmllm_tools.analysis.activation import activations, cams
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


def ids_of(mllm, answer):
    return mllm.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]


def hooked(mllm, prompt, ids, latent):
    """What comes into the language model and out of each of its layers and its norm, in a plain forward, and its logits."""
    decoder, found = mllm.model.model.language_model, []
    added = torch.zeros(1, len(prompt.tokens) + len(ids), latent.shape[1]).index_add(
        1, torch.tensor(prompt.visual), latent[None]
    )

    def add(module, given, named):
        states = (named["inputs_embeds"] + added).requires_grad_()
        found.append(states)
        return given, named | {"inputs_embeds": states}

    handles = [decoder.register_forward_pre_hook(add, with_kwargs=True)]
    handles += [
        module.register_forward_hook(lambda module, given, output: found.append(output))
        for module in (*decoder.layers, decoder.norm)
    ]
    sequence = torch.tensor([prompt.inputs["input_ids"][0].tolist() + ids])
    try:
        logits = mllm.model(input_ids=sequence, pixel_values=prompt.inputs["pixel_values"], use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return found, logits


def filtered(values, grid):
    """The rank Gaussian filter, window by window."""
    bordered, result = np.pad(values.reshape(grid), 1, mode="reflect"), np.zeros(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            window = np.sort(bordered[row : row + 3, column : column + 3].ravel())
            if window.mean() > 0:
                weights = np.exp(-(np.arange(-4, 5) ** 2) / (2 * (window.std() / window.mean()) ** 2))
                result[row, column] = (window * weights).sum() / weights.sum()
    return result.ravel()


@pytest.mark.parametrize("token", [0, 1, 3])
@pytest.mark.parametrize(("context", "smooth"), [(True, True), (True, False), (False, False)])
def test_a_token_activation_map_is_the_formula_on_the_states_by_hook(tiny, token, context, smooth):
    mllm, prompt = tiny
    answer = "red circle red zero"
    ids = ids_of(mllm, answer)
    latent = 0.2 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    before = snapshot(mllm)
    cmap = token_activation(mllm, prompt, answer, token=token, context=context, smooth=smooth, latent=latent)
    assert_same(before, snapshot(mllm))
    with torch.no_grad():
        states = hooked(mllm, prompt, ids, latent)[0][-1][0]
    head, text = mllm.model.lm_head.weight.detach(), list(prompt.text_span)
    said = [*prompt.inputs["input_ids"][0, text].tolist(), *ids]
    # What each token is told from: a question's is itself, an answer's is the one before it.
    places = [*text, *range(len(prompt.tokens) - 1, len(prompt.tokens) - 1 + len(ids))]
    activations = [(states[list(prompt.visual)] @ head[one]).clamp_min(0).numpy().astype(float) for one in said]
    explained = len(text) + token
    own = activations[explained]
    degrees = [max(float(states[place] @ head[ids[token]]), 0) for place in places[:explained]]
    if context:
        other = sum(
            degree * activation
            for one, degree, activation in zip(said, degrees, activations, strict=False)
            if one != ids[token]
        )
        if other @ other > 0:
            own = np.maximum(own - other * (own @ other) / (other @ other), 0)
    own = filtered(own, (4, 4)) if smooth else own
    np.testing.assert_allclose(cmap.values.numpy(), own / (own.sum() + sum(degrees)), atol=1e-5)
    assert own.max() > 0
    assert cmap.words == mllm.words(ids[token : token + 1])


@pytest.mark.parametrize("layer", [-1, 0, 1])
@pytest.mark.parametrize("token", [0, 1])
def test_grad_cam_is_the_formula_on_the_states_by_hook(tiny, layer, token):
    mllm, prompt = tiny
    latent = 0.2 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    before = snapshot(mllm)
    cmap = grad_cam(mllm, prompt, "red circle", token=token, layer=layer, latent=latent)
    assert_same(before, snapshot(mllm))
    ids = ids_of(mllm, "red circle")
    states, logits = hooked(mllm, prompt, ids, latent)
    (gradient,) = torch.autograd.grad(logits[len(prompt.tokens) - 1 + token, ids[token]], states[1 + layer])
    visual = list(prompt.visual)
    found = (states[1 + layer][0, visual] @ gradient[0, visual].mean(0)).detach().clamp_min(0)
    torch.testing.assert_close(cmap.values, found / found.sum(), atol=1e-5, rtol=1e-4)
    assert cmap.words == mllm.words(ids[token : token + 1])
    assert not cmap.values.requires_grad


def test_the_models_own_answer_is_explained_when_none_is_given(tiny):
    mllm, prompt = tiny
    answer = mllm.generate(prompt, max_new_tokens=2)
    for explain in (token_activation, grad_cam):
        assert torch.equal(explain(mllm, prompt, token=1).values, explain(mllm, prompt, answer, token=1).values)


def test_maps_of_several_tokens_in_one_forward_are_those_of_each(tiny):
    mllm, prompt = tiny
    ids = ids_of(mllm, "red circle red zero")
    edit = cm.methods.AttentionEdit(3).intervention(mllm, prompt, (cm.Box(5, 0, 25, 20),))
    for several, explain in ((activations, token_activation), (cams, grad_cam)):
        for given in (None, edit):
            found = several(mllm, prompt, ids, [0, 2, 3], given=given)
            each = [explain(mllm, prompt, ids, token=token, latent=given).values for token in (0, 2, 3)]
            torch.testing.assert_close(found, torch.stack(each), atol=1e-6, rtol=1e-4)
        assert not torch.allclose(found, several(mllm, prompt, ids, [0, 2, 3]), atol=1e-4)


def test_padding_changes_nothing(tiny):
    mllm, prompt = tiny
    padded = mllm.prepare(prompt.image, prompt.question, padding="max_length", max_length=40, padding_side="left")
    assert len(padded.tokens) > len(prompt.tokens)
    for explain in (token_activation, grad_cam):
        values = explain(mllm, padded, "red circle", token=1).values
        assert torch.allclose(values, explain(mllm, prompt, "red circle", token=1).values, atol=1e-5)


def test_what_the_context_explains_wholly_is_no_tokens_own(tiny):
    """An answer's token that the head gives the same logits as the question's only one, though it is another token."""
    mllm, prompt = tiny
    (red,) = ids_of(mllm, "red")
    head, ids = mllm.model.lm_head.weight.data, prompt.inputs["input_ids"][0]
    own, logits = head[red].clone(), hooked(mllm, prompt, [red], torch.zeros(16, 32))[1]
    word = next(place for place in prompt.text_span if ids[place] != red and logits[place, ids[place]] > 0)
    alone = replace(prompt, text_span=(word,))
    try:
        head[red] = head[ids[word]]
        plain, left = (token_activation(mllm, alone, "red", context=context, smooth=False) for context in (False, True))
    finally:
        head[red] = own
    assert plain.values.sum() > 0.1
    assert left.values.max() < 1e-7


@pytest.mark.slow
def test_grad_cam_of_a_named_object_lies_on_it(mllm):
    """For the name's second word, which has to be read off the image: better than chance, and than the map shuffled."""
    found, shuffled = lifts(mllm, lambda prompt, answer: grad_cam(mllm, prompt, answer, token=1))
    assert min(found) > 0.7
    assert np.median(found) > 5
    assert np.median(found) > 3 * np.median(shuffled, 0).max()


@pytest.mark.slow
def test_a_token_activation_map_of_a_named_colour_lies_on_the_object(mllm):
    """Of the colour: last states of its visual tokens, which nothing is said at, hold no more of the shape than others'."""
    found, shuffled = lifts(mllm, lambda prompt, answer: token_activation(mllm, prompt, answer, context=True, smooth=False))
    assert np.mean(found) > 2
    assert np.mean(found) > 1.5 * np.mean(shuffled, 0).max()


def lifts(mllm, explain):
    """(scene,) share of the map on the object named, as a multiple of chance; and (scene, order) of the map shuffled."""
    found, shuffled = [], []
    rng = np.random.default_rng(0)
    for example in (line.example() for line in read_roc(HELDOUT)[:20]):
        prompt = mllm.prepare(example.image, "describe the object .")
        cmap = explain(prompt, example.answer)
        chance = prompt.layout.inside(example.region).mean()
        orders = [replace(cmap, values=cmap.values[torch.from_numpy(rng.permutation(64))]) for _ in range(10)]
        found.append(cm.region_share(cmap, example.region) / chance)
        shuffled.append([cm.region_share(each, example.region) / chance for each in orders])
    return np.array(found), np.array(shuffled)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("mllama", "they are seen by gated"), ("instructblip", "they are seen by")],
)
def test_heads_that_no_visual_token_meets_are_refused(name, reason):
    mllm = cm.load(TINY[name]())
    prompt = mllm.prepare(Image.new("RGB", (80, 80), "red"), "describe the object .")
    with pytest.raises(cm.UnsupportedModelError, match=f"that of {name} is not: {reason}"):
        token_activation(mllm, prompt, "red")
    # What goes into the language model is known of all.
    assert grad_cam(mllm, prompt, "red").values.isfinite().all()
    with pytest.raises(cm.CaptureError, match=f"The visual tokens of {name} are no part of .* got layer 0"):
        grad_cam(mllm, prompt, "red", layer=0)


def test_bad_settings_are_refused(tiny):
    for explain in (token_activation, grad_cam):
        with pytest.raises(cm.PromptError, match=r"must be one of the answer's 2, numbered from 0; got 2 of 'red circle'"):
            explain(*tiny, "red circle", token=2)
        with pytest.raises(cm.PromptError, match=r"must be one of the answer's 0"):
            explain(*tiny, "")
    with pytest.raises(cm.CaptureError, match=r"A layer before the last must be at least one number in -1..1; got \[2\]"):
        grad_cam(*tiny, "red", layer=2)
    with pytest.raises(cm.SettingsError, match="smooth must be"):
        token_activation(*tiny, "red", smooth="yes")
