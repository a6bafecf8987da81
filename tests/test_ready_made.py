"""Prompts that are made already, as a text or as a processor's tensors: the same prompts, or a refusal."""

import pytest
import torch
from tests_support import noise
from tiny_families import TINY

import cmllm_tools as cm
from cmllm_tools.models.template import placeholders

QUESTION = "describe the object ."
# A projector, one of several shapes, learned queries beside it, cross-attention, tiles, a prefix that the processor writes.
FAMILIES = ["llava", "qwen2_vl", "instructblip", "mllama", "llava_next", "paligemma", "gemma3"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """(mllm, prompt, what its processor makes of it)."""
    mllm = cm.load(TINY[request.param]())
    prompt = mllm.prepare(noise((80, 80)), QUESTION)
    options = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in prompt.inputs else {}
    return mllm, prompt, mllm.processor(images=prompt.image, text=prompt.text, return_tensors="pt", **options)


def assert_same_prompt(found, prompt):
    assert found.inputs.keys() == prompt.inputs.keys()
    for name, value in prompt.inputs.items():
        assert torch.equal(found.inputs[name], value), name
    assert torch.equal(found.call.states, prompt.call.states)
    assert repr(found.layout) == repr(prompt.layout)
    assert (found.layout.boxes == prompt.layout.boxes).all()
    for name in ("question", "tokens", "visual", "image_end", "text_span", "learned"):
        assert getattr(found, name) == getattr(prompt, name), name
    if not prompt.learned:
        assert found.positions("object") == prompt.positions("object")


def test_inputs_that_a_processor_made_are_the_same_prompt(family):
    mllm, prompt, inputs = family
    found = mllm.prepare(prompt.image, QUESTION, inputs=inputs)
    assert_same_prompt(found, prompt)
    assert mllm.generate(found, max_new_tokens=3).ids == mllm.generate(prompt, max_new_tokens=3).ids
    with pytest.raises(cm.PromptError, match=r"tensors of this one were given\. Prepare it with text="):
        found.showing(prompt.image)


def test_a_text_in_its_template_is_the_same_prompt(family):
    mllm, prompt, _ = family
    found = mllm.prepare(prompt.image, QUESTION, text=prompt.text)
    assert found.text == prompt.text
    assert_same_prompt(found, prompt)
    # It is made of words and images, and can be shown another.
    other = noise((80, 80)).rotate(90)
    assert torch.equal(mllm.prepare(*found.showing(other)).call.states, mllm.prepare(*prompt.showing(other)).call.states)


@pytest.mark.parametrize("text", ['a "b" \\n {{ c }} {% raw %}\n', "\n  \u00e9\U0001f600 {# d #}\n\n"])
def test_a_text_is_given_to_the_processor_as_it_is(mllm, text):
    whole = f"{text}<image>{text}describe the object.{text}"
    prompt = mllm.prepare(noise((64, 64)), "describe the object.", text=whole)
    assert prompt.text == whole
    assert [prompt.tokens[at] for at in prompt.text_span] == ["describe", "the", "object", "."]


def test_several_images_in_a_text_or_in_inputs(mllm):
    images = [noise((64, 64)), noise((96, 64))]
    text = "<image> and <image> describe the object. assistant :"
    found = mllm.prepare(images, "describe the object.", text=text)
    inputs = mllm.processor(images=images, text=text, return_tensors="pt")
    given = mllm.prepare(images, "describe the object.", inputs=inputs)
    assert_same_prompt(given, found)
    assert len(given.images) == len(given.layouts) == 2
    assert given.layout.sizes == tuple(image.size for image in images)


def test_inputs_of_several_images_have_no_conversation_that_says_something_else(mllm):
    images = [noise((64, 64)), noise((96, 64)).rotate(90)]
    inputs = mllm.processor(images=images, text="zero : <image> <image> describe the object.", return_tensors="pt")
    given = mllm.prepare(images, "describe the object.", inputs=inputs)
    assert given.conversation is None
    assert [each.tobytes() for each in given.images] == [each.tobytes() for each in images]
    with pytest.raises(cm.PromptError, match="tensors of this one were given"):
        given.showing(given.image)
    with pytest.raises(cm.PromptError, match="Only a conversation has its own"):
        cm.refer(mllm, given.conversation, None, cm.Box(24, 8, 56, 40, image=1))
    # A region is still on one of the images: no token of the first one has a part in it.
    (region,) = given.layout.on_sheet(cm.Box(24, 8, 56, 40, image=1))
    inside = given.layout.inside(region)
    assert inside[:64].sum() == 0 < inside[64:].sum()


@pytest.mark.parametrize("shown", ["<image><image>", "<image><image>red<image>", "a<image>red<image><image><image>"])
def test_the_text_of_inputs_has_a_placeholder_for_each_image(mllm, shown):
    images = [noise((64, 64))] * shown.count("<image>")
    inputs = mllm.processor(images=images, text=f"{shown} describe the object.", return_tensors="pt")
    text = mllm.prepare(images, "describe the object.", inputs=inputs).text
    assert text.replace(" ", "") == f"<s>{shown}describetheobject."


@pytest.mark.parametrize("family_name", ["qwen2_vl", "mllama", "llava_next"])
def test_images_of_two_sizes_side_by_side_are_two_in_the_text_of_inputs(family_name):
    mllm, images = cm.load(TINY[family_name]()), [noise((56, 56)), noise((140, 112))]
    mark = placeholders(mllm)[0]
    prompt = mllm.prepare(images, QUESTION, text=f"{mark}{mark} {QUESTION}")
    given = mllm.prepare(images, QUESTION, inputs=prompt.inputs)
    token = mllm.processor.tokenizer.convert_ids_to_tokens(mllm.image_token_id)
    assert given.text.count(token) == 2
    assert given.visual == prompt.visual


def test_images_side_by_side_in_inputs_can_be_probed(mllm):
    probing = cm.load((mllm.model, mllm.processor), layout="probe")
    images = [noise((64, 64))] * 2
    inputs = mllm.processor(images=images, text="<image><image> describe the object.", return_tensors="pt")
    found = probing.prepare(images, "describe the object.", inputs=inputs)
    assert [len(each.boxes) for each in found.layouts] == [64, 64]


def test_the_question_is_where_it_stands_last(mllm):
    text = "describe the object. <image> is it red? describe the object. assistant :"
    found = mllm.prepare(noise((64, 64)), "describe the object.", text=text)
    given = mllm.prepare(found.image, "describe the object.", inputs=found.inputs)
    assert given.text_span == found.text_span
    assert min(found.text_span) > max(found.visual) + 4


@pytest.mark.parametrize("question", ["scribe the object.", "describe the obj", "e", "describe the object."])
def test_tokens_that_reach_beyond_the_question_cover_what_they_have_of_it(mllm, question):
    prompt = mllm.prepare(noise((64, 64)), question, text="<image> describe the object. assistant :")
    assert "".join(question[low:high] for low, high in prompt.offsets) == question.replace(" ", "")
    given = mllm.prepare(prompt.image, question, inputs=prompt.inputs)
    assert (given.offsets, given.text_span) == (prompt.offsets, prompt.text_span)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs: [1, 2], "inputs must be what the model's processor gave"),
        (lambda inputs: {}, r"input_ids \(1, token\), .* got None"),
        (lambda inputs: {name: value[0] for name, value in inputs.items()}, r"got shape \(73,\)"),
        (lambda inputs: {name: torch.cat([value] * 2) for name, value in inputs.items()}, r"got shape \(2, "),
        (lambda inputs: {name: value.tolist() for name, value in inputs.items()}, "return_tensors='pt'; got"),
        (lambda inputs: {"input_ids": inputs["input_ids"]}, "must hold the image's pixels too; got input_ids"),
        (lambda inputs: {"input_ids": inputs["input_ids"], "attention_mask": torch.ones(1, 73)}, "pixels too; got att"),
        (lambda inputs: inputs | {"zebra": torch.ones(1)}, "LlavaForConditionalGeneration takes; it does not take zebra"),
        (lambda inputs: inputs | {"attention_mask": torch.ones(1, 72)}, r"each of input_ids, \(1, 73\); got \(1, 72\)"),
        (lambda inputs: inputs | {"attention_mask": torch.ones(73)}, r"each of input_ids, \(1, 73\); got \(73,\)"),
        (lambda inputs: inputs | {"pixel_values": inputs["pixel_values"].tolist()}, "got pixel_values as list"),
        (
            lambda inputs: inputs | {"pixel_values": inputs["pixel_values"].numpy()},
            "must be tensors, as a processor gives with return_tensors='pt'; got pixel_values as ndarray",
        ),
        (lambda inputs: inputs | {"input_ids": inputs["input_ids"] + 10**6}, "must be tokens of the model, 0.."),
        (lambda inputs: {name: value[:, 5:] if value.dim() == 2 else value for name, value in inputs.items()}, "must"),
    ],
)
def test_inputs_that_are_none_are_refused(mllm, change, message):
    prompt = mllm.prepare(noise((64, 64)), QUESTION)
    with pytest.raises(cm.CmllmError, match=message):
        mllm.prepare(prompt.image, QUESTION, inputs=change(dict(prompt.inputs)))


