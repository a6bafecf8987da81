"""Ways of pointing that decode against an answer without the region, edit attention, or look for the part themselves."""

import math

import numpy as np
import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.attention.highlight import Highlight
from cmllm_tools.inputs.pixels import hidden
from cmllm_tools.models.other_image import AgainstImage
from cmllm_tools.referring.method import Request
from cmllm_tools.referring.methods.vicrop import best_window
from cmllm_tools.referring.target import Target


def first_logits(mllm, inputs):
    with torch.no_grad():
        return mllm.model(**inputs, use_cache=False).logits[0, -1]


def test_region_guidance_is_the_published_sum_of_logits(mllm, scene):
    """(1 + alpha) l(image) - alpha l(blacked out), token by token, from two plain forwards without a cache."""
    box, alpha = scene.region("box"), 1.0
    question = "describe the object."
    outcome = cm.refer(mllm, scene.image, question, box, cm.methods.RegionGuidance(alpha))
    black = hidden(scene.image, box.cover(*scene.image.size) > 0.5, "black")
    with_it, without = (mllm.prepare(image, question).inputs for image in (scene.image, black))
    ids = with_it["input_ids"]
    for token in outcome.answer.ids:
        grown = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = [first_logits(mllm, inputs | grown) for inputs in (with_it, without)]
        assert int(((1 + alpha) * logits[0] - alpha * logits[1]).argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert len(outcome.answer.ids) > 1
    assert outcome.sent.image is not None and np.array_equal(outcome.sent.image, scene.image)
    # Decoded plainly there is nothing left of it.
    prompt = mllm.prepare(scene.image, question)
    assert mllm.generate(prompt, outcome, contrast=0) == mllm.generate(prompt)


def test_guidance_is_saved_and_answers_again(mllm, scene, tmp_path):
    box = scene.region("box")
    for way in (cm.methods.RegionGuidance(), cm.methods.PromptHighlighter()):
        outcome = cm.refer(mllm, scene.image, scene.question, box, way)
        found = cm.Outcome.load(outcome.save(tmp_path / "outcome.safetensors"))
        assert type(found.intervention) is type(outcome.intervention)
        assert found.intervention.contrast == outcome.intervention.contrast
        assert mllm.generate(mllm.prepare(found.sent.image, scene.question), found) == outcome.answer


def test_another_image_must_be_of_the_same_size(mllm, prompt):
    with pytest.raises(cm.CaptureError, match=r"must have the size of the prompt's, \(192, 192\); got \(20, 10\)"):
        mllm.generate(prompt, AgainstImage(torch.zeros(10, 20, 3), contrast=cm.Contrast(1.0)))
    with pytest.raises(cm.CaptureError, match=r"pixels \(height, width, 3\) in 0..255; got shape \(4, 4\)"):
        AgainstImage(torch.zeros(4, 4))


@pytest.fixture(scope="module")
def tiny():
    """Our model, and the same in eager attention, of which the weights are changed by hand."""
    model, processor = tiny_llava(width=16)
    mllm = cm.load((model, processor))
    return mllm, mllm.prepare(noise((32, 32)), "what is the red object ?")


def eager_logits(mllm, prompt, states, added):
    """Logits of the last token with these states, and numbers added to the logits (token, key) of every layer and head."""
    model = mllm.model.model.language_model
    length = states.shape[1]
    causal = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
    before = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            mask = (causal + added)[None, None]
            hidden_states = states
            position = torch.arange(length)[None]
            rotary = model.rotary_emb(hidden_states, position)
            for layer in model.layers:
                hidden_states = layer(hidden_states, attention_mask=mask, position_ids=position, position_embeddings=rotary)
                hidden_states = hidden_states if torch.is_tensor(hidden_states) else hidden_states[0]
            return mllm.model.lm_head(model.norm(hidden_states))[0, -1]
    finally:
        model.config._attn_implementation = before


def test_prompt_highlighter_is_the_published_code(tiny):
    """Both branches written out: logits + ln 5 in all rows; logits - (2 + ln 5), and embeddings times 0.01."""
    mllm, prompt = tiny
    weights = Target.of(prompt.layout, (cm.Box(0, 0, 16, 32),)).weights().float()
    raised = math.log(5.0)
    length = len(prompt.tokens)
    at = list(prompt.visual)
    added = [torch.zeros(length, length) for _ in range(2)]
    added[0][:, at] = raised * weights
    added[1][:, at] = -(2 + raised) * weights
    states = [prompt.call.states.clone() for _ in range(2)]
    states[1][:, at] = states[1][:, at] * (1 + (0.01 - 1) * weights)[:, None]
    expected = [eager_logits(mllm, prompt, *each) for each in zip(states, added, strict=True)]
    highlight = cm.methods.PromptHighlighter().intervention(mllm, prompt, (cm.Box(0, 0, 16, 32),))
    with torch.no_grad(), highlight.opened(mllm, prompt, copies=2):
        found = mllm.model(**highlight.inputs(mllm, prompt, 2), use_cache=False).logits[:, -1]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    # The published guidance, 2 (cond - uncond) + uncond of log-probabilities, picks what the contrast of 1 picks.
    cond, uncond = (each.log_softmax(-1) for each in expected)
    answer = mllm.generate(prompt, highlight, max_new_tokens=1, min_new_tokens=1)
    allowed = 2 * (cond - uncond) + uncond
    allowed[mllm.model.generation_config.eos_token_id] = float("-inf")
    assert answer.ids == (int(allowed.argmax()),)


def test_what_is_no_highlight_is_refused():
    with pytest.raises(cm.CaptureError, match=r"one number in 0..1 for each visual token"):
        Highlight(torch.full((4,), 2.0))
    with pytest.raises(cm.CaptureError, match="activation must be a finite number above 0; got 0"):
        Highlight(torch.ones(4), activation=0)


def test_edited_weights_are_multiplied(mllm, prompt, box):
    """In the first layer: weights times 1 + strength times the share inside, divided by their sum."""
    inside = Target.of(prompt.layout, (box,)).weights()
    edit = cm.methods.AttentionEdit(4.0, edit="weights").resolve(mllm).intervention(mllm, prompt, (box,))
    before = cm.capture_attention(mllm, prompt, layers=[0]).values[0]
    after = cm.capture_attention(mllm, prompt, layers=[0], latent=edit).values[0]
    raised = before * (1 + 4.0 * inside)
    expected = raised / (1 - before.sum(-1, keepdim=True) + raised.sum(-1, keepdim=True))
    assert torch.allclose(after, expected, atol=1e-6)
    with pytest.raises(cm.SettingsError, match="strength must be above -1 where weights are edited"):
        cm.methods.AttentionEdit(-1.0, edit="weights")


def test_the_best_heads_are_those_with_the_most_attention_to_the_region(mllm, prompt, box):
    weights = Target.of(prompt.layout, (box,)).weights()
    values = cm.capture_attention(mllm, prompt).values.mean(2) @ weights
    flat = values.flatten()
    expected = {divmod(int(index), mllm.heads) for index in flat.topk(5).indices}
    edit = cm.methods.AttentionEdit(best=5).resolve(mllm).intervention(mllm, prompt, (box,))
    assert set(edit.heads) == expected
    among = cm.methods.AttentionEdit(best=2, layers=(1, 3), heads=(0, 2)).resolve(mllm).intervention(mllm, prompt, (box,))
    assert all(layer in (1, 2) and head in (0, 2) for layer, head in among.heads)
    pairs = ((2, 1), (3, 0), (4, 1))
    one = cm.methods.AttentionEdit(best=1, heads=pairs).resolve(mllm).intervention(mllm, prompt, (box,))
    assert one.heads == (max(pairs, key=lambda pair: values[pair].item()),)


@pytest.mark.parametrize("cache", [True, False])
def test_a_bias_goes_from_region_to_region_while_the_answer_goes_on(mllm, scene, cache):
    """Token by token, each with the bias of its own moment on all that was said by then, without a cache."""
    prompt = mllm.prepare(scene.image, "describe the object.")
    boxes = scene.region("box"), cm.Box(0, 0, 60, 60)
    edit = cm.methods.AttentionEdit(2.5, follow=(2,)).resolve(mllm).intervention(mllm, prompt, boxes)
    answer = mllm.generate(prompt, edit, use_cache=cache, max_new_tokens=6)
    ids, start = prompt.inputs["input_ids"], len(prompt.tokens)
    at = list(prompt.visual)
    for number, token in enumerate(answer.ids):
        length = start + number
        added = torch.zeros(length, length)
        for row in range(prompt.image_end, length):
            added[row, at] = edit.bias[int(row - start + 1 >= 2)]
        states = torch.cat([prompt.call.states, mllm.model.get_input_embeddings()(ids[:, start:])], 1)
        assert int(eager_logits(mllm, prompt, states, added).argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    both = cm.refer(mllm, scene.image, scene.question, boxes, cm.methods.AttentionEdit(2.5, follow=(2,)))
    assert both.intervention.since == (0, 2)


def test_when_regions_take_over_must_be_said_for_each(mllm, prompt, box):
    with pytest.raises(cm.SettingsError, match="follow must say when each region after the first takes over: 0 numbers"):
        cm.methods.AttentionEdit(follow=(2,)).intervention(mllm, prompt, (box,))
    with pytest.raises(cm.SettingsError, match="follow must be rising numbers of at least 1"):
        cm.methods.AttentionEdit(follow=(3, 2))
    with pytest.raises(cm.CaptureError, match="A bias of 2 moments needs as many rising token numbers from 0 on"):
        cm.AttentionBias(torch.zeros(2, 64), since=(0,))


def test_the_window_that_stands_out_is_found():
    grid = np.zeros((12, 16))
    grid[4:8, 9:13] = 1.0
    top, left, bottom, right = best_window(grid, 0.3)
    assert grid[top:bottom, left:right].sum() == grid.sum()
    assert best_window(np.ones((3, 3)), 1.0) == (0, 0, 3, 3)


@pytest.mark.parametrize("by", ["attention", "gradient"])
def test_vicrop_shows_what_the_model_looks_at_beside_the_whole(mllm, scene, by):
    way = cm.methods.ViCrop(by, window=0.25, general="describe the object.")
    request = Request(scene.image, "what colour is the object {place}?", (scene.region("box"),))
    sent = way.sent(request, mllm)
    assert sent.image.size == (384, 384)
    assert np.array_equal(sent.image.crop((0, 96, 192, 288)), scene.image)
    assert sent.regions[0] == scene.region("box").moved(0, 96)
    outcome = cm.refer(mllm, scene.image, request.question, request.regions, way, max_new_tokens=2)
    assert outcome.sent.question == "what colour is the object?"


def test_contrast_without_a_cut_keeps_all_tokens():
    logits = torch.tensor([5.0, 1.0, -20.0])
    assert torch.equal(cm.Contrast(1.0, 0.0).combine(logits, logits * 2), 2 * logits - 2 * logits)
