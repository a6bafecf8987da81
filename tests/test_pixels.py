"""Ways of pointing that change what is sent: pixels outside the region, views of it, and what the question says of it."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests_support import noise

import cmllm_tools as cm
from cmllm_tools.inputs.overlays import COLORS, OVERLAYS, PHRASES, draw_overlay
from cmllm_tools.inputs.pixels import around, beside, hidden, placed
from cmllm_tools.models.coordinates import OWN, Coordinates, own_coordinates
from cmllm_tools.referring.method import Request

SIZES = [(336, 336), (97, 41), (30, 200), (640, 480)]


def inner_box(size):
    width, height = size
    return cm.Box(width // 4, height // 4, width // 2, height // 2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_blends_its_colour_and_touches_nothing_else(size, overlay):
    """Every pixel is the image's own, or the colour blended with it by its opacity to within 1/255; and near the region."""
    image, box = noise(size), inner_box(size)
    before = np.asarray(image).astype(int)
    for alpha in (255, 100):
        found = draw_overlay(
            image, box.cover(*size) > 0.5, overlay, np.random.default_rng(1), color="lime", alpha=alpha, min_line=1
        )
        after = np.asarray(found).astype(int)
        blended = before + (np.array(COLORS["lime"]) - before) * alpha / 255
        changed = (after != before).any(-1)
        assert changed.any()
        assert np.abs(after - blended)[changed].max() <= 1
        reach = 60 * max(size) / 336 + 8
        ys, xs = np.nonzero(changed)
        assert xs.min() >= box.x0 - reach and xs.max() <= box.x1 + reach
        assert ys.min() >= box.y0 - reach and ys.max() <= box.y1 + reach


def test_the_phrases_are_those_that_the_model_was_taught(mllm):
    """ViP-LLaVA's words for each overlay, in the place where the question asks for them, or nowhere."""
    assert set(PHRASES) == set(OVERLAYS)
    image, box = noise((96, 96)), (cm.Box(10, 10, 50, 50),)
    expected = {
        "rectangle": "what is the object within the blue rectangle?",
        "arrow": "what is the object pointed to by the blue arrow?",
        "point": "what is the object at the blue point?",
        "mask contour": "what is the object with the blue mask contour?",
    }
    for overlay, question in expected.items():
        sent = cm.methods.Drawn(overlay, color="blue").sent(Request(image, "what is the object {place}?", box), mllm)
        assert sent.question == question
    assert cm.methods.Drawn().sent(Request(image, "what is this?", box), mllm).question == "what is this?"
    circled = cm.methods.RedCircle().sent(Request(image, "what is {place}?", box), mllm)
    assert circled.question == "what is within the red circle?"
    assert Request(image, "Is the object {place} a cat?", box).named("").question == "Is the object a cat?"
    assert Request(image, "Describe the object {place}.", box).named("").question == "Describe the object."
    assert Request(image, "two  spaces stay", box).named("").question == "two  spaces stay"


@pytest.mark.parametrize("size", SIZES)
def test_a_red_circle_goes_around_and_covers_nothing_of_the_region(mllm, size):
    image, box = noise(size), inner_box(size)
    sent = cm.methods.RedCircle().sent(Request(image, "what?", (box,)), mllm)
    changed = (np.asarray(sent.image) != np.asarray(image)).any(-1)
    assert not changed[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)].any()
    assert (np.asarray(sent.image)[changed] == COLORS["red"]).all()


@pytest.mark.parametrize("fill", ["blur", "grey", "mean", "black"])
@pytest.mark.parametrize(
    "region",
    [cm.Box(10, 20, 60, 50), cm.Point(30, 30), cm.Scribble([(20, 20), (50, 40)])],
    ids=["box", "point", "scribble"],
)
def test_the_region_is_untouched_and_what_is_outside_is_hidden(mllm, fill, region):
    image = noise((90, 70))
    method = cm.methods.OutsideHidden(fill)
    sent = method.sent(Request(image, "what?", (region,)), mllm)
    before, after = np.asarray(image).astype(float), np.asarray(sent.image).astype(float)
    ys, xs = np.mgrid[0:70, 0:90]
    inside = region.cover(90, 70) > 0.5
    if region.soft:
        marked = np.argwhere(inside)
        inside = np.min([(ys - y) ** 2 + (xs - x) ** 2 for y, x in marked], axis=0) ** 0.5 <= 0.1 * 90
    assert (after[inside] == before[inside]).all()
    outside = after[~inside]
    if fill == "mean":
        assert (outside == np.round(before.reshape(-1, 3).mean(0))).all()
    elif fill == "black":
        assert not outside.any()
    elif fill == "grey":
        assert (np.ptp(outside, axis=1) == 0).all()
        assert np.abs(outside[:, 0] - before[~inside] @ [0.299, 0.587, 0.114]).max() <= 1
    else:
        assert outside.std() < before[~inside].std() / 3
    assert sent.regions == (region,)


def test_several_regions_are_all_kept():
    image = noise((50, 50))
    mask = np.zeros((50, 50), bool)
    mask[5:10, 5:10] = True
    assert np.array_equal(np.asarray(hidden(image, mask, "black")).any(-1) | mask, np.asarray(image).any(-1) | mask)


