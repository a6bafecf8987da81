"""Pictures: maps lie where their cells are, in their colours; photographs take little room."""

import numpy as np
from PIL import Image
from tests_support import noise

from cmllm_tools.show import palette, picture


def test_map_lies_where_its_cells_are():
    """The only hot cell, of a grid that leaves out the image's left half, is coloured and nothing else."""
    cells = np.array([[[50, 0, 75, 100], [75, 0, 100, 100]]], float)
    layer = picture._heat(np.array([[0.0, 1.0]]), cells * 4.4, (440, 440))
    pixels = np.asarray(layer)
    assert (pixels[:, :330, 3] == 0).all()
    assert (pixels[:, 330:] == palette.ramp()[-1]).all()


def test_signed_map_is_blue_for_less_vermilion_for_more_and_clear_at_zero():
    cells = np.array([[[x, 0, x + 1, 1] for x in range(4)]], float)
    heat = np.array([[-1.0, 0.0, 0.5, 7.0]])
    pixels = np.asarray(picture._heat(heat, cells * 110, (440, 110), signed=True))[50, 55::110]
    assert pixels[0].tolist() == [*palette.rgb(palette.LESS), round(255 * palette.OPACITY)]
    assert pixels[1, 3] == 0
    assert pixels[2].tolist() == [*palette.rgb(palette.MORE), round(255 * palette.OPACITY / 2)]
    assert pixels[3].tolist() == [*palette.rgb(palette.MORE), round(255 * palette.OPACITY)]


def test_photographs_are_jpeg_and_drawings_png():
    assert picture.data_uri(Image.new("RGB", (400, 400), "red")).startswith("data:image/png;base64,")
    assert picture.data_uri(noise((400, 400))).startswith("data:image/jpeg;base64,")
