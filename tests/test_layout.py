import json
import warnings

import numpy as np
import pytest
from PIL import Image
from tests_support import probe_boxes
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.layout.grid_rules import clip_grid
from cmllm_tools.layout.placement import LayoutInputs
from cmllm_tools.layout.visual_tokens import VisualTokenLayout, fixed_grid, grid_boxes

SIZES = [(96, 96), (33, 32), (100, 64), (64, 100), (301, 40), (40, 303), (20, 20)]


@pytest.fixture(scope="module")
def llava():
    return tiny_llava()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_are_where_the_processor_looks(llava, size):
    """Independent of the layout's arithmetic: move a patch over the image and see which patches of the input change."""
    model, processor = llava
    layout = clip_grid(LayoutInputs(model, processor, size, {}, 16)).layout(size)
    found = probe_boxes(processor, size, grid=4)
    # The probe is exact to its own patch and to the reach of the resampling filter.
    step = max(1, round((size[0] * size[1]) ** 0.5 / 20))
    tolerance = step + 1.5 * max(1.0, min(size) / 32)
    width, height = size
    for box, (x0, y0, x1, y1) in zip(layout.boxes, found, strict=True):
        expected = np.clip(box, 0, [width, height, width, height])
        assert np.abs(expected - [x0, y0, x1, y1]).max() <= tolerance


def test_without_crop_the_grid_covers_the_whole_image():
    layout = fixed_grid((50, 20), (32, 32), None, (4, 4))
    assert layout.seen == (0, 0, 50, 20)
    assert layout.rule == "fixed grid"


def test_inside_is_the_exact_share_of_area():
    layout = fixed_grid((40, 40), (4, 4), (4, 4), (4, 4))
    box = cm.Box(5, 0, 25, 40)
    expected = np.tile([0.5, 1, 0.5, 0], 4)
    assert layout.inside(box) == pytest.approx(expected)
    mask = cm.Mask(box.cover(40, 40))
    assert layout.inside(mask) == pytest.approx(expected)


def test_inside_adds_up_to_the_region_for_fractional_boxes():
    layout = fixed_grid((37, 53), (22, 32), None, (5, 7))
    box = cm.Box(3.3, 7.7, 20.1, 40.9)
    areas = np.prod(layout.boxes[:, 2:] - layout.boxes[:, :2], axis=1)
    assert (layout.inside(box) * areas).sum() == pytest.approx(16.8 * 33.2, rel=1e-5)


def test_distance_is_zero_on_the_mark_and_grows_to_one():
    layout = fixed_grid((64, 64), (64, 64), (64, 64), (8, 8))
    distance = layout.distance(cm.Point(4, 4))
    assert distance.argmin() == 0
    assert distance.argmax() == 63
    assert 0 <= distance.min() < 0.06
    assert 0.9 < distance.max() <= 1


def test_distance_on_a_large_image_is_that_on_a_small_one():
    small, large = (fixed_grid((size, size), (32, 32), (32, 32), (4, 4)) for size in (512, 4096))
    scribble = [(100, 200), (300, 240)]
    near = small.distance(cm.Scribble(scribble))
    far = large.distance(cm.Scribble([(8 * x, 8 * y) for x, y in scribble]))
    assert far == pytest.approx(near, abs=0.01)


def test_region_outside_the_crop_is_refused():
    layout = fixed_grid((100, 40), (80, 32), (32, 32), (4, 4))
    with pytest.raises(cm.RegionError, match=r"outside what the model sees: its crop is x 30\.\.70, y 0\.\.40"):
        layout.inside(cm.Box(0, 0, 20, 20))
    with pytest.raises(cm.RegionError, match="outside what the model sees"):
        layout.distance(cm.Point(95, 20))


def test_region_partly_outside_the_crop_warns_with_the_fraction():
    layout = fixed_grid((100, 40), (80, 32), (32, 32), (4, 4))
    with pytest.warns(cm.RegionWarning, match="25% of Box.*is lost"):
        layout.inside(cm.Box(20, 0, 60, 40))


