import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert cm.read_image(tmp_path / "turned.jpg").size == (10, 20)


def test_grey_and_palette_become_rgb():
    assert cm.read_image(Image.new("L", (4, 3), 100)).getpixel((0, 0)) == (100, 100, 100)
    assert cm.read_image(np.full((3, 4), 7, np.uint8)).mode == "RGB"
    assert cm.read_image(Image.new("P", (4, 3))).mode == "RGB"


def test_transparent_pixels_are_laid_on_white():
    with pytest.warns(UserWarning, match="transparent pixels; they are laid on white"):
        image = cm.read_image(Image.new("RGBA", (4, 3), (255, 0, 0, 0)))
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_opaque_rgba_needs_no_warning(recwarn):
    assert cm.read_image(Image.new("RGBA", (4, 3), (9, 8, 7, 255))).getpixel((0, 0)) == (9, 8, 7)
    assert not recwarn


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (0, 5)), "at least one pixel; got 0 x 5"),
        (np.zeros((0, 5, 3), np.uint8), "at least one pixel"),
        (Image.new("RGB", (1, 10_000)), "within 200:1 of each other; got 1 x 10000 px"),
        (np.zeros((4, 4, 2), np.uint8), r"uint8 of shape .*; got uint8 of shape \(4, 4, 2\)"),
        (np.zeros((4, 4, 3)), "got float64"),
        (42, "path, a PIL image or a uint8 array; got int"),
        ("no/such/file.png", "There is no image at no/such/file.png"),
    ],
)
def test_images_that_cannot_be_used(image, message):
    with pytest.raises(cm.ImageError, match=message):
        cm.read_image(image)


def test_unreadable_files(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    for name in ("text.png", "cut.png"):
        with pytest.raises(cm.ImageError, match=f"{name} cannot be read as an image"):
            cm.read_image(tmp_path / name)
