import itertools
import json
import math
import tracemalloc
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.inputs.regions import as_regions, from_run_lengths, region_from_json, run_lengths
from cmllm_tools.inputs.regions import mask as mask_module

REGIONS = [
    cm.Box(1.5, 2, 7.25, 9),
    cm.Mask(np.eye(12, 10)),
    cm.Scribble([(1, 1), (8, 3), (2, 11)]),
    cm.Point(3, 4.5),
]


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: type(region).__name__)
def test_json_round_trip_and_cover(region):
    again = region_from_json(region.to_json())
    assert again == region
    assert hash(again) == hash(region)
    region.check(10, 12)
    cover = region.cover(10, 12)
    assert cover.shape == (12, 10)
    assert cover.dtype == np.float32
    assert cover.min() >= 0
    assert 0 < cover.sum() <= 120
    assert region.outline()


def test_box_cover_is_its_area():
    assert cm.Box(1.5, 2, 7.25, 9).cover(10, 12).sum() == pytest.approx(5.75 * 7)
    assert cm.Box(0.25, 0.5, 0.75, 0.75).cover(1, 1)[0, 0] == pytest.approx(0.125)


def test_mask_outline_runs_around_it():
    pixels = np.zeros((5, 6))
    pixels[1:3, 2:5] = 1
    lines = {tuple(sorted(line)) for line in cm.Mask(pixels).outline()}
    assert lines == {((2, 1), (5, 1)), ((2, 3), (5, 3)), ((2, 1), (2, 3)), ((5, 1), (5, 3))}


def ragged(height, width):
    """Every second pixel of every second row."""
    pixels = np.zeros((height, width), bool)
    pixels[::2, ::2] = True
    return cm.Mask(pixels)


def test_the_outline_of_a_ragged_mask_is_bounded_and_keeps_its_place(monkeypatch):
    """Each of its pixels has four borders: of a photograph's noise it took minutes and gigabytes."""
    lines = ragged(41, 61).outline()
    assert len(lines) == 4 * 21 * 31
    monkeypatch.setattr(mask_module, "_MOST_BORDERS", 4 * 21 * 31 - 1)
    assert ragged(41, 61).outline() == [
        [(0.0, 0.0), (61.0, 0.0)],
        [(0.0, 41.0), (61.0, 41.0)],
        [(0.0, 0.0), (0.0, 41.0)],
        [(61.0, 0.0), (61.0, 41.0)],
    ]


@pytest.mark.parametrize("seed", range(6))
def test_an_outline_has_every_border_once(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    pixels = rng.random(rng.integers(1, 30, 2)) < 0.5
    pixels[0, 0] = True
    monkeypatch.setattr(mask_module, "_ROWS", int(rng.integers(1, 9)))
    borders = {}
    for (x0, y0), (x1, y1) in cm.Mask(pixels).outline():
        steps = int(max(x1 - x0, y1 - y0))
        for step in range(steps):
            at = (x0 + step * (x1 > x0), y0 + step * (y1 > y0), x1 > x0)
            borders[at] = borders.get(at, 0) + 1
    padded = np.pad(pixels, 1)
    across = {(float(x), float(y), True) for y, x in zip(*np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1]), strict=True)}
    down = {(float(x), float(y), False) for y, x in zip(*np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1]), strict=True)}
    assert borders == dict.fromkeys(across | down, 1)


def test_a_scribble_of_thousands_of_points_is_named_in_short():
    scribble = cm.Scribble([(index % 50, index / 100) for index in range(5000)])
    assert repr(scribble) == "Scribble(5000 points, x 0..49, y 0..49.99)"
    assert len(scribble._repr_html_()) < 20_000
    with pytest.raises(cm.RegionError) as caught:
        scribble.check(20, 20)
    assert len(str(caught.value)) < 200
    assert repr(cm.Scribble([(1, 2)])) == "Scribble(points=((1.0, 2.0),))"


def test_scribble_joins_its_points():
    cover = cm.Scribble([(0, 0), (9, 9)]).cover(10, 10)
    assert np.array_equal(cover > 0, np.eye(10) > 0)


def test_points_on_the_far_edge_are_drawn():
    assert cm.Point(10, 12).cover(10, 12)[11, 9] == 1
    assert cm.Scribble([(10, 12)]).cover(10, 12)[11, 9] == 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (7, 2)])