def without(name):
    return lambda inputs: {each: value for each, value in inputs.items() if each != name}


@pytest.mark.parametrize(
    ("family_name", "change", "message"),
    [
        ("qwen2_vl", without("image_grid_thw"), r"input_ids \(1, .*KeyError"),
        ("mllama", without("aspect_ratio_ids"), "needs, of one prompt and its images; .*ValueError"),
        ("instructblip", without("qformer_input_ids"), "TypeError"),
        ("llava_next", without("image_sizes"), r"needs, .*got attention_mask \(1, "),
        (
            "llava",
            lambda inputs: inputs | {"pixel_values": torch.cat([inputs["pixel_values"]] * 2)},
            r"LlavaForConditionalGeneration needs, .*pixel_values \(2, 3, .*: ValueError: Image features and image tokens",
        ),
        (
            "llava",
            lambda inputs: inputs | {"inputs_embeds": torch.zeros(1, 3, 4)},
            r"inputs_embeds \(1, 3, 4\), .*ValueError",
        ),
    ],
)
def test_what_the_model_says_of_given_tensors_is_told_as_theirs(family_name, change, message):
    mllm = cm.load(TINY[family_name]())
    prompt = mllm.prepare(noise((80, 80)), QUESTION)
    with pytest.raises(cm.PromptError, match=f"^inputs must have all that .*{message}") as refused:
        mllm.prepare(prompt.image, QUESTION, inputs=change(dict(prompt.inputs)))
    assert refused.value.__cause__ is not None


