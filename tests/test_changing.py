"""Steering that changes while the model answers: one part after another, by token numbers or as a function of the text."""

import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.attention.bias import AttentionBias
from cmllm_tools.attention.key_offsets import KeyOffsets
from cmllm_tools.models.batch import followed_by
from cmllm_tools.models.changing import Changing, ChosenBy
from cmllm_tools.models.latent import LatentAdded
from cmllm_tools.models.prefix import prefix_of
from cmllm_tools.models.scoring import continuation

IDS = [5, 9, 12, 20, 7]


@pytest.fixture(scope="module")
def left(mllm, prompt):
    return edit(mllm, prompt, 0)


@pytest.fixture(scope="module")
def right(mllm, prompt):
    """Of other layers and heads."""
    return AttentionBias(edit(mllm, prompt, 96).bias, layers=(1, 2), heads=(0, 2))


def edit(mllm, prompt, x):
    return cm.methods.AttentionEdit(strength=4).intervention(mllm, prompt, (cm.Box(x, 10, x + 90, 180),))


def close(one, other):
    torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), atol=1e-4, rtol=1e-4)


def test_one_part_is_what_it_is_alone(mllm, prompt, left):
    close(continuation(mllm, prompt, IDS, Changing((left,), (0,))), continuation(mllm, prompt, IDS, left))
    assert mllm.generate(prompt, Changing((left,), (0,))).ids == mllm.generate(prompt, left).ids
    assert mllm.generate(prompt, Changing((None,), (0,))).ids == mllm.generate(prompt).ids


def test_parts_of_the_same_heads_are_one_bias_of_several_moments(mllm, prompt, left):
    other = AttentionBias(left.bias.flip(0))
    moving = AttentionBias(torch.stack([left.bias, other.bias]), left.layers, left.heads, (0, 2))
    changing = Changing((left, replaced(other, left)), (0, 2))
    close(continuation(mllm, prompt, IDS, changing), continuation(mllm, prompt, IDS, moving))
    # A part may itself have moments.
    close(continuation(mllm, prompt, IDS, Changing((moving,), (0,))), continuation(mllm, prompt, IDS, moving))
    ending = Changing((moving, None), (0, 4))
    assert ending.parts[0].during(0, 4).since == (0, 2, 4)


def replaced(other, like):
    return AttentionBias(other.bias, like.layers, like.heads)


def test_tokens_before_a_change_are_those_of_the_first_part(mllm, prompt, left, right):
    changing = continuation(mllm, prompt, IDS, Changing((left, right), (0, 3)))
    close(changing[:3], continuation(mllm, prompt, IDS, left)[:3])
    assert (changing[3:] - continuation(mllm, prompt, IDS, left)[3:]).abs().max() > 1e-3
    # Nothing is left of the first part but what its tokens have seen.
    assert (changing[3:] - continuation(mllm, prompt, IDS, right)[3:]).abs().max() > 1e-6


def test_a_change_is_the_same_step_by_step_as_read_at_once(mllm, prompt, left, right):
    """One forward after another with the part of the moment, over a cache, by hand."""
    changing, parts = Changing((left, None, right), (0, 2, 3)), [left, left, None, right, right]
    found, cache, given = [], None, prompt.inputs
    for number, (token, part) in enumerate(zip(IDS, parts, strict=True)):
        so_far = followed_by(mllm, prompt, IDS[:number]) if number else prompt
        opened = Changing((part,), (0,)).opened(mllm, so_far)
        with torch.no_grad(), opened:
            output = mllm.model(**given, past_key_values=cache, use_cache=True)
        found.append(output.logits[0, -1].log_softmax(-1)[token].item())
        cache, given = output.past_key_values, {"input_ids": torch.tensor([[token]])}
    close(continuation(mllm, prompt, IDS, changing), torch.tensor(found))


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_function_of_the_token_is_the_parts_that_it_chooses(mllm, prompt, left, right, use_cache):
    changing = Changing((left, right, None), (0, 2, 4))
    asked = []

    def choose(number, text):
        asked.append((number, text))
        return left if number < 2 else right if number < 4 else None

    options = {"use_cache": use_cache, "max_new_tokens": 6, "min_new_tokens": 6}
    answer = mllm.generate(prompt, choose, **options)
    assert answer.ids == mllm.generate(prompt, changing, **options).ids
    close(answer.log_probabilities, continuation(mllm, prompt, answer.ids, changing))
    close(answer.log_probabilities, continuation(mllm, prompt, answer.ids, ChosenBy(choose)))
    words = mllm.processor.tokenizer
    expected = [words.decode(list(answer.ids[:number]), skip_special_tokens=True).strip() for number in range(6)]
    assert asked[:6] == list(enumerate(expected))
    schedule = ChosenBy(choose).schedule(mllm, answer.ids)
    assert schedule.since == (0, 2, 4)
    assert schedule.parts == (left, right, None)


