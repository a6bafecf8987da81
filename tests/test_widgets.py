"""The widgets without a browser: traits, what travels, errors, and the picture for readers without a kernel."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.inputs.regions import region_from_json
from cmllm_tools.layout.visual_tokens import VisualTokenLayout, fixed_grid, grid_boxes

WIDTH, HEIGHT = 60, 40


def picture(width=WIDTH, height=HEIGHT):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def mask():
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[5:20, 10:30] = True
    return cm.Mask(pixels)


REGIONS = [cm.Box(1, 2.5, 30, 20.25), mask(), cm.Scribble([(1, 2), (10.5, 20)]), cm.Point(59.5, 0)]
KINDS = ["box", "mask", "scribble", "point"]


def draw(picker, *regions):
    """What the browser does: it sends the whole list, and takes back the error it shows."""
    picker.set_state({"_error": "", "_regions": list(regions)})


@pytest.fixture
def picker():
    return cm.widgets.RegionPicker(picture())


@pytest.mark.parametrize("region", REGIONS, ids=KINDS)
def test_drawn_region_is_the_same_as_the_written_one(picker, region):
    assert picker.region is None
    draw(picker, region.to_json())
    assert picker.region == region
    assert picker.regions == (region,)
    assert type(picker.region) is type(region)


@pytest.mark.parametrize("region", REGIONS, ids=KINDS)
def test_region_set_from_python_is_drawn(picker, region):
    picker.region = region
    assert [region_from_json(data) for data in picker.get_state()["_regions"]] == [region]
    assert picker.region is region
    picker.region = None
    assert picker.regions == ()
    assert picker.get_state()["_regions"] == []


def test_regions_keep_their_order_and_identity(picker):
    picker.regions = REGIONS
    added = cm.Point(3, 4)
    draw(picker, *picker.get_state()["_regions"], added.to_json())
    assert picker.regions == (*REGIONS, added)
    assert all(one is other for one, other in zip(picker.regions, REGIONS, strict=False))
    draw(picker)
    assert picker.regions == ()
    assert cm.widgets.RegionPicker(picture(), REGIONS[0]).regions == (REGIONS[0],)


def test_listeners_hear_of_each_drawing(picker):
    heard = []
    picker.observe(lambda change: heard.append(change["new"]), "regions")
    draw(picker, REGIONS[0].to_json())
    draw(picker, REGIONS[0].to_json(), {"kind": "box", "corners": [3, 3, 3, 9]})
    draw(picker)
    assert heard == [(REGIONS[0],), ()]


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ({"kind": "box", "corners": [3, 3, 3, 9]}, "A box needs x0 < x1 and y0 < y1"),
        ({"kind": "box", "corners": [3, 3, 300, 9]}, "A box must lie within the image of 60 x 40 px"),
        ({"kind": "point", "position": [3, -1]}, "A point must lie within the image"),
        ({"kind": "scribble", "points": []}, "A scribble needs at least one"),
        ({"kind": "mask", "size": [40, 60], "counts": [2400]}, "A mask needs at least one marked pixel"),
        ({"kind": "mask", "size": [40, 60], "counts": [3, 2]}, "The run lengths must add up to 2400"),
        ({"kind": "mask", "size": [40, 60], "counts": [2401, -1]}, "A stored region needs a kind"),
        ({"kind": "mask", "size": [2, 2], "counts": [0, 4]}, "A mask needs the image's shape"),
        ({"kind": "star"}, "kind must be box, mask, scribble or point"),
        ("nonsense", "A stored region needs a kind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_drawing_leaves_the_last_valid_regions(picker, drawn, words):
    picker.region = REGIONS[0]
    for _ in range(2):
        draw(picker, REGIONS[0].to_json(), drawn)
        state = picker.get_state()
        assert words in state["_error"]
        assert state["_regions"] == [REGIONS[0].to_json()]
        assert picker.regions == (REGIONS[0],)
    draw(picker, REGIONS[3].to_json())
    assert picker.get_state()["_error"] == ""


def test_errors_in_python_are_raised(picker):
    picker.region = REGIONS[0]
    with pytest.raises(cm.RegionError, match="must lie within the image of 60 x 40 px"):
        picker.region = cm.Box(0, 0, 61, 10)
    with pytest.raises(cm.RegionError, match="must be a Box, Mask, Scribble or Point; got str"):
        picker.regions = ["box"]
    assert picker.regions == (REGIONS[0],)
    with pytest.raises(cm.ImageError, match="There is no image"):
        cm.widgets.RegionPicker("nowhere.png")
    with pytest.raises(cm.ImageError, match=r"got an image of 60 x 40 px and a layout for 30 x 30 px. Give prompt.image"):
        cm.widgets.RegionPicker(picture(), layout=fixed_grid((30, 30), (4, 4), None, (4, 4)))
    with pytest.raises(cm.RegionError, match="sigma must be above 0; got 0"):
        cm.widgets.RegionPicker(picture(), sigma=0)
    with pytest.raises(cm.RegionError, match="VisualTokenLayout"):
        cm.widgets.RegionPicker(picture(), layout={"width": "50%"})


CROP = fixed_grid((WIDTH, HEIGHT), (12, 8), (8, 8), (4, 4))
TILES = VisualTokenLayout(
    (WIDTH, HEIGHT),
    np.concatenate([grid_boxes((0, 0, WIDTH, HEIGHT), (4, 6)), grid_boxes((0, 0, WIDTH, HEIGHT), (2, 2))]),
    (4, 6),
    "tiles, then the whole",
    merged=True,
)


@pytest.mark.parametrize("layout", [CROP, TILES], ids=["crop", "tiles"])
def test_tint_is_the_weight_of_each_token(layout):
    box, point = cm.Box(15, 5, 30, 25), cm.Point(35, 20)
    picker = cm.widgets.RegionPicker(picture(), layout=layout)
    assert np.array_equal(picker._boxes, np.round(layout.boxes, 2))
    assert picker._weights == [0] * len(layout)
    draw(picker, box.to_json())
    assert np.allclose(picker._weights, layout.inside(box), atol=1e-3)
    draw(picker, box.to_json(), point.to_json())
    near = np.exp(-(layout.distance(point) ** 2) / (2 * 0.1**2))
    assert np.allclose(picker._weights, np.maximum(layout.inside(box), near), atol=1e-3)
    assert np.allclose(picker.weights(), picker._weights, atol=1e-3)
    picker.sigma = 0.4
    near = np.exp(-(layout.distance(point) ** 2) / (2 * 0.4**2))
    assert np.allclose(picker._weights, np.maximum(layout.inside(box), near), atol=1e-3)
    picker.token_layout = None
    assert picker._weights == picker._boxes == []


def test_regions_that_the_model_does_not_see():
    picker = cm.widgets.RegionPicker(picture(), layout=CROP)
    outside = cm.Box(0, 0, 9, 9)
    draw(picker, outside.to_json())
    assert "lies outside what the model sees: its crop is x 10..50" in picker._error
    with pytest.raises(cm.RegionError, match="outside what the model sees"):
        picker.region = outside
    draw(picker, cm.Box(0, 0, 20, 10).to_json())
    assert picker._error == ""
    assert picker._note.startswith("50% of Box")
    draw(picker)
    assert picker._note == ""
    without = cm.widgets.RegionPicker(picture(), outside)
    with pytest.raises(cm.RegionError, match="outside what the model sees"):
        without.token_layout = CROP
    assert without.token_layout is None


def test_a_prompt_has_what_a_picker_needs(prompt, box):
    picker = cm.widgets.RegionPicker(prompt.image, box, prompt.layout)
    assert len(picker._weights) == len(prompt.layout)
    assert np.allclose(picker.weights(), prompt.layout.inside(box))


def test_masks_travel_as_run_lengths():
    pixels = np.zeros((3000, 4000), bool)
    pixels[500:2500, 1000:3000] = True
    picker = cm.widgets.RegionPicker(picture(4000, 3000), cm.Mask(pixels))
    assert len(picker._regions[0]["counts"]) == 2 * 2000 + 1


def test_image_travels_once_and_reduced():
    picker = cm.widgets.RegionPicker(picture(4000, 3000))
    sent = Image.open(io.BytesIO(picker._image))
    assert (sent.format, sent.size) == ("JPEG", (1280, 960))
    assert picker.get_state()["_size"] == [4000, 3000]
    small = Image.open(io.BytesIO(cm.widgets.RegionPicker(picture())._image))
    assert small.format == "PNG"
    assert np.array_equal(np.asarray(small), np.asarray(picture()))


def still(picker):
    """The picture for readers without a kernel."""
    kind, data = re.search(r'src="data:image/(\w+);base64,([^"]+)"', picker._repr_mimebundle_()[0]["text/html"]).groups()
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_bundle_has_the_widget_and_a_picture(picker):
    white = cm.widgets.RegionPicker(Image.new("RGB", (WIDTH, HEIGHT), "white"), [cm.Box(10, 10, 30, 30), cm.Point(50, 20)])
    data, _ = white._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == white.model_id
    shown = np.asarray(still(white)[1].convert("L"))
    assert shown.shape == (HEIGHT, WIDTH)
    assert shown[10, 20] == shown[20, 30] == 255
    assert shown[8, 20] == shown[20, 32] == 0
    assert shown[20, 45] == 0
    kind, large = still(cm.widgets.RegionPicker(picture(1600, 800), cm.Scribble([(0, 0), (1599, 799)])))
    assert (kind, large.size) == ("jpeg", (640, 320))
    for region in REGIONS:
        picker.region = region
        assert still(picker)[0] == "png"


def test_picture_is_kept_beside_the_widget_and_renewed(picker, monkeypatch):
    sent = []
    for name in ("display", "update_display"):
        monkeypatch.setattr(f"IPython.display.{name}", lambda data, how=name, **options: sent.append((how, data, options)))
    picker.region = REGIONS[0]
    assert sent == []
    picker._ipython_display_()
    picker.region = REGIONS[1]
    hows, (widget, first, second), options = zip(*sent, strict=True)
    assert hows == ("display", "display", "update_display")
    assert set(widget) == {"application/vnd.jupyter.widget-view+json", "text/plain"}
    assert (widget["text/plain"], second["text/plain"]) == ("RegionPicker", repr(picker))
    mark = options[1]["display_id"]
    assert mark == options[2]["display_id"]
    assert f"{mark}-alive" in picker._dom_classes
    for page in (first["text/html"], second["text/html"]):
        assert f"body:has(.{mark}-alive) .{mark}" in page
        assert f'<div class="{mark}"><img src="data:image/png' in page
    assert first["text/html"] != second["text/html"]


def test_text_names_image_and_regions(picker):
    assert repr(picker) == "RegionPicker(image 60 x 40 px: no region yet)"
    picker.regions = REGIONS[:2]
    assert repr(picker) == ("RegionPicker(image 60 x 40 px: Box(x0=1, y0=2.5, x1=30, y1=20.25), Mask(300 of 60 x 40 px))")


def test_module_needs_nothing_from_the_net():
    picker = cm.widgets.RegionPicker(picture())
    assert "http" not in str(picker._esm) + str(picker._css)
    assert "import " not in str(picker._esm)
    assert "export default { render }" in str(picker._esm)


def test_without_anywidget_the_error_says_what_to_install():
    code = "import sys; sys.modules['anywidget'] = None; import cmllm_tools as cm; cm.widgets"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'cmllm_tools[notebook]'" in result.stderr
    with pytest.raises(AttributeError, match="no attribute 'gadgets'"):
        cm.gadgets  # noqa: B018