def test_memory_that_runs_out_is_no_fault_of_given_tensors(mllm, monkeypatch):
    prompt = mllm.prepare(noise((64, 64)), QUESTION)

    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr("cmllm_tools.models.prepare.record", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        mllm.prepare(prompt.image, QUESTION, inputs=prompt.inputs)


def test_what_does_not_go_together_is_refused(mllm):
    image, text = noise((64, 64)), f"<image> {QUESTION}"
    inputs = mllm.prepare(image, QUESTION).inputs
    for message, call in {
        "as text or as inputs; got both": lambda: mllm.prepare(image, QUESTION, text=text, inputs=inputs),
        "Options of the processor must be left out": lambda: mllm.prepare(image, QUESTION, inputs=inputs, padding=True),
        "with an image or a list of images; got Look": lambda: mllm.prepare(mllm.look(image), QUESTION, text=text),
        "A question must be given with a prompt that is made already": lambda: mllm.prepare(image, text=text),
        "must have the question in it, word by word": lambda: mllm.prepare(image, "is it red?", text=text),
        r"a placeholder, '<image>', for each image; got 1 for 2": lambda: mllm.prepare([image] * 2, QUESTION, text=text),
        "must stand in the inputs, after the image": lambda: mllm.prepare(image, "is it red?", inputs=inputs),
        "must be a text|must be what": lambda: mllm.prepare(image, QUESTION, text=3),
        "must stand after the image": lambda: mllm.prepare(image, QUESTION, text=f"{QUESTION} <image>"),
    }.items():
        with pytest.raises(cm.PromptError, match=message):
            call()
