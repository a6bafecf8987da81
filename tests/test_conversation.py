"""Conversations: messages as prompts, each image laid out by itself, regions of one image, and what refuses."""

import numpy as np
import pytest
import torch
from tests_support import noise

import cmllm_tools as cm
from cmllm_tools.inputs.conversation import Conversation, read_messages
from cmllm_tools.inputs.regions import region_from_json
from cmllm_tools.layout.sheet import cut_up, own_region, region_on_sheet, sheet_corners, sheet_of, sheet_size
from cmllm_tools.layout.visual_tokens import VisualTokenLayout
from cmllm_tools.models.conversation_text import conversation_text
from cmllm_tools.referring.target import Target

ASK = "describe the object."
IMAGES = [noise((96, 64)), noise((48, 80))]
SIZES = [image.size for image in IMAGES]


def said():
    first, second = IMAGES
    return [
        {"role": "system", "content": "look at the picture"},
        {"role": "user", "content": [{"type": "image", "image": first}, {"type": "text", "text": "is it red?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "it is red"}]},
        {"role": "user", "content": ["and here", second, ASK]},
    ]


@pytest.fixture(scope="module")
def talk(mllm):
    return mllm.prepare(said())


# Messages.


def test_messages_are_read_in_every_form(tmp_path):
    IMAGES[0].save(tmp_path / "a.png")
    forms = [
        [{"role": "user", "content": [{"type": "image", "path": str(tmp_path / "a.png")}, {"type": "text", "text": ASK}]}],
        [{"role": "user", "content": [{"type": "image", "image": IMAGES[0]}, ASK]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": str(tmp_path / "a.png")}}, ASK]}],
        [{"role": "user", "content": (np.asarray(IMAGES[0]), ASK)}],
    ]
    talks = [read_messages(form) for form in forms]
    talks.append(read_messages([{"role": "user", "content": [{"type": "image"}, ASK]}], [IMAGES[0]]))
    for each in talks:
        assert each.turns == talks[0].turns
        assert each.turns[0].parts == (0, ASK)
        assert each.question == ASK
        assert np.array_equal(each.images[0], IMAGES[0])


@pytest.mark.parametrize(
    ("messages", "images", "message"),
    [
        ([{"role": "user", "content": ASK}], (), "at least one; 0 of 0 are left, and it shows 0"),
        ([{"role": "user", "content": [IMAGES[0], ASK]}], IMAGES, "2 of 2 are left"),
        ([{"role": "user", "content": [{"type": "image"}, ASK]}], (), "one has none"),
        ([{"role": "user", "content": [IMAGES[0]]}], (), "must end with a user's question"),
        (
            [{"role": "user", "content": [IMAGES[0], ASK]}, {"role": "assistant", "content": "red"}],
            (),
            "must end with a user's question",
        ),
        ([{"role": "user", "content": [{"type": "video", "video": "a.mp4"}, ASK]}], (), "must be a text or an image"),
        ([{"role": "user", "content": [IMAGES[0], ASK], "tool": 3}], (), "a role and a content, and nothing else"),
        ([{"content": [IMAGES[0], ASK]}], (), "a role and a content"),
        ([{"role": "user", "content": None}], (), "must be a text or an image"),
        ([{"role": "user", "content": []}], (), "must be a text, or texts and images"),
    ],
)
def test_what_is_no_conversation(mllm, messages, images, message):
    with pytest.raises(cm.PromptError, match=message):
        mllm.prepare(messages, images=images or None)


def test_a_question_is_given_once(mllm):
    with pytest.raises(cm.PromptError, match="must have a question, as prepare"):
        mllm.prepare(IMAGES[0])
    with pytest.raises(cm.PromptError, match="must have a question, as prepare"):
        mllm.prepare(said(), ASK)
    with pytest.raises(cm.PromptError, match="images and chat_template must be left out"):
        mllm.prepare(IMAGES[0], ASK, images=IMAGES)
    with pytest.raises(cm.PromptError, match="A conversation has its question"):
        cm.refer(mllm, said(), ASK, cm.Box(2, 2, 9, 9, image=0))


# Prompts.


def test_one_image_and_one_question_are_the_same_either_way(mllm):
    plain, talk = mllm.prepare(IMAGES[0], ASK), mllm.prepare([{"role": "user", "content": [IMAGES[0], ASK]}])
    assert (talk.text, talk.tokens, talk.visual, talk.text_span) == (
        plain.text,
        plain.tokens,
        plain.visual,
        plain.text_span,
    )
    assert repr(talk.layout) == repr(plain.layout)
    assert torch.equal(talk.inputs["pixel_values"], plain.inputs["pixel_values"])
    assert plain.conversation is None
    assert plain.images[0] is plain.image
    assert mllm.generate(talk).ids == mllm.generate(plain).ids


def test_each_image_has_its_own_layout_and_its_own_states(mllm, talk):
    assert len(talk.images) == len(talk.layouts) == 2
    states = talk.call.visual_states
    for number, image in enumerate(IMAGES):
        alone = mllm.prepare(image, ASK)
        assert np.array_equal(talk.layouts[number].boxes, alone.layout.boxes)
        assert talk.layouts[number].image_size == image.size
        own = states[talk.layout.tokens_of(number)]
        torch.testing.assert_close(own, alone.call.visual_states, atol=1e-4, rtol=1e-4)
    assert [talk.tokens[at] for at in talk.positions("text")] == ["describe", "the", "object", "."]
    assert talk.image.size == talk.layout.image_size == sheet_size(SIZES)
    assert "2 images" in repr(talk)
    assert talk._repr_html_()


def test_a_template_is_the_users_or_takes_one_text(mllm):
    as_text = "{% for m in messages %}{{ m['role'] }} {{ m['content'] + ' ' }}{% endfor %}:"
    prompt = mllm.prepare(said(), chat_template=as_text)
    assert prompt.text == conversation_text(mllm, read_messages(said(), (), as_text))
    assert prompt.text.startswith(
        "system look at the picture user <image>\nis it red? assistant it is red user and here<image>"
    )
    assert prompt.layout.sizes == tuple(SIZES)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "it left out, changed or moved 'look at the picture'"),
        ("{{ messages[3]['content'] + messages[1]['content'] }}", "must keep all that was said, in its order"),
        ("{% for m in messages %}{{ (m['content'] + '').upper() }}{% endfor %}", "changed or moved"),
        ("{{ messages[9].x.y }}", "list object has no element 9"),
    ],
)
def test_a_template_that_changes_or_moves_what_was_said(mllm, template, message):
    with pytest.raises(cm.PromptError, match=message):
        mllm.prepare(said(), chat_template=template)


def test_without_any_template_there_is_one_turn(mllm, monkeypatch):
    for part in (mllm.processor, mllm.processor.tokenizer):
        monkeypatch.setattr(part, "chat_template", None)
    with pytest.raises(cm.PromptError, match="needs a chat template"):
        mllm.prepare(said())
    prompt = mllm.prepare([{"role": "user", "content": [*IMAGES, ASK]}])
    assert prompt.text == f"USER: <image><image>\n{ASK} ASSISTANT:"
    assert len(prompt.layouts) == 2


def test_words_that_stand_for_an_image_are_refused(mllm):
    with pytest.raises(cm.PromptError, match="must not contain the image placeholder '<image>'"):
        mllm.prepare([{"role": "user", "content": [IMAGES[0], "what is <image> ?"]}])


# The sheet and its regions.

REGIONS = [cm.Box(3, 4, 40, 30), cm.Point(20, 30), cm.Scribble([(5, 5), (30, 40)])]


def mask(size, box):
    pixels = np.zeros(size[::-1], bool)
    pixels[box[1] : box[3], box[0] : box[2]] = True
    return cm.Mask(pixels)


def test_a_sheet_is_cut_up_into_its_images():
    for image, again in zip(IMAGES, cut_up(sheet_of(IMAGES), SIZES), strict=True):
        assert np.array_equal(image, again)
    assert sheet_of(IMAGES[:1]) is IMAGES[0]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("region", [*REGIONS, "mask"], ids=lambda region: getattr(type(region), "__name__", "mask"))
def test_a_region_goes_to_the_sheet_and_back(number, region):
    region = mask(SIZES[number], (3, 5, 20, 30)) if region == "mask" else region
    shown = region_on_sheet(region.on(number), SIZES)
    assert shown.image is None
    assert own_region(shown, SIZES) == own_region(region.on(number), SIZES) == region
    left = sheet_corners(SIZES)[number][0]
    assert shown.bounds[0] == region.bounds[0] + left


def test_a_region_is_on_one_image(talk):
    layout, (left, _) = talk.layout, sheet_corners(SIZES)[1]
    by_number = layout.inside(cm.Box(4, 20, 30, 60, image=1))
    assert np.array_equal(by_number, layout.inside(cm.Box(4 + left, 20, 30 + left, 60)))
    assert np.array_equal(by_number[layout.tokens_of(1)], talk.layouts[1].inside(cm.Box(4, 20, 30, 60)))
    assert by_number[layout.tokens_of(0)].sum() == 0
    for region, message in (
        (cm.Box(80, 20, 120, 60), "lies on none or several"),
        (cm.Box(2, 2, 9, 9, image=2), "must be one of the prompt's 2, numbered from 0"),
        (cm.Box(2, 2, 60, 9, image=1), "must lie within the image of 48 x 80 px"),
    ):
        with pytest.raises(cm.RegionError, match=message):
            layout.inside(region)
    with pytest.raises(cm.RegionError, match="must be one of the prompt's 1, numbered from 0"):
        talk.layouts[0].inside(cm.Box(2, 2, 9, 9, image=1))
    with pytest.raises(cm.RegionError, match="number of a region's image must be a whole number"):
        cm.Box(2, 2, 9, 9, image="left")


def test_a_region_keeps_its_number():
    box = cm.Box(1, 2, 3, 4, image=1)
    assert repr(box) == "Box(x0=1, y0=2, x1=3, y1=4, image=1)"
    assert repr(box.on(None)) == "Box(x0=1, y0=2, x1=3, y1=4)"
    assert box.moved(1, 1).image == 1
    marked = cm.Mask(np.ones((4, 4), bool), image=1)
    for region in (box, cm.Point(1, 2, image=1), cm.Scribble([(1, 2)], image=1), marked, marked.moved(1, 1)):
        again = region_from_json(region.to_json())
        assert (again, again.image) == (region, 1)
        assert region != region.on(None)
        assert "image" not in region.on(None).to_json()


def test_a_soft_region_counts_on_its_own_image_alone(mllm, talk):
    weights = Target.of(talk.layout, cm.Point(20, 30, image=1), 0.4).weights()
    assert weights[talk.layout.tokens_of(0)].max() == 0
    alone = Target.of(talk.layouts[1], cm.Point(20, 30), 0.4).weights()
    torch.testing.assert_close(weights[talk.layout.tokens_of(1)], alone)


def test_a_layout_of_several_images_is_saved(talk):
    again = VisualTokenLayout.from_json(talk.layout.to_json())
    assert np.array_equal(again.boxes, talk.layout.boxes)
    assert again.sizes == talk.layout.sizes


# What is done with them.


def test_maps_and_figures_show_all_images(mllm, talk):
    attention = cm.capture_attention(mllm, talk)
    cmap = cm.context_map(attention)
    assert cmap.image.size == sheet_size(SIZES)
    assert cmap.grid.sum() == pytest.approx(cmap.values.sum().item(), rel=1e-4)
    assert cmap._repr_html_()
    with pytest.warns(cm.RegionWarning, match="lies outside what the model sees"):
        shares = [cm.region_share(cmap, mask(size, (0, 0, *size)).on(number)) for number, size in enumerate(SIZES)]
    assert sum(shares) == pytest.approx(1, rel=1e-4)
    figure = cm.figures.map_on_image(cmap, talk.image, cm.Box(4, 20, 30, 60, image=1))
    assert figure.to_json()


def test_one_image_of_several_is_steered_to(mllm, talk, tmp_path):
    box = cm.Box(4, 20, 40, 60, image=1)
    trace = cm.optimize(mllm, talk, box, cm.ControlMLLMPlus(steps=3))
    assert trace.steps[-1].share > trace.steps[0].share
    again = cm.Trace.load(trace.save(tmp_path / "run.safetensors"))
    assert again.layout.sizes == tuple(SIZES)
    assert np.array_equal(again.target.weights(), trace.target.weights())
    assert again.steps[-1].share == pytest.approx(trace.steps[-1].share)


METHODS = [
    cm.methods.AttentionEdit(),
    cm.methods.Crop(),
    cm.methods.RegionGuidance(),
    cm.methods.PromptHighlighter(),
    cm.ControlMLLMPlus(steps=1),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.called())
def test_a_method_changes_the_image_that_the_region_is_on(mllm, method, tmp_path):
    outcome = cm.refer(mllm, said(), None, cm.Box(12, 30, 22, 40, image=1), method)
    sent = outcome.sent.conversation
    assert np.array_equal(sent.images[0], IMAGES[0])
    changed = not np.array_equal(sent.images[1], IMAGES[1])
    assert changed == isinstance(method, cm.methods.Crop)
    assert outcome.question == ASK
    again = outcome.prompt(mllm)
    assert again.text == outcome.sent.text
    assert mllm.generate(again, outcome.intervention).ids == outcome.answer.ids
    opened = cm.Outcome.load(outcome.save(tmp_path / "outcome.safetensors"))
    assert mllm.generate(opened.prompt(mllm), opened.intervention).ids == outcome.answer.ids
    assert opened.regions == outcome.regions
    assert opened._repr_html_()


@pytest.mark.slow
def test_a_method_that_changes_an_image_takes_regions_of_one(mllm):
    boxes = [cm.Box(20, 20, 60, 60, image=0), cm.Box(4, 20, 40, 60, image=1)]
    with pytest.raises(cm.SettingsError, match=r"changes one image, .* these are on images \[0, 1\]"):
        cm.refer(mllm, said(), None, boxes, cm.methods.Crop())
    assert cm.refer(mllm, said(), None, boxes, cm.methods.AttentionEdit()).regions == tuple(
        region_on_sheet(box, SIZES) for box in boxes
    )


@pytest.mark.slow
def test_ways_are_compared_in_a_conversation(mllm):
    found = cm.compare(
        mllm, said(), None, cm.Box(4, 20, 40, 60, image=1), methods=[cm.methods.AttentionEdit()], candidates=["red", "blue"]
    )
    assert len(found.rows) == 2
    assert found.question == ASK


def test_an_explorer_and_a_picker_show_the_sheet(mllm, talk):
    explorer = cm.widgets.AttentionExplorer(mllm, talk, cm.Box(4, 20, 40, 60, image=1))
    assert explorer.regions == (region_on_sheet(cm.Box(4, 20, 40, 60, image=1), SIZES),)
    picker = cm.widgets.RegionPicker(talk.image, cm.Box(4, 20, 40, 60, image=1), talk.layout)
    np.testing.assert_allclose(picker.weights(), talk.layout.inside(cm.Box(4, 20, 40, 60, image=1)))


def test_head_shares_are_compared_with_places_of_the_same_image(mllm, talk):
    grid = cm.analysis.head_shares(cm.capture_attention(mllm, talk), cm.Box(4, 20, 20, 40, image=1))
    assert grid.values.max() > 0


def test_keys_are_steered_and_text_goes_on_from_two_images(mllm, talk):
    trace = cm.optimize(mllm, talk, cm.Box(4, 20, 40, 60, image=1), cm.methods.KeySteering(steps=2))
    assert mllm.generate(talk, trace)


def test_a_conversation_says_what_it_is(talk):
    assert isinstance(talk.conversation, Conversation)
    assert "2 images (96 x 64 px, 48 x 80 px)" in repr(talk.conversation)


def test_a_reopened_outcome_without_its_images_is_saved_again(mllm, tmp_path):
    asked = [{"role": "user", "content": [noise((500, 300)), noise((400, 300)), ASK]}]
    outcome = cm.refer(mllm, asked, None, cm.Box(150, 20, 300, 160, image=0), cm.methods.AttentionEdit())
    opened = cm.Outcome.load(outcome.save(tmp_path / "one.safetensors"))
    again = cm.Outcome.load(opened.save(tmp_path / "two.safetensors"))
    assert again.sent.conversation.images == ()
    assert again.sent.conversation.sizes == ((500, 300), (400, 300))
    assert again.sent.conversation.to_json() == outcome.sent.conversation.to_json()


def test_a_blank_text_at_the_end_is_no_question(mllm):
    prompt = mllm.prepare([{"role": "user", "content": [IMAGES[0], ASK, " "]}])
    assert prompt.question == ASK
    assert [prompt.tokens[at] for at in prompt.text_span] == ["describe", "the", "object", "."]
    assert prompt.conversation.asking("what").turns[-1].parts == (0, "what", " ")
