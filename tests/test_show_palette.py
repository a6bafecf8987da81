"""The one palette."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import cmllm_tools
from cmllm_tools.show import palette

PACKAGE = Path(cmllm_tools.__file__).parent


def test_palette_runs_from_transparent_to_opaque():
    colors = palette.ramp()
    assert colors[0, 3] == 0
    assert (np.diff(colors[:, 3].astype(int)) >= 0).all()
    luminance = colors[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -1).all()


def test_colours_stand_in_the_palette_alone():
    """Figures, pages and widgets take them from there; JupyterLab's own have its light theme's to fall back on."""
    around = re.compile(r"#[0-9a-fA-F]{3,8}\b|\brgba?\(\s*\d")
    found = {}
    for path in (path for kind in ("py", "js", "css", "html") for path in PACKAGE.rglob(f"*.{kind}")):
        text = re.sub(r"var\(--jp-[\w-]+, [^()]*\)", "", path.read_text(encoding="utf-8"))
        found[path.relative_to(PACKAGE).as_posix()] = around.findall(text)
    assert [name for name, colors in found.items() if colors] == ["show/palette.py"]


def test_a_colour_has_one_value_however_it_is_written():
    assert palette.rgb("#0072B2") == (0, 114, 178)
    assert palette.rgba(palette.BLUE, 0.5) == "rgba(0, 114, 178, 0.5)"
    assert palette.hexadecimal("white") == "#FFFFFF"


def test_widgets_have_the_palettes_colours():
    modules = pytest.importorskip("cmllm_tools.widgets.modules")
    named = re.search(r"^const PALETTE = (.*);$", modules.script("region_picker"), re.MULTILINE)
    assert json.loads(named[1])["blue"] == palette.BLUE
    assert f"--cmllm-color-blue: {palette.BLUE};" in modules.style("picture")
