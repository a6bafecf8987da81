"""Regions on the token grid: the exact formula on small images, and a bounded effort on large ones."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

import cmllm_tools as cm
from cmllm_tools.inputs.regions import shapes
from cmllm_tools.layout import region_weights
from cmllm_tools.layout.visual_tokens import fixed_grid, grid_boxes


def area_in(cover, box):
    """Integral of a cover over a box, pixel by pixel."""
    height, width = cover.shape
    columns = np.clip(np.minimum(box[2], np.arange(width) + 1) - np.maximum(box[0], np.arange(width)), 0, 1)
    rows = np.clip(np.minimum(box[3], np.arange(height) + 1) - np.maximum(box[1], np.arange(height)), 0, 1)
    return rows @ cover @ columns


def common(one, other):
    """Area that two boxes share."""
    return max(min(one[2], other[2]) - max(one[0], other[0]), 0) * max(min(one[3], other[3]) - max(one[1], other[1]), 0)


def random_regions(rng, width, height):
    x, y = np.sort(rng.uniform(0, width, 2)), np.sort(rng.uniform(0, height, 2))
    pixels = rng.random((height, width)) < rng.choice([0.02, 0.5, 0.98])
    pixels[rng.integers(height), rng.integers(width)] = True
    scribble = rng.uniform(0, 1, (rng.integers(1, 8), 2)) * [width, height]
    return [cm.Box(x[0], y[0], x[1], y[1]), cm.Mask(pixels), cm.Scribble(scribble), cm.Point(x[0], y[1])]


@pytest.mark.parametrize("seed", range(40))
def test_overlaps_are_the_exact_areas(seed):
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(1, 60, 2))
    corners = rng.uniform(-5, 65, (30, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    for region in random_regions(rng, width, height):
        if isinstance(region, cm.Box):
            expected = [common(region.bounds, box) for box in boxes]
        else:
            expected = [area_in(region.cover(width, height), box) for box in boxes]
        assert region_weights.overlaps(region, boxes, (width, height)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_a_scribble_is_drawn_as_pillow_draws_it(seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 50, (rng.integers(1, 9), 2))
    canvas = Image.new("L", (50, 50))
    ImageDraw.Draw(canvas).point([tuple(map(int, point)) for point in points], fill=1)
    if len(points) > 1:
        ImageDraw.Draw(canvas).line([tuple(map(int, point)) for point in points], fill=1)
    assert np.array_equal(cm.Scribble(points).cover(50, 50), np.asarray(canvas))


@pytest.mark.parametrize("size", [(96, 96), (301, 210), (120, 480)])
def test_distances_are_the_exact_means_on_small_images(size):
    rng = np.random.default_rng(1)
    layout = fixed_grid(size, tuple(round(side * 96 / min(size)) for side in size), (96, 96), (8, 8))
    x0, y0, x1, y1 = (int(value) for value in layout.seen)
    for _ in range(4):
        points = rng.uniform([x0, y0], [x1, y1], (5, 2))
        for region in (cm.Scribble(points), cm.Point(*points[0])):
            distance = distance_transform_edt(region.cover(*size) == 0)
            distance = distance / distance[y0 : int(np.ceil(layout.seen[3])), x0 : int(np.ceil(layout.seen[2]))].max()
            areas = np.prod(layout.boxes[:, 2:] - layout.boxes[:, :2], axis=1)
            expected = [area_in(distance, box) / area for box, area in zip(layout.boxes, areas, strict=True)]
            assert layout.distance(region) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("grid", [(16, 24), (64, 96)], ids=str)
def test_distances_on_a_coarser_raster_are_within_half_a_token(grid):
    size = (2400, 1600)
    layout = cm.VisualTokenLayout(size, grid_boxes((0, 0, *size), grid), grid, "fixed grid")
    rng = np.random.default_rng(2)
    for _ in range(2):
        region = cm.Scribble(rng.uniform(0, 1, (4, 2)) * size)
        distance = distance_transform_edt(region.cover(*size) == 0)
        half_token = 0.5 * size[0] / grid[1] / distance.max()
        whole = distance.reshape(grid[0], size[1] // grid[0], grid[1], size[0] // grid[1]).mean((1, 3)) / distance.max()
        assert abs(layout.distance(region) - whole.ravel()).max() < half_token


@pytest.mark.parametrize("grid", [(24, 24), (104, 157)], ids=str)
def test_the_raster_of_distances_stays_small_on_fifty_megapixels(grid, monkeypatch):
    """Counted, not timed: pixels that distances are measured on."""
    size, measured = (8660, 5773), []

    def counted(pixels):
        measured.append(pixels.size)
        return distance_transform_edt(pixels)

    monkeypatch.setattr(region_weights, "distance_transform_edt", counted)
    layout = cm.VisualTokenLayout(size, grid_boxes((0, 0, *size), grid), grid, "fixed grid")
    layout.distance(cm.Point(4000, 3000))
    layout.distance(cm.Scribble([(10, 10), (8000, 5000)]))
    assert len(measured) == 2
    assert max(measured) <= region_weights.MOST_PIXELS**2 / 8


def pieces(points, at_once, monkeypatch):
    monkeypatch.setattr(shapes, "_AT_ONCE", at_once)
    return list(shapes._drawn(points))


@pytest.mark.parametrize("seed", range(5))
def test_lines_are_drawn_in_pieces_as_on_the_whole(seed, monkeypatch):
    points = np.random.default_rng(seed).integers(0, 90, (40, 2))
    (whole,) = pieces(points, 2**24, monkeypatch)
    for rows in (1, 7, 64):
        parts = pieces(points, rows * whole.shape[1], monkeypatch)
        assert max(map(len, parts)) == rows
        assert np.array_equal(np.concatenate(parts), whole)


def test_a_scribble_all_over_fifty_megapixels_is_drawn_a_few_rows_at_a_time(monkeypatch):
    """Counted, not timed: 5000 points took 8 s and 1.2 GB."""
    size, drawn, draw = (8660, 5773), [], shapes._drawn
    monkeypatch.setattr(shapes, "_drawn", lambda points: (drawn.append(strip.size) or strip for strip in draw(points)))
    scribble = cm.Scribble(np.random.default_rng(5).uniform(0, 1, (400, 2)) * size)
    layout = fixed_grid(size, (504, 336), (336, 336), (24, 24))
    with pytest.warns(cm.RegionWarning):
        layout.distance(scribble)
    assert sum(drawn) <= 2 * region_weights.MOST_PIXELS**2
    drawn.clear()
    boxes = np.array([(0, 0, *size), (0, 0, 4000, 3000), (4000, 0, *size), (0, 3000, 4000, 5773)])
    whole, *parts = region_weights.overlaps(scribble, boxes, size)
    assert whole == sum(parts)
    assert sum(drawn) <= size[0] * size[1]
    assert max(drawn) <= shapes._AT_ONCE


@pytest.mark.parametrize("seed", range(4))
def test_lines_in_squares_of_pixels_are_theirs_to_within_one(seed):
    size, step = (400, 300), 7
    scribble = cm.Scribble(np.random.default_rng(seed).uniform(0, 1, (5, 2)) * size)
    exact = super(cm.Scribble, scribble).touched(1, size)
    exact = np.pad(exact, ((0, -size[1] % step), (0, -size[0] % step)))
    exact = exact.reshape(len(exact) // step, step, -1, step).any((1, 3))
    drawn = scribble.touched(step, size)
    for one, other in ((exact, drawn), (drawn, exact)):
        assert distance_transform_edt(~other)[one].max() <= 1.5


def test_what_a_crop_loses_of_a_scribble_is_told_on_any_image():
    for scale in (1, 20):
        size = (300 * scale, 100 * scale)
        layout = fixed_grid(size, (300, 100), (100, 100), (4, 4))
        line = cm.Scribble([(50 * scale, 50 * scale), (200 * scale, 50 * scale)])
        with pytest.warns(cm.RegionWarning, match="3[34]% of Scribble"):
            layout.distance(line)
        with pytest.raises(cm.RegionError, match="outside what the model sees"):
            layout.distance(cm.Scribble([(10 * scale, 50 * scale), (80 * scale, 50 * scale)]))


def test_areas_on_fifty_megapixels_are_exact():
    width, height = 8660, 5773
    pixels = np.zeros((height, width), bool)
    pixels[1000:4000:2, 2500:6000] = True
    boxes = np.array([[0, 0, width, height], [2500.5, 1000.25, 2501.5, 1001], [2400, 1001, 9000, 1002]])
    assert region_weights.overlaps(cm.Mask(pixels), boxes, (width, height)).tolist() == [1500 * 3500, 0.75, 0]
    box = cm.Box(2500.5, 1000, 6000, 4000.25)
    assert region_weights.overlaps(box, boxes[:2], (width, height)).tolist() == [3499.5 * 3000.25, 0.75]


def test_many_boxes_without_common_edges_are_taken_in_parts(monkeypatch):
    rng = np.random.default_rng(3)
    corners = np.sort(rng.uniform(0, 40, (200, 2, 2)), axis=1)
    boxes = corners.reshape(200, 4)
    whole = region_weights.overlaps(cm.Box(5, 5, 30, 20), boxes, (40, 40))
    monkeypatch.setattr(region_weights, "_CORNERS", 64)
    assert region_weights.overlaps(cm.Box(5, 5, 30, 20), boxes, (40, 40)) == pytest.approx(whole)


def test_a_merged_map_is_spread_by_exact_areas():
    rng = np.random.default_rng(4)
    corners = np.sort(rng.uniform(-5, 45, (12, 2, 2)), axis=1).reshape(12, 4)
    corners = corners[((corners[:, 2:] > 0) & (corners[:, :2] < 40)).all(1)]
    layout = cm.VisualTokenLayout((40, 40), np.concatenate([[[0, 0, 40, 40]], corners]), (5, 4), "tiles", merged=True)
    values = rng.random(len(layout))
    expected = np.zeros(20)
    for value, box in zip(values, np.clip(layout.boxes, 0, 40), strict=True):
        share = np.array([common(box, cell) for cell in layout.cells.reshape(-1, 4)])
        expected += value * share / share.sum()
    assert layout.raster(values).ravel() == pytest.approx(expected)
