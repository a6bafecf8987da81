"""A look at an image, shared by several questions: what comes of it is what comes of the image itself."""

import copy
import gc
import weakref
from dataclasses import replace
from functools import cache

import pytest
import torch
from tests_support import noise
from tiny_families import TINY, at_hand
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.models import together
from cmllm_tools.models.prefix import prefix_of, prefix_or_none
from cmllm_tools.models.together import answers_together

QUESTIONS = ("is the object a red cross or a blue seven ?", "describe the object .")
REGION = cm.Box(5, 5, 40, 40)
KEYS = cm.methods.KeySteering(steps=1, step_size=0.01, layers=(), queries="text")
PLUS = cm.ControlMLLMPlus(steps=1, step_size=0.01, layers=(), queries="text", contrast=0.0)


@cache
def looked(name):
    torch.manual_seed(0)
    mllm = cm.load(TINY[name]())
    return mllm, noise((64, 64)), mllm.look(noise((64, 64)))


@pytest.fixture
def tiny():
    mllm = cm.load(tiny_llava())
    image = noise((50, 40))
    return mllm, image, mllm.look(image)


class Calls:
    """How often the vision encoder runs, and how many tokens the language model is given each time."""

    def __init__(self, mllm):
        self.encoder, self.tokens = 0, []
        patches = next(each for each in mllm.model.model.vision_tower.modules() if isinstance(each, torch.nn.Conv2d))
        patches.register_forward_hook(self._encoded)
        mllm.decoder.register_forward_hook(self._read, with_kwargs=True)

    def _encoded(self, *given):
        self.encoder += 1

    def _read(self, module, arguments, keywords, output):
        self.tokens.append(output[0].shape[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", at_hand())
def test_prompts_and_answers_of_a_look_are_those_of_the_image(name):
    """States and arguments are the same to the bit, answers token for token, plain or steered, in every family."""
    mllm, image, look = looked(name)
    for question in QUESTIONS:
        own, shared = mllm.prepare(image, question), mllm.prepare(look, question)
        assert shared.look is look
        assert torch.equal(own.call.states, shared.call.states)
        assert own.call.arguments.keys() == shared.call.arguments.keys()
        assert (own.tokens, own.visual, own.text_span) == (shared.tokens, shared.visual, shared.text_span)
        assert mllm.generate(shared, max_new_tokens=4).ids == mllm.generate(own, max_new_tokens=4).ids
        for method in (PLUS, *[KEYS] * (not mllm.family.no_prefix)):
            traces = [cm.optimize(mllm, prompt, REGION, method) for prompt in (own, shared)]
            torch.testing.assert_close(traces[0].latent, traces[1].latent)
            answers = [
                mllm.generate(each, trace, max_new_tokens=4) for each, trace in zip((own, shared), traces, strict=True)
            ]
            assert answers[0].ids == answers[1].ids
    assert (prefix_or_none(mllm, shared) is None) == bool(mllm.family.no_prefix)


MORE = ("what is it ?", "is the object in the middle a red cross , a blue seven or a green moon ?")


@pytest.mark.slow
@pytest.mark.parametrize("name", at_hand())
def test_answers_given_together_are_those_given_alone(name):
    """In every family: as one batch where its questions are kept apart, and one by one elsewhere."""
    mllm, _, look = looked(name)
    prompts = [mllm.prepare(look, question) for question in (*QUESTIONS, *MORE)]
    alone = [mllm.generate(prompt, max_new_tokens=4) for prompt in prompts]
    together = answers_together(mllm, prompts, 4)
    for one, other in zip(together, alone, strict=True):
        assert (str(one), one.ids, one.ended) == (str(other), other.ids, other.ended)
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-3)


def test_questions_of_other_lengths_are_one_batch_and_looked_at_once(tiny, monkeypatch):
    mllm, _, look = tiny
    prompts = [mllm.prepare(look, question) for question in (*QUESTIONS, *MORE)]
    alone = [mllm.generate(prompt, max_new_tokens=4) for prompt in prompts]
    held, alike = [], together._alike
    monkeypatch.setattr(together, "_alike", lambda *given: held.append(1) or alike(*given))
    monkeypatch.setattr(mllm, "generate", None)
    for _ in range(2):
        for one, other in zip(answers_together(mllm, prompts, 4), alone, strict=True):
            assert one.ids == other.ids
            assert len(one.log_probabilities) == len(one.ids)
            assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)
    assert len(held) == len(prompts)
    assert set(together._CHECKED[mllm.model]) == {(prompts[0].call.attention, type(None), True, True)}


