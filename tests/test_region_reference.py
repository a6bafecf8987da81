"""The published code's weights, beside an independent writing-out: whole masks, two passes over them, Pillow's resizes."""

import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.layout.region_reference import _largest, chamfer
from cmllm_tools.layout.visual_tokens import fixed_grid, grid_boxes

NEAREST = Image.Resampling.NEAREST
STEPS = [(dy, dx) for dy in (-2, -1, 0) for dx in (-2, -1, 0, 1, 2) if (dy, dx) < (0, 0)]
LENGTHS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}


def distance_transform(mask):
    """cv2.distanceTransform(mask, DIST_L2, 5): distance of each pixel to the nearest 0, in two passes."""
    height, width = mask.shape
    found = np.full((height + 4, width + 4), 1e9)
    found[2:-2, 2:-2][mask == 0] = 0
    steps = [(dy, dx, LENGTHS.get(tuple(sorted((-dy, abs(dx)))))) for dy, dx in STEPS]
    steps = [step for step in steps if step[2] is not None]
    for sign in (1, -1):
        for y in range(2, height + 2)[::sign]:
            for x in range(2, width + 2)[::sign]:
                found[y, x] = min(found[y, x], *(found[y + sign * dy, x + sign * dx] + cost for dy, dx, cost in steps))
    return found[2:-2, 2:-2]


def to_tokens(mask, grid, stretch=False):
    """torchvision's Resize(224), CenterCrop(224), Resize(grid), ToTensor, as the published code calls them."""
    height, width = mask.shape
    short, long = min(width, height), max(width, height)
    size = (224, int(224 * long / short)) if width <= height else (int(224 * long / short), 224)
    image = Image.fromarray(mask).resize((224, 224) if stretch else size, NEAREST)
    left, top = (round((side - 224) / 2.0) for side in image.size)
    image = image.crop((left, top, left + 224, top + 224)).resize((grid, grid), NEAREST)
    return np.asarray(image).ravel() / np.float32(255)


def published(region, size, grid, stretch=False):
    width, height = size
    mask = np.zeros((height, width))
    if isinstance(region, cm.Box):
        mask[int(region.y0) : int(region.y1), int(region.x0) : int(region.x1)] = 1
    elif isinstance(region, cm.Mask):
        mask = region.pixels.astype(float)
    else:
        for x, y in region.outline()[0]:
            mask[int(y), int(x)] = 1
        distance = distance_transform(((1 - mask) * 255).astype(np.uint8))
        mask = np.rint(distance * (255 / distance.max())) / 255
    return to_tokens(np.rint(mask * 255).astype(np.uint8), grid, stretch)


SIZES = [(60, 60), (97, 61), (61, 97), (80, 40)]


def regions(size):
    rng = np.random.default_rng(sum(size))
    width, height = size
    pixels = rng.random((height, width)) < 0.5
    points = rng.uniform(0.3, 0.7, (6, 2)) * size
    hard = [cm.Box(0.31 * width, 0.2 * height, 0.72 * width, 0.9 * height), cm.Mask(pixels)]
    return hard, [cm.Scribble(points), cm.Point(*points[0])]


def crop_layout(size, grid=24):
    scale = 336 / min(size)
    return fixed_grid(size, tuple(int(side * scale) for side in size), (336, 336), (grid, grid))


@pytest.mark.filterwarnings("ignore::cmllm_tools.layout.visual_tokens.RegionWarning")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weights_on_a_centre_crop_are_those_published(size):
    hard, soft = regions(size)
    layout = crop_layout(size)
    for region in hard:
        assert np.array_equal(layout.inside(region, "reference"), published(region, size, 24))
    for region in soft:
        assert np.array_equal(layout.distance(region, "reference"), published(region, size, 24))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rule", ["fixed grid", "fixed grid, CLS"])
def test_the_mask_is_stretched_where_the_image_is(size, rule):
    hard, soft = regions(size)
    layout = cm.VisualTokenLayout(size, grid_boxes((0, 0, *size), (16, 16)), (16, 16), rule)
    for region in hard:
        assert np.array_equal(layout.inside(region, "reference"), published(region, size, 16, stretch=True))
    for region in soft:
        assert np.array_equal(layout.distance(region, "reference"), published(region, size, 16, stretch=True))


def test_a_token_that_is_touched_at_all_counts_on_a_grid_of_the_images_shape():
    size, grid = (90, 60), (4, 6)
    layout = cm.VisualTokenLayout(size, grid_boxes((0, 0, *size), grid), grid, "dynamic grid, 2 x 2 patches a token")
    found = layout.inside(cm.Box(14.5, 15, 45, 31), "reference").reshape(grid)
    expected = np.zeros(grid)
    expected[int(np.floor(15 / 15)) : int(np.ceil(31 / 15)), int(np.floor(14.5 / 15)) : int(np.ceil(45 / 15))] = 1
    assert np.array_equal(found, expected)
    with pytest.raises(cm.RegionError, match=r"no distances for grids of the image's shape.*Use rule='area'"):
        layout.distance(cm.Point(3, 4), "reference")
    with pytest.raises(cm.RegionError, match="no distances for boxes and masks"):
        crop_layout((60, 60)).distance(cm.Box(1, 2, 30, 40), "reference")


def test_of_a_scribble_only_the_given_points_are_marked():
    """One line of two points, far apart: the middle of the line is far from both."""
    layout = crop_layout((240, 240))
    line = layout.distance(cm.Scribble([(20, 120), (220, 120)]), "reference").reshape(24, 24)
    assert line[12, 12] > 0.6
    assert layout.distance(cm.Scribble([(20, 120), (220, 120)]))[12 * 24 + 12] < 0.1


def test_the_long_side_is_cut_to_whole_pixels_as_published():
    """Of 224 * 3 / 1.7... a scale computed first would lose a pixel for some sizes."""
    for width in range(50, 400, 7):
        layout = crop_layout((width, 50))
        box = cm.Box(width / 2 - 10, 10, width / 2 + 10, 40)
        assert np.array_equal(layout.inside(box, "reference"), published(box, (width, 50), 24))


@pytest.mark.parametrize("seed", range(30))
def test_the_largest_distance_is_that_of_all_pixels(seed):
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(1, 120, 2))
    points = np.stack([rng.integers(0, width, 9), rng.integers(0, height, 9)], 1)[: rng.integers(1, 10)]
    xs, ys = np.meshgrid(np.arange(width), np.arange(height))
    every = np.min([chamfer(abs(xs - x), abs(ys - y)) for x, y in points], axis=0)
    assert _largest(points, (width, height)) == pytest.approx(every.max())


def test_distances_between_pixels_are_those_of_two_passes():
    mask = np.ones((40, 33), np.uint8)
    mask[7, 21] = mask[30, 2] = 0
    xs, ys = np.meshgrid(np.arange(33), np.arange(40))
    closed = np.minimum(chamfer(abs(xs - 21), abs(ys - 7)), chamfer(abs(xs - 2), abs(ys - 30)))
    assert np.allclose(distance_transform(mask), closed)
    exact = np.minimum(np.hypot(xs - 21, ys - 7), np.hypot(xs - 2, ys - 30))
    assert abs(closed / np.maximum(exact, 1) - np.minimum(exact, 1)).max() < 0.03
