import base64
import gc
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests_support import noise

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
        (np.full((4, 4, 3), 2.0), r"got float64 of shape \(4, 4, 3\) with 2\.\.2"),
        (42, "path, a PIL image or a uint8 array; got int"),
        ("no/such/file.png", "There is no image at no/such/file.png"),
    ],
)
def test_images_that_cannot_be_used(image, message):
    with pytest.raises(cm.ImageError, match=message):
        cm.read_image(image)


def test_unreadable_files(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    noise((64, 64)).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    for name in ("text.png", "cut.png"):
        with pytest.raises(cm.ImageError, match=f"{name} cannot be read as an image"):
            cm.read_image(tmp_path / name)


def save(image, path):
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_sixteen_bits_become_eight(mode):
    values = np.array([[0, 257, 32896], [65535, 25700, 128]], ">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (3, 2), values.tobytes())
    grey = np.asarray(cm.read_image(image))[..., 0]
    assert grey.tolist() == [[0, 1, 128], [255, 100, 0]]


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_files_of_sixteen_bits_become_eight(name, tmp_path):
    path = save(Image.fromarray(np.array([[0, 25700], [32896, 65535]], np.uint16)), tmp_path / name)
    assert np.asarray(cm.read_image(path))[..., 1].tolist() == [[0, 100], [128, 255]]


def test_wide_grey_values_are_taken_where_they_have_one_meaning():
    whole = Image.fromarray(np.array([[0, 100], [200, 255]], np.int32))
    assert np.asarray(cm.read_image(whole))[..., 0].tolist() == [[0, 100], [200, 255]]
    assert np.asarray(cm.read_image(Image.fromarray(np.array([[0, 0.2], [0.6, 1]], np.float32))))[..., 0].tolist() == [
        [0, 51],
        [153, 255],
    ]
    assert np.asarray(cm.read_image(Image.fromarray(np.array([[0, 51.4]], np.float32))))[..., 0].tolist() == [[0, 51]]
    for values in ([[-1, 5]], [[0, 70000]], [[0, 300]]):
        with pytest.raises(cm.ImageError, match=r"^Grey values must lie in 0\.\.255.*Scale them first\.$"):
            cm.read_image(Image.fromarray(np.array(values, np.int32)))
    # What a filter carried beyond 1 would be read as all but black.
    for beyond in (1.001, 1.2, 1.99):
        with pytest.raises(cm.ImageError, match=r"^Grey values must lie .*F mode with 0\.\.1.*Scale them first\.$"):
            cm.read_image(Image.fromarray(np.array([[0, 0.5], [1, beyond]], np.float32)))
    with pytest.raises(cm.ImageError, match="finite values; got NaN"):
        cm.read_image(Image.fromarray(np.array([[np.nan, 1]], np.float32)))


RGB = np.arange(2 * 5 * 3).reshape(2, 5, 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RGB.astype(np.int64), RGB),
        ((RGB * 257).astype(np.uint16), RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float16), RGB),
        (RGB.transpose(2, 0, 1).astype(np.uint8), RGB),
        (torch.from_numpy(RGB.transpose(2, 0, 1) / 255).requires_grad_(), RGB),
        (torch.from_numpy(RGB).to(torch.uint8), RGB),
        (torch.from_numpy(RGB / 255).to(torch.bfloat16), RGB),
        (np.eye(4, 5, dtype=bool), np.repeat(np.eye(4, 5)[..., None] * 255, 3, 2)),
        (RGB[:, :, :1].astype(np.uint8), np.repeat(RGB[:, :, :1], 3, 2)),
    ],
    ids=[
        "int64",
        "uint16",
        "float64",
        "float16",
        "channels first",
        "tensor",
        "HWC tensor",
        "bfloat16",
        "bool",
        "(h, w, 1)",
    ],
)
def test_arrays_and_tensors_of_one_meaning(given, expected):
    assert np.array_equal(np.asarray(cm.read_image(given)), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (RGB - 1, r"got int64 of shape \(2, 5, 3\) with -1\.\.28"),
        (RGB * 1.0, r"fractions in 0\.\.1; got float64 of shape \(2, 5, 3\) with 0\.\.29"),
        (np.full((4, 5), np.nan), r"got float64 of shape \(4, 5\) with nan\.\.nan"),
        (torch.zeros(3, 8, 3), "must tell its channels from its sides"),
        (torch.zeros(1, 3, 8, 8), r"got float32 of shape \(1, 3, 8, 8\)"),
        (np.array([["a", "b"]]), "An image array must be uint8"),
        (np.zeros((4, 4), complex), "got complex128"),
        (np.uint8(3), "got uint8"),
    ],
    ids=["below 0", "floats above 1", "NaN", "ambiguous tensor", "batch", "text", "complex", "scalar"],
)
def test_arrays_without_one_meaning_are_refused(given, message):
    with pytest.raises(cm.ImageError, match=message):
        cm.read_image(given)