def of_several_images(mllm, size=(64, 64)):
    """Prompts of images and questions of their own: other pixels, other lengths."""
    pictures = [noise(size).rotate(angle) for angle in (0, 90, 180, 270)]
    pictures[2] = noise((size[0] // 2, size[1]))
    return [mllm.prepare(each, question) for each, question in zip(pictures, (*QUESTIONS, *MORE), strict=True)]


def assert_as_alone(mllm, prompts):
    alone = [mllm.generate(prompt, max_new_tokens=6) for prompt in prompts]
    for _ in range(2):
        for one, other in zip(answers_together(mllm, prompts, 6), alone, strict=True):
            assert (str(one), one.ids, one.ended) == (str(other), other.ids, other.ended)
            assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", at_hand())
def test_answers_about_several_images_are_those_given_alone(name):
    """In every family: filled up on the left in one batch where that keeps them apart, and one by one elsewhere."""
    mllm, _, _ = looked(name)
    assert_as_alone(mllm, of_several_images(mllm))


@pytest.mark.parametrize("name", ["llava", "idefics3", "internvl", "paligemma", "qwen2_vl", "qwen3_vl", "mllama"])
def test_several_images_are_one_batch_where_the_family_keeps_them_apart(name, monkeypatch):
    """The declared rule: batches are kept apart, and nothing but states, mask and positions is given.

    Qwen2-VL's positions are of three kinds. PaliGemma's tokens have types, Qwen3-VL adds image states to later layers, and
    Mllama's stand beside the text.
    """
    mllm, _, _ = looked(name)
    prompts, rows, generate = of_several_images(mllm), [], mllm.model.generate
    # What the model's own next forward would go on from, where positions are of several kinds.
    deltas = vars(mllm.model.model).get("rope_deltas")
    monkeypatch.setattr(
        mllm.model, "generate", lambda **given: rows.append(len(given.get("inputs_embeds", ()))) or generate(**given)
    )
    assert_as_alone(mllm, prompts)
    batched = bool(rows.count(len(prompts)))
    assert batched == (name in ("llava", "idefics3", "internvl", "qwen2_vl"))
    assert together._fit(mllm, prompts) == batched
    assert vars(mllm.model.model).get("rope_deltas") is deltas


def test_position_ids_of_what_is_filled_up_are_those_of_the_prompt_alone(tiny, monkeypatch):
    mllm, _, _ = tiny
    prompts, seen = of_several_images(mllm, (50, 40)), []

    def look(module, arguments, named):
        seen.append((named["inputs_embeds"], named["position_ids"]))

    handle = mllm.decoder.register_forward_pre_hook(look, with_kwargs=True)
    answers_together(mllm, prompts, 2)
    handle.remove()
    states, places = seen[0]
    for row, place, prompt in zip(states, places, prompts, strict=True):
        count = prompt.call.states.shape[1]
        assert torch.equal(row[-count:], prompt.call.states[0])
        assert not row[:-count].any()
        assert place[-count:].tolist() == list(range(count))


@pytest.mark.parametrize("why", ["apart", "penalty", "differs"])
def test_where_a_batch_would_not_do_answers_are_given_one_by_one(tiny, monkeypatch, why):
    mllm, _, look = tiny
    prompts = [mllm.prepare(look, question) for question in (*QUESTIONS, *MORE)]
    if why == "apart":
        monkeypatch.setattr(mllm, "family", replace(mllm.family, batch=False))
    elif why == "penalty":
        monkeypatch.setattr(mllm.model.generation_config, "repetition_penalty", 1.3)
    else:
        monkeypatch.setattr(together, "_alike", lambda *given: False)
    calls, generate = [], mllm.generate
    monkeypatch.setattr(mllm, "generate", lambda prompt, **options: calls.append(prompt) or generate(prompt, **options))
    for number in (1, 2):
        found = answers_together(mllm, prompts, 4)
        assert len(calls) == number * len(prompts)
        assert [each.ids for each in found] == [generate(prompt, max_new_tokens=4).ids for prompt in prompts]


def test_the_encoder_runs_once_and_so_does_the_prefix(tiny):
    mllm, _, look = tiny
    calls = Calls(mllm)
    end = look.prompt.image_end
    for question in QUESTIONS:
        prompt = mllm.prepare(look, question)
        trace = cm.optimize(mllm, prompt, REGION, KEYS)
        mllm.generate(prompt, trace, max_new_tokens=2)
        mllm.generate(prompt, max_new_tokens=2)
    assert calls.encoder == 0
    assert calls.tokens.count(end) == 1
    # The whole is run by the check of a model's first prefix alone; a capture ends before the decoder does.
    assert sum(tokens > end for tokens in calls.tokens) <= 1
    assert prefix_of(mllm, prompt).layers is prefix_of(mllm, look.prompt).layers


def test_beams_contrast_and_no_cache_give_what_they_give_without(tiny):
    mllm, image, look = tiny
    own, shared = mllm.prepare(image, QUESTIONS[0]), mllm.prepare(look, QUESTIONS[0])
    trace = cm.optimize(mllm, own, REGION, KEYS)
    for options in (
        {"num_beams": 3},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"repetition_penalty": 1.5},
    ):
        assert mllm.generate(shared, **options).ids == mllm.generate(own, **options).ids, options
    assert mllm.generate(shared, trace, 0.5).ids == mllm.generate(own, trace, 0.5).ids


def test_a_checkpoint_that_keeps_no_cache_answers_as_it_does_with_one(monkeypatch):
    """Each forward then brings the whole sequence once more, longer by what was said.

    LLaVA's own `generate` fails with such a setting, as it gives the image to the first forward alone.
    """
    mllm, image, look = looked("qwen2_vl")
    own, shared = mllm.prepare(image, QUESTIONS[0]), mllm.prepare(look, QUESTIONS[1])
    trace = cm.optimize(mllm, own, REGION, KEYS)
    expected = [mllm.generate(shared).ids, mllm.generate(own, trace).ids]
    assert mllm.generate(own, trace, use_cache=False).ids == expected[1]
    monkeypatch.setattr(mllm.model.generation_config, "use_cache", False)
    assert [mllm.generate(shared).ids, mllm.generate(own, trace).ids] == expected


def test_refer_takes_a_look_and_methods_that_change_the_image_have_their_own(mllm):
    scene = cm.demo_scene()
    look = mllm.look(scene.image)
    for method in (cm.methods.KeySteering(), cm.ControlMLLMPlus(), cm.methods.Drawn()):
        found = [cm.refer(mllm, image, scene.question, scene.region("box"), method) for image in (scene.image, look)]
        assert found[0].answer == found[1].answer


def test_new_weights_are_heard(tiny):
    mllm, image, look = tiny
    before = mllm.prepare(look, QUESTIONS[0])
    old = prefix_of(mllm, before)
    with torch.no_grad():
        for parameter in mllm.model.parameters():
            parameter.mul_(1.5)
    own, shared = mllm.prepare(image, QUESTIONS[0]), mllm.prepare(look, QUESTIONS[0])
    assert shared.look is None
    assert torch.equal(own.call.states, shared.call.states)
    with pytest.warns(cm.WeightsWarning, match="have changed since this prompt was prepared"):
        answer = mllm.generate(before, max_new_tokens=4)
    assert answer.ids == mllm.generate(own, max_new_tokens=4).ids
    # Its recorded states are those of before, but not what the layers make of them.
    with pytest.warns(cm.WeightsWarning):
        assert prefix_of(mllm, before).weights != old.weights
    assert not torch.equal(prefix_of(mllm, before).layers[-1][0], old.layers[-1][0])


def test_a_look_of_another_model_and_options_beside_a_look_are_refused(tiny):
    mllm, _, look = tiny
    with pytest.raises(
        cm.PromptError, match=r"A look must be used with the model that looked; .* Look again with this model"
    ):
        cm.load(tiny_llava(seed=1)).prepare(look, QUESTIONS[0])
    with pytest.raises(cm.PromptError, match=r"must be given to look\(image, ...\), which keeps them; got .*padding_side"):
        mllm.prepare(look, QUESTIONS[0], padding_side="left")


def test_a_look_is_shown_and_goes_when_nobody_has_it(tiny):
    mllm, _, look = tiny
    assert "50 x 40 px" in repr(look)
    assert "16 tokens" in repr(look)
    assert copy.deepcopy(mllm.prepare(look, QUESTIONS[0])).look is look


def test_the_image_s_keys_go_with_the_look():
    mllm = cm.load(tiny_llava())
    look = mllm.look(noise((50, 40)))
    prompt = mllm.prepare(look, QUESTIONS[0])
    left = weakref.ref(prefix_of(mllm, prompt).layers[0][0])
    del look
    gc.collect()
    assert left() is not None
    del prompt
    gc.collect()
    assert left() is None