def test_a_function_of_the_text(mllm, prompt, left, right):
    plain = mllm.generate(prompt)
    word = str(plain).split()[0]
    answer = mllm.generate(prompt, lambda number, text: right if word in text else None)
    assert str(answer).split()[0] == word
    close(answer.log_probabilities, continuation(mllm, prompt, answer.ids, Changing((None, right), (0, 1))))


def test_the_whole_is_decoded_against_doing_without(mllm, prompt, left, right):
    contrast = cm.Contrast(0.7)
    changing = Changing((left, right), (0, 2), contrast=contrast)
    chosen = ChosenBy(lambda number, text: left if number < 2 else right, contrast=contrast)
    answers = [mllm.generate(prompt, each, max_new_tokens=5, min_new_tokens=5) for each in (changing, chosen)]
    assert answers[0].ids == answers[1].ids
    for answer in answers:
        close(answer.log_probabilities, continuation(mllm, prompt, answer.ids, changing))


def test_what_stays_once_the_prompt_is_read_does_not_change(mllm, prompt, left):
    zero = prefix_of(mllm, prompt).zero
    staying = [LatentAdded(prompt.zero_latent().detach()), KeyOffsets(torch.zeros(zero.shape))]
    for part in staying:
        with pytest.raises(cm.SettingsError, match=f"{type(part).__name__} acts when the prompt is read, and stays"):
            Changing((left, part), (0, 2))
        with pytest.raises(cm.SettingsError, match=f"{type(part).__name__} acts when the prompt is read, and stays"):
            mllm.generate(prompt, lambda number, text, part=part: part)


@pytest.mark.parametrize(
    ("parts", "since", "message"),
    [
        ((), (), "0 parts need as many rising token numbers"),
        ((None,), (1,), "from 0 on"),
        ((None, None), (0, 0), "rising"),
        ((None, None), (0,), "2 parts need as many"),
        ((3,), (0,), "must be an Intervention, or None"),
        (
            (AttentionBias(torch.zeros(64), contrast=cm.Contrast(1)),),
            (0,),
            "give the contrast of AttentionBias to the whole",
        ),
    ],
)
def test_what_are_no_parts(parts, since, message):
    with pytest.raises(cm.SettingsError, match=message):
        Changing(parts, since)


def test_what_chooses_is_a_function_for_one_answer(mllm, prompt, left):
    with pytest.raises(cm.SettingsError, match="must be a function of"):
        ChosenBy(3)
    with pytest.raises(cm.SettingsError, match="must be an Intervention, or None"):
        mllm.generate(prompt, lambda number, text: "left")
    with pytest.raises(cm.SettingsError, match="leave out num_beams"):
        mllm.generate(prompt, lambda number, text: left, num_beams=2)
    with pytest.raises(ZeroDivisionError):
        mllm.generate(prompt, lambda number, text: 1 / 0)


def test_changes_are_saved_and_functions_are_not(mllm, prompt, left, right, tmp_path):
    from dataclasses import replace

    outcome = cm.refer(mllm, prompt.image, "describe the object.", cm.Box(0, 10, 90, 180), cm.methods.AttentionEdit())
    changing = Changing((left, None, right), (0, 2, 3), contrast=cm.Contrast(0.5))
    again = cm.Outcome.load(replace(outcome, intervention=changing).save(tmp_path / "one.safetensors")).intervention
    assert (again.since, again.contrast) == (changing.since, changing.contrast)
    close(continuation(mllm, prompt, IDS, again), continuation(mllm, prompt, IDS, changing))
    with pytest.raises(cm.DataError, match="save what it chose"):
        replace(outcome, intervention=ChosenBy(lambda number, text: left)).save(tmp_path / "two.safetensors")


def test_where_the_image_is_no_part_of_the_text_nothing_changes_midway(left):
    from tiny_families import TINY

    other = cm.load(TINY["mllama"]())
    asked = other.prepare(torch.zeros(80, 80, 3, dtype=torch.uint8).numpy(), "describe the object .")
    bias = AttentionBias(torch.ones(len(asked.visual)))
    with pytest.raises(cm.CaptureError, match="where visual tokens are part of the text's sequence"):
        other.generate(asked, Changing((bias, None), (0, 1)))