def test_region_in_view_does_not_warn():
    layout = fixed_grid((100, 40), (80, 32), (32, 32), (4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layout.inside(cm.Box(30, 0, 70, 40))


def test_reference_rule_repeats_the_published_resizing():
    size = (300, 240)
    layout = fixed_grid(size, (40, 32), (32, 32), (8, 8))
    box = cm.Box(60, 30, 170, 200)
    pixels = np.zeros((240, 300), np.uint8)
    pixels[30:200, 60:170] = 255
    resized = Image.fromarray(pixels).resize((280, 224), Image.Resampling.NEAREST)
    expected = resized.crop((28, 0, 252, 224)).resize((8, 8), Image.Resampling.NEAREST)
    assert np.array_equal(layout.inside(box, "reference"), np.asarray(expected).ravel() / 255)
    distance = layout.distance(cm.Point(100, 100), "reference")
    assert np.array_equal(distance, np.round(distance * 255).astype(np.float32) / 255)


def test_reference_rule_is_refused_elsewhere():
    layout = fixed_grid((50, 20), (32, 32), None, (4, 4))
    padded = cm.VisualTokenLayout((50, 20), layout.boxes, (4, 4), "fixed grid, padded to a square")
    oblong = cm.VisualTokenLayout((50, 20), layout.boxes, (2, 8), "fixed grid")
    for other in (padded, oblong):
        with pytest.raises(cm.RegionError, match="square grids on a centre crop only"):
            other.inside(cm.Box(0, 0, 20, 20), "reference")
    with pytest.raises(cm.RegionError, match="'area' or 'reference'; got 'nearest'"):
        layout.inside(cm.Box(0, 0, 20, 20), "nearest")


def test_reference_rule_says_when_it_misses_a_small_region():
    layout = fixed_grid((300, 300), (32, 32), (32, 32), (4, 4))
    with pytest.raises(cm.RegionError, match="Use rule='area'"):
        layout.inside(cm.Box(0, 0, 2, 2), "reference")
    assert layout.inside(cm.Box(0, 0, 2, 2)).sum() > 0


def test_json_round_trip_and_repr():
    layout = fixed_grid((100, 40), (80, 32), (32, 32), (4, 4))
    again = VisualTokenLayout.from_json(layout.to_json())
    assert np.array_equal(again.boxes, layout.boxes)
    assert repr(again) == repr(layout)
    assert "16 visual tokens as 4 x 4, image 100 x 40 px, seen x 30..70 y 0..40" in repr(layout)


def test_grid_that_does_not_fit_is_refused(llava):
    model, processor = llava
    with pytest.raises(cm.UnsupportedModelError, match="must have 16 visual tokens; the prompt has 9"):
        clip_grid(LayoutInputs(model, processor, (40, 40), {}, 9))


@pytest.fixture
def tiles():
    """A thumbnail of 2 x 2 tokens and one tile of 4 x 4 over the left half of an image of 80 x 40 px."""
    boxes = np.concatenate([grid_boxes((0, 0, 80, 40), (2, 2)), grid_boxes((0, 0, 40, 40), (4, 4))])
    return cm.VisualTokenLayout((80, 40), boxes, (4, 8), "thumbnail and tile", merged=True)


def test_a_map_over_tiles_is_merged_by_area(tiles):
    values = np.zeros(20)
    values[0] = 1.0  # the thumbnail's upper left token: a quarter of the image, 2 x 4 cells
    values[4] = 2.0  # the tile's upper left token: one cell
    shown = tiles.raster(values)
    assert np.array_equal(tiles.raster(np.stack([values, 2 * values])), np.stack([shown, 2 * shown]))
    assert shown.shape == (4, 8)
    assert shown.sum() == pytest.approx(3.0)
    assert shown[0, 0] == pytest.approx(2.0 + 1 / 8)
    assert shown[1, 3] == pytest.approx(1 / 8)
    assert shown[2:].sum() == 0
    assert tiles.cells[0, 0].tolist() == [0, 0, 10, 10]


def test_a_region_weights_every_token_that_looks_at_it(tiles):
    inside = tiles.inside(cm.Box(0, 0, 20, 20))
    assert inside[0] == pytest.approx(0.5)
    assert inside[4:].reshape(4, 4)[:2, :2].min() == 1
    assert inside[4:].sum() == 4
    assert "20 visual tokens shown on 4 x 8, merged by area" in repr(tiles)


def test_what_a_token_sees_beyond_the_image_is_not_shown():
    boxes = np.array([[-40.0, 0, 40, 40], [40, 0, 80, 40]])
    layout = cm.VisualTokenLayout((80, 40), boxes, (1, 2), "padded", merged=True)
    assert layout.raster(np.array([1.0, 3.0])).tolist() == [[1.0, 3.0]]


def test_a_merged_layout_is_kept_in_a_trace(tiles):
    again = cm.VisualTokenLayout.from_json(json.loads(json.dumps(tiles.to_json())))
    assert again.merged
    assert again.raster(np.ones(20)).tolist() == tiles.raster(np.ones(20)).tolist()
