"""ES modules and style sheets as one text each: there is no build step, and a widget's module can import nothing.

Both begin with the palette, so that Python alone knows the colours (`show.palette`).
"""

import json
from pathlib import Path

from ..show.palette import BLUE, LINE, ORANGE, RIM, SKY, VERMILION, YELLOW, hexadecimal

_HERE = Path(__file__).parent
_COLORS = {
    name: hexadecimal(color)
    for name, color in {
        "blue": BLUE,
        "vermilion": VERMILION,
        "sky": SKY,
        "orange": ORANGE,
        "yellow": YELLOW,
        "line": LINE,
        "rim": RIM,
    }.items()
}


def module(*names: str) -> str:
    """The files of this folder one after the other, such as `keys.js` and then the module that uses it."""
    return f"const PALETTE = {json.dumps(_COLORS)};\n" + _joined("colors.js", *names)


def style(*names: str) -> str:
    """Style sheets of this folder as one; a color of the palette is `var(--cmllm-color-blue)`."""
    colors = " ".join(f"--cmllm-color-{name}: {color};" for name, color in _COLORS.items())
    return f":root, :host {{ {colors} }}\n" + _joined(*names)


def _joined(*names: str) -> str:
    return "".join((_HERE / name).read_text(encoding="utf-8") for name in names)
