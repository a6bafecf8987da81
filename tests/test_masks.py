"""Masks from files: what is drawn is what is marked, whatever the file's mode."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

import cmllm_tools as cm

DRAWN = np.zeros((96, 96), bool)
DRAWN[30:61, 20:51] = True  # 961 px of 9216


def grey(low=0, high=255):
    return Image.fromarray(np.where(DRAWN, high, low).astype(np.uint8))


def with_alpha(color):
    image = Image.new("RGBA", (96, 96), (255, 255, 255, 0))
    image.paste((*color, 255), (20, 30, 51, 61))
    return image


def palette(*colors):
    image = Image.fromarray(DRAWN.astype(np.uint8))
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([part for color in colors for part in color])
    return image


FILES = {
    "grey.png": grey(),
    "0 and 1.png": grey(0, 1),
    "opaque black.png": with_alpha((0, 0, 0)),
    "opaque white.png": with_alpha((255, 255, 255)),
    "colour, opaque everywhere.png": grey().convert("RGBA"),
    "blue.png": Image.fromarray(np.where(DRAWN[..., None], [0, 0, 255], [0, 0, 0]).astype(np.uint8)),
    "one bit.png": grey().convert("1"),
    "palette.png": palette((0, 0, 0), (128, 0, 0)),
    "palette.gif": palette((0, 0, 0), (0, 0, 64)),
    "sixteen bits.png": Image.fromarray(np.where(DRAWN, 65535, 300).astype(np.uint16)),
    "fractions.tif": Image.fromarray(DRAWN.astype(np.float32)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mask_file_marks_what_was_drawn(name, tmp_path):
    FILES[name].save(tmp_path / name)
    assert np.array_equal(cm.Mask.from_file(tmp_path / name, (96, 96)).pixels, DRAWN)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpegs_noise_is_not_marked(mode, tmp_path):
    grey().convert(mode).save(tmp_path / "mask.jpg", quality=40)
    assert np.count_nonzero(np.asarray(Image.open(tmp_path / "mask.jpg").convert("L"))) > 1000
    assert np.array_equal(cm.Mask.from_file(tmp_path / "mask.jpg").pixels, DRAWN)


def test_a_transparent_palette_marks_by_opacity(tmp_path):
    palette((255, 255, 255), (0, 0, 0)).save(tmp_path / "mask.png", transparency=0)
    assert np.array_equal(cm.Mask.from_file(tmp_path / "mask.png").pixels, DRAWN)


def test_a_pil_image_is_read_as_its_file():
    assert cm.Mask(with_alpha((0, 0, 0))) == cm.Mask(DRAWN)
    assert cm.Mask(grey(20, 255)) == cm.Mask(DRAWN)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (96, 96)), "at least one marked pixel; got none in 96 x 96 px"),
        (Image.new("L", (40, 30), 255), "size of its image, 96 x 96 px; got 40 x 30 px"),
        (
            Image.fromarray((np.arange(9216) % 4).astype(np.uint8).reshape(96, 96)),
            "4 values up to 3.*labels of several objects",
        ),
        (Image.fromarray(np.full((96, 96), -1, np.int32)), "at least one marked|at least 0"),
    ],
    ids=["empty", "size", "labels", "negative"],
)
def test_files_that_mark_no_one_region_are_refused(image, message):
    with pytest.raises(cm.RegionError, match=message):
        cm.Mask.from_file(image, (96, 96))


def test_coloured_labels_are_refused():
    image = palette((0, 0, 0), (128, 0, 0), (64, 0, 0))
    image.putpixel((0, 0), 2)
    with pytest.raises(cm.RegionError, match=r"3 colours of a palette, which look like labels.*Choose one"):
        cm.Mask.from_file(image)


@pytest.mark.parametrize("deep", ["", "a" * 90])
def test_a_mask_file_that_cannot_be_read(deep, tmp_path):
    (tmp_path / deep).mkdir(exist_ok=True)
    (tmp_path / deep / "mask.png").write_text("no image")
    with pytest.raises(cm.ImageError, match=r"mask\.png cannot be read as an image"):
        cm.Mask.from_file(tmp_path / deep / "mask.png")


def test_only_the_bounding_box_of_a_mask_is_kept_and_moved():
    mask = cm.Mask(DRAWN)
    assert mask.part.shape == (31, 31)
    assert mask.bounds == (20, 30, 51, 61)
    moved = mask.moved(60, -40)
    expected = np.zeros_like(DRAWN)
    expected[0:21, 80:96] = True
    assert np.array_equal(moved.pixels, expected)
    assert moved.to_json() == cm.Mask(expected).to_json()
    with pytest.raises(cm.RegionError, match="at least one marked pixel"):
        mask.moved(100, 0)


def test_a_soft_rim_counts_from_half_on():
    image = Image.new("L", (9, 9))
    ImageDraw.Draw(image).rectangle((2, 2, 6, 6), fill=127)
    ImageDraw.Draw(image).rectangle((3, 3, 5, 5), fill=255)
    assert cm.Mask.from_file(image).bounds == (3, 3, 6, 6)


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_a_dark_mark_on_bright_is_told(mode):
    dark = grey(255, 0).convert(mode)
    with pytest.warns(UserWarning, match=r"bright on dark.* all along the edge of the image, 90% of it\..*Mask\(~mask"):
        mask = cm.Mask.from_file(dark)
    assert np.array_equal(cm.Mask(~mask.pixels).pixels, DRAWN)


def test_masks_that_reach_edges_or_mark_all_are_none_of_these(recwarn):
    half = np.zeros((8, 8), np.uint8)
    half[:, 3:] = 255
    assert cm.Mask.from_file(Image.fromarray(half)).bounds == (3, 0, 8, 8)
    assert cm.Mask.from_file(Image.new("L", (8, 8), 255)).bounds == (0, 0, 8, 8)
    assert not recwarn.list


def colored(mark, ground):
    return Image.fromarray(np.where(DRAWN[..., None], mark, ground).astype(np.uint8))


RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif"])
@pytest.mark.parametrize(
    ("mark", "ground"),
    [
        (RED, BLUE),
        (RED, WHITE),
        (WHITE, BLUE),
        ((255, 255, 0), BLUE),
        ((128, 0, 0), (128, 128, 128)),
        ((200, 200, 200), WHITE),
        (RED, (127, 127, 127)),
    ],
    ids=str,
)
def test_a_mark_on_a_ground_that_is_not_dark_is_refused(mark, ground, kind, tmp_path):
    """All 9216 pixels of red on blue were marked, for 961 drawn."""
    colored(mark, ground).save(tmp_path / f"mask.{kind}")
    with pytest.raises(cm.RegionError, match=r"bright on dark, or .* ground of this one is not dark.*\(255, 0, 0\)"):
        cm.Mask.from_file(tmp_path / f"mask.{kind}")
    chosen = cm.Mask((np.asarray(colored(mark, ground).convert("RGB")) == mark).all(2))
    assert np.array_equal(chosen.pixels, DRAWN)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_mark_on_a_ground_that_is_nearly_black_is_read(kind, tmp_path):
    for mark, ground in ((RED, (0, 0, 40)), (WHITE, (60, 60, 60)), ((0, 0, 255), (0, 0, 0))):
        colored(mark, ground).save(tmp_path / f"mask.{kind}", quality=90, subsampling=0)
        assert np.array_equal(cm.Mask.from_file(tmp_path / f"mask.{kind}").pixels, DRAWN)


def test_a_mask_of_nearly_all_is_read_from_a_lossy_file(tmp_path):
    pixels = np.full((96, 96), 255, np.uint8)
    pixels[40:56, 40:56] = 0
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "mask.jpg", quality=75)
    with pytest.warns(UserWarning, match="bright on dark"):
        assert np.array_equal(cm.Mask.from_file(tmp_path / "mask.jpg").pixels, pixels > 0)


def test_opacity_that_tells_nothing_apart_leaves_it_to_brightness():
    image = grey().convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 250))
    assert np.array_equal(cm.Mask.from_file(image).pixels, DRAWN)