def test_run_lengths_round_trip(shape):
    rng = np.random.default_rng(0)
    for density in (0, 0.3, 1):
        pixels = rng.random(shape) < density
        assert np.array_equal(from_run_lengths(run_lengths(pixels), *shape), pixels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cm.Box(5, 0, 5, 4), r"x0 < x1 and y0 < y1; got x 5\.\.5.*top left corner first"),
        (lambda: cm.Box(5, 9, 8, 4), r"y 9\.\.4"),
        (lambda: cm.Box(0, 0, float("nan"), 4), "four finite numbers"),
        (lambda: cm.Box(0, 0, float("inf"), 4), "four finite numbers"),
        (lambda: cm.Box("a", 0, 1, 4), "four finite numbers"),
        (lambda: cm.Mask(np.zeros((4, 4))), "at least one marked pixel"),
        (lambda: cm.Mask(np.full((4, 4), np.nan)), "finite values"),
        (lambda: cm.Mask(np.ones((4, 4, 3))), r"shape \(height, width\); got \(4, 4, 3\)"),
        (lambda: cm.Scribble([]), "at least one"),
        (lambda: cm.Scribble([(1, 2, 3)]), "pairs of finite numbers"),
        (lambda: cm.Scribble([(1, float("nan"))]), "pairs of finite numbers"),
        (lambda: cm.Point(float("nan"), 2), "two finite numbers"),
        (lambda: as_regions([]), "At least one region"),
        (lambda: as_regions([3]), "got int"),
        (lambda: as_regions((146, 79, 192, 127)), r"got int\. Give Box\(146, 79, 192, 127\)"),
        (lambda: region_from_json({"kind": "star"}), "box, mask, scribble or point; got 'star'"),
        (lambda: region_from_json({"kind": "box"}), "kind and its coordinates"),
        (lambda: region_from_json({"kind": "mask", "size": [2, 2], "counts": [1]}), "must add up to 4 pixels; got 1"),
    ],
)
def test_malformed_regions(make, message):
    with pytest.raises(cm.RegionError, match=message):
        make()


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (cm.Box(0, 0, 11, 4), r"within the image of 10 x 12 px; got x 0\.\.11"),
        (cm.Box(-1, 0, 3, 4), "within the image"),
        (cm.Box(0.2, 0, 0.5, 1), r"Where these are shares, give Box\(2, 0, 5, 12\)"),
        (cm.Mask(np.ones((10, 12))), r"\(height, width\) = \(12, 10\); got \(10, 12\)"),
        (cm.Scribble([(1, 1), (10.5, 3)]), r"10 x 12 px; got \(10\.5, 3\)"),
        (cm.Point(3, 12.01), "A point must lie within"),
    ],
)
def test_regions_off_the_image(region, message):
    with pytest.raises(cm.RegionError, match=message):
        region.check(10, 12)


def test_mask_does_not_follow_later_changes():
    pixels = np.ones((3, 3), bool)
    mask = cm.Mask(pixels)
    pixels[:] = False
    assert mask.pixels.all()
    with pytest.raises(ValueError, match="read-only"):
        mask.pixels[0, 0] = False
    assert repr(mask) == "Mask(9 of 3 x 3 px)"
    assert cm.Mask(np.asarray(Image.new("L", (3, 3), 255))) == mask


def test_numbers_of_other_kinds_become_plain_ones():
    box = cm.Box(*torch.tensor([1.5, 2.0, 7.25, 9.0], requires_grad=True))
    assert box == cm.Box(1.5, 2, 7.25, 9)
    assert json.loads(json.dumps(box.to_json())) == cm.Box(1.5, 2, 7.25, 9).to_json()
    for region in (
        box,
        cm.Box(np.int64(1), np.float32(2), np.uint8(7), Fraction(19, 2)),
        cm.Point(*np.array([3, 4.5])),
        cm.Scribble(torch.tensor([[1, 1], [8, 3]])),
        cm.Scribble(pair for pair in [(1, 1), (8, 3)]),
        cm.Scribble(np.array([[1, 1], [8, 3]], np.int16)),
    ):
        for value in json.loads(json.dumps(region.to_json())).values():
            assert isinstance(value, str | list)
        assert all(type(value) in (int, float) for value in region.bounds)
        assert region_from_json(region.to_json()) == region
    assert repr(cm.Box(np.int64(1), 2, 7, 9)) == "Box(x0=1, y0=2, x1=7, y1=9)"
    ones = torch.ones(3, 3, requires_grad=True)
    assert cm.Mask(ones) == cm.Mask(ones.bool()) == cm.Mask(ones.bfloat16()) == cm.Mask([[1] * 3] * 3)