@pytest.mark.parametrize("margin", [0.0, 0.25, 3.0])
@pytest.mark.parametrize("size", SIZES)
def test_a_crop_is_the_rectangle_with_its_margin(mllm, size, margin):
    image, box = noise(size), inner_box(size)
    sent = cm.methods.Crop(margin=margin).sent(Request(image, "what?", (box,)), mllm)
    across, down = margin * (box.x1 - box.x0), margin * (box.y1 - box.y0)
    corners = (
        max(round(box.x0 - across), 0),
        max(round(box.y0 - down), 0),
        min(round(box.x1 + across), size[0]),
        min(round(box.y1 + down), size[1]),
    )
    assert np.array_equal(sent.image, image.crop(corners))
    assert sent.regions == (box.moved(-corners[0], -corners[1]),)


def test_a_crop_has_four_pixels_a_side_also_at_the_edge():
    mask = np.zeros((40, 60), bool)
    mask[39, 59] = True
    x0, y0, x1, y1 = around(mask, 0.0)
    assert (x1 - x0, y1 - y0) == (4, 4)
    assert (x1, y1) == (60, 40)


MASKED = np.zeros((60, 80), bool)
MASKED[20:30, 10:40] = True


@pytest.mark.parametrize(
    "region",
    [cm.Box(10, 20, 40, 30), cm.Mask(MASKED), cm.Point(25, 25), cm.Scribble([(12, 22), (30, 28)])],
    ids=["box", "mask", "point", "scribble"],
)
def test_regions_go_with_the_pixels_that_they_mark(region):
    """What a region marks of a picture with two views looks as what it marks of the image; and so within a crop."""
    values = np.zeros((60, 80, 3), np.uint8)
    values[20:30, 10:40] = (255, 0, 0)
    image = Image.fromarray(values)
    corners = (5, 15, 45, 35)
    picture, regions = beside(image, corners, [region])
    assert picture.size == (160, 120)
    assert len(regions) == 2
    for each in regions:
        marked = each.cover(*picture.size) > 0.5
        assert marked.any()
        assert (np.asarray(picture)[marked][:, 0] > 100).all()
    kept = placed(region, corners, 1.0, (0, 0), (40, 20))
    assert (np.asarray(image.crop(corners))[kept.cover(40, 20) > 0.5] == (255, 0, 0)).all()
    assert placed(region, (60, 40, 80, 60), 1.0, (0, 0), (20, 20)) is None


@pytest.mark.slow
def test_what_was_sent_is_kept_and_shown(mllm, scene, tmp_path):
    """A picture of another size, with the region where it is in that picture; the user's own stays what it was."""
    box = scene.region("box")
    for way in (cm.methods.ZoomAndKeep(), cm.methods.Crop(), cm.methods.OutsideHidden("blur")):
        for region in (box, scene.region("mask"), scene.region("point")):
            outcome = cm.refer(mllm, scene.image, scene.question, region, way, max_new_tokens=4)
            assert outcome.regions == (region,)
            assert outcome.size == scene.image.size
            found = cm.Outcome.load(outcome.save(tmp_path / "outcome.safetensors"))
            assert found.sent.regions == outcome.sent.regions
            assert (found.regions, found.size, found.sent.size) == ((region,), outcome.size, outcome.sent.image.size)
            assert "sent" in found._repr_html_()
            assert outcome.answer == mllm.generate(
                mllm.prepare(outcome.sent.image, outcome.sent.question), max_new_tokens=4
            )


def test_coordinates_in_the_question(mllm, scene):
    box = cm.Box(48, 0, 144, 96)
    for unit, expected in (
        ("share", "[0.25, 0.00, 0.75, 0.50]"),
        ("thousandth", "[250, 0, 750, 500]"),
        ("pixel", "[48, 0, 144, 96]"),
        # The embedded model is a LLaVA.
        ("own", "[0.25, 0.00, 0.75, 0.50]"),
    ):
        sent = cm.methods.Words(unit, "{question} At {place}.").sent(Request(scene.image, "what ?", (box,)), mllm)
        assert sent.image is scene.image
        assert sent.question == f"what ? At {expected}."
        sent = cm.methods.Words(unit).sent(Request(scene.image, "what is at {place} ?", (box,)), mllm)
        assert sent.question == f"what is at {expected} ?"
    sent = cm.methods.Words().sent(Request(scene.image, "what ?", (cm.Point(96, 48), box)), mllm)
    assert sent.question == "what ? Answer for the region [0.50, 0.25] and [0.25, 0.00, 0.75, 0.50]."
    with pytest.raises(cm.SettingsError, match=r"template must have .question. and .place. in it"):
        cm.methods.Words(template="{question}")


def test_coordinates_as_families_were_taught_them():
    bounds, size = (10.0, 20.0, 60.0, 40.0), (100, 80)
    expected = {
        "llava": "[0.10, 0.25, 0.60, 0.50]",
        "paligemma": "<loc0256><loc0102><loc0512><loc0614>",
        "fuyu": "<box>20, 10, 40, 60</box>",
        "qwen2_vl": "<|box_start|>(100,250),(600,500)<|box_end|>",
        "qwen3_vl": "[100, 250, 600, 500]",
        "internvl": "<box>[[100, 250, 600, 500]]</box>",
    }
    for family, text in expected.items():
        assert OWN[family].written(bounds, size) == text
    assert OWN["qwen2_5_vl"].written(bounds, size, (140, 112)) == "[14, 28, 84, 56]"
    assert OWN["paligemma"].written((100, 80, 100, 80), size) == "<loc1023><loc1023>"
    assert Coordinates("pixel").written((-5, 0, 200, 80), size) == "[0, 0, 100, 80]"
    other = SimpleNamespace(family=SimpleNamespace(name="idefics"))
    with pytest.raises(
        cm.UnsupportedModelError, match=r"own coordinates are known of llava, .*; got idefics. Give another"
    ):
        own_coordinates(other)