def test_an_image_may_come_as_bytes_file_data_uri_or_from_home(tmp_path, monkeypatch):
    path = save(Image.new("RGB", (4, 3), (9, 8, 7)), tmp_path / "scene.png")
    data = path.read_bytes()
    monkeypatch.setenv("HOME", str(tmp_path))
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    with path.open("rb") as file:
        for source in (
            data,
            bytearray(data),
            memoryview(data),
            BytesIO(data),
            file,
            uri,
            "~/scene.png",
            Path("~/scene.png"),
        ):
            image = cm.read_image(source)
            assert (image.size, image.getpixel((0, 0))) == ((4, 3), (9, 8, 7))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/cat.png", "nothing is fetched from the net; got a https address.*Download it"),
        ("data:image/png,abc", "must hold base64; got 'data:image/png'"),
        ("data:image/png;base64,@@@", "it cannot be decoded"),
        (b"", "The image cannot be read as an image"),
        (b"no image", "The image cannot be read as an image"),
        ("bad\0name.png", "There is no image at"),
        ("bad\udcffname.png", r"There is no image at bad\\udcffname\.png"),
        ("~nobody_of_this_name/a.png", "There is no image at"),
        (".", "no regular file"),
        (b"/tmp".decode() + "/" + "x" * 5000, "There is no image at"),
        (None, "got NoneType"),
        (10**400, "got int"),
    ],
    ids=["URL", "URI", "base64", "empty", "bytes", "NUL", "surrogate", "home", "folder", "long", "None", "huge"],
)
def test_sources_that_hold_no_image_are_refused_in_words(source, message):
    with pytest.raises(cm.ImageError, match=message) as caught:
        cm.read_image(source)
    str(caught.value).encode()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(cm.ImageError, match=r"pipe\.png cannot be read as an image: it is no regular file"):
        cm.read_image(tmp_path / "pipe.png")


def test_a_broken_image_that_was_opened_lazily(tmp_path):
    data = save(noise((64, 64)), tmp_path / "whole.png").read_bytes()
    with pytest.raises(cm.ImageError, match="The image cannot be read as an image"):
        cm.read_image(Image.open(BytesIO(data[: len(data) // 2])))
    closed = Image.open(BytesIO(data))
    closed.fp.close()
    with pytest.raises(cm.ImageError, match="The image cannot be read as an image"):
        cm.read_image(closed)


@pytest.mark.parametrize("name", ["film.gif", "film.tif"])
def test_of_several_frames_the_first_is_taken_with_a_warning(name, tmp_path):
    first, second = Image.new("L", (4, 3), 40), Image.new("L", (4, 3), 200)
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.warns(UserWarning, match="has 2 frames; the first is taken") as heard:
        image = cm.read_image(tmp_path / name)
        gc.collect()
    # Its file is closed, though it could be asked for more.
    assert not [warning for warning in heard if issubclass(warning.category, ResourceWarning)]
    assert heard[0].filename == __file__
    assert image.getpixel((0, 0)) == (40, 40, 40)
    with Image.open(tmp_path / name) as chosen:
        chosen.seek(1)
        assert cm.read_image(chosen).getpixel((0, 0)) == (200, 200, 200)


def test_palettes_with_transparency_and_cmyk(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    with pytest.warns(UserWarning, match="laid on white"):
        image = cm.read_image(tmp_path / "p.png")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 255, 0)]
    save(Image.new("CMYK", (4, 3), (0, 255, 255, 0)), tmp_path / "ink.tif")
    assert cm.read_image(tmp_path / "ink.tif").getpixel((0, 0)) == (255, 0, 0)
    assert cm.read_image(Image.new("RGBa", (1, 1), (9, 8, 7, 255))).getpixel((0, 0)) == (9, 8, 7)


def test_addresses_of_this_machine_and_data_uris_are_read_however_they_are_written(tmp_path):
    path = tmp_path / "a picture.png"
    Image.new("RGB", (7, 5), (1, 2, 3)).save(path)
    data = base64.b64encode(path.read_bytes()).decode()
    for given in (
        path.as_uri(),
        f"file://localhost{path.as_uri()[7:]}",
        f"DATA:image/png;base64,{data}",
        f" data:;base64,{data}",
    ):
        assert cm.read_image(given).getpixel((6, 4)) == (1, 2, 3)
    with pytest.raises(cm.ImageError, match="nothing is fetched from the net; got a file address"):
        cm.read_image("file://elsewhere/a.png")
    with pytest.raises(cm.ImageError, match="There is no image at /no/such"):
        cm.read_image("file:///no/such.png")