STRANGE = [
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    Decimal(3),
    True,
    np.True_,
    None,
    "3",
    "\udcff",
    b"3",
    1j,
    [1],
    {},
    object(),
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_refused_in_words(value):
    for make in (
        lambda: cm.Box(value, 0, 5, 4),
        lambda: cm.Box(0, 0, 5, value),
        lambda: cm.Point(1, value),
        lambda: cm.Scribble([(1, 2), (value, 3)]),
        lambda: region_from_json({"kind": "box", "corners": [0, 0, 5, value]}),
        lambda: region_from_json({"kind": "point", "position": [value, 5]}),
        lambda: region_from_json({"kind": "mask", "size": [2, value], "counts": [0, 4]}),
        lambda: region_from_json({"kind": "mask", "size": [2, 2], "counts": [0, value]}),
        lambda: region_from_json({"kind": value}),
        lambda: region_from_json(value),
    ):
        with pytest.raises(cm.RegionError) as caught:
            make()
        str(caught.value).encode()
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cm.Scribble(5), "pairs of finite numbers.*got 5"),
        (lambda: cm.Scribble([1, 2]), "pairs of finite numbers"),
        (lambda: cm.Mask([[1, 2], [3]]), "rows of several lengths"),
        (lambda: cm.Mask([["a"]]), "booleans or numbers"),
        (lambda: cm.Mask(np.zeros((0, 5))), "at least one marked pixel"),
        (lambda: cm.Mask(None), r"got \(\)"),
        (lambda: region_from_json({"kind": "box", "corners": "1234"}), "four finite numbers"),
        (lambda: region_from_json({"kind": "box", "corners": [1, 2, 3]}), "kind and its coordinates"),
        (lambda: region_from_json({"kind": "mask", "size": [2, 2]}), "kind and its coordinates"),
        (lambda: region_from_json({"kind": "mask", "size": [2], "counts": [0, 4]}), "kind and its coordinates"),
        (lambda: region_from_json({"kind": "mask", "size": [2, 2], "counts": [0, 5, -1]}), "at least 0 as whole numbers"),
        (lambda: region_from_json({"kind": "mask", "size": [2, 2], "counts": [0, 4.0]}), "at least 0 as whole numbers"),
        (lambda: region_from_json({"kind": "mask", "size": [0, 2], "counts": []}), "A mask's side must be a whole number"),
        (lambda: region_from_json([1, 2]), "kind and its coordinates"),
        (lambda: region_from_json({"kind": "box", "corners": [0, 0, 50, 5]}, (10, 12)), "within the image of 10 x 12 px"),
    ],
)
def test_data_of_another_form_is_refused(make, message):
    with pytest.raises(cm.RegionError, match=message):
        make()


def test_run_lengths_are_bounded_before_they_are_expanded():
    tracemalloc.start()
    try:
        side = 10**7
        for size in (None, (10, 12)):
            with pytest.raises(
                cm.RegionError, match=r"at most 268435456 pixels|image's shape .* = \(12, 10\); got \(10000000"
            ):
                region_from_json({"kind": "mask", "size": [side, side], "counts": [0, side * side]}, size)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seed", range(10))
def test_run_lengths_of_a_part_are_those_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    pixels = np.zeros((9, 7), bool)
    top, left = rng.integers(0, 5, 2)
    pixels[top : top + 5, left : left + 6] = rng.random(pixels[top : top + 5, left : left + 6].shape) < rng.choice(
        [0.5, 0.9, 1]
    )
    pixels[top, left] = True
    mask = cm.Mask(pixels)
    counts = mask.to_json()["counts"]
    flat = pixels.ravel()
    expected = []
    for key, run in itertools.groupby(flat):
        if not expected and key:
            expected.append(0)
        expected.append(len(list(run)))
    assert counts == expected == run_lengths(pixels)
    assert region_from_json(json.loads(json.dumps(mask.to_json()))) == mask
