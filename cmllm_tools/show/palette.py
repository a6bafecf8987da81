"""All colours there are: of maps, of lines and of what lies around them, in figures, pages and widgets."""

from functools import cache

import numpy as np
from PIL.ImageColor import getrgb

# Viridis, from little to much: perceptually uniform, and told apart with any colour vision. Without its darkest third,
# which over a photograph is a shade and no colour.
VIRIDIS = ("#31688E", "#26828E", "#1F9E89", "#35B779", "#6ECE58", "#B5DE2B", "#FDE725")
# How strongly a map is drawn. The opacity rises steeply, so that a tenth of the maximum is seen already.
OPACITY, RISE = 0.8, 0.4
# The photograph below a map of full strength loses its colour, so that green shows on green, and this much of its
# brightness; where the model does not look, this much of what is left. Widgets have the same from `picture_data`.
DIM, SHADE = 0.2, 0.6
# Okabe and Ito's blue, vermilion, green, purple and orange, told apart with any colour vision, and a grey for their black,
# which is not seen on black.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#808080"
# Their light blue and yellow, where it is dark behind.
SKY, YELLOW = "#56B4E9", "#F0E442"
# Less than nothing and more than nothing, in a map with a sign; bars of a table.
LESS, MORE = BLUE, VERMILION
# Where there is no image.
BLANK = "#E1E1E1"
# Of a page: words, what they stand on, rules between them, and sheets with code.
TEXT, PAPER, RULE, SHEET = "#222", "#fff", "#ddd", "#f6f6f6"
# Of a line that is seen on any image and on any colour of a map, and of its rim.
LINE, RIM = "white", "black"
# Texts of a figure. Plotly's colours cannot follow a page's theme: nothing is painted below, so that the page's own colour
# is seen, and this grey has the same contrast (above 4) with white and with JupyterLab's dark.
INK = "#797979"
CLEAR = "rgba(0, 0, 0, 0)"


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255 each."""
    red, green, blue, *_ = getrgb(color)
    return red, green, blue


def hexadecimal(color: str) -> str:
    """`#RRGGBB` of a color by name or number."""
    return "#{:02X}{:02X}{:02X}".format(*rgb(color))


def rgba(color: str, opacity: float) -> str:
    """A color with an opacity in 0..1, as style sheets and plotly write it."""
    return f"rgba{(*rgb(color), opacity)}"


@cache
def ramp() -> np.ndarray:
    """(256, 4) uint8 RGBA, from little to much. It starts transparent, so that the image shows where attention is low."""
    anchors = np.array([rgb(color) for color in VIRIDIS])
    at = np.linspace(0, 1, 256)
    channels = [np.interp(at, np.linspace(0, 1, len(anchors)), channel) for channel in anchors.T]
    return np.round(np.stack([*channels, 255 * OPACITY * at**RISE], 1)).astype(np.uint8)
