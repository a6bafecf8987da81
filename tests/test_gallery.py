"""The gallery has every public figure and widget, each with its lines and a picture that was made by them."""

import gallery
import pytest
from PIL import Image

from cmllm_tools import figures, widgets

WHAT_TO_DO = (
    "docs/gallery.md shows every name of cm.figures and cm.widgets. For a new one, add a section `### name` with its "
    "lines, the last of which is the figure or widget, and `![name](gallery/name.png)`; then `make gallery` draws the "
    "pictures (it needs Chromium). The browser tests of overlaps read the same list."
)


def test_every_figure_and_widget_is_shown():
    shown, public = set(gallery.entries()), {*figures.__all__, *widgets.__all__}
    assert shown == public, f"{WHAT_TO_DO} Differing: {sorted(shown ^ public)}."


@pytest.mark.parametrize("name", gallery.entries())
def test_a_picture_is_of_the_lines_beside_it(name):
    path = gallery.PICTURES / f"{name}.png"
    assert path.is_file(), f"There is no {path.name}. {WHAT_TO_DO}"
    with Image.open(path) as picture:
        made_by = picture.text.get(gallery.KEY)
        assert max(picture.size) < 3000
    assert made_by == gallery.digest(gallery.entries()[name]), f"{path.name} was made by other lines: `make gallery`."


def test_pictures_are_few_bytes_and_none_is_left_over():
    pictures = list(gallery.PICTURES.iterdir())
    assert {path.stem for path in pictures} == set(gallery.entries())
    assert sum(path.stat().st_size for path in pictures) < gallery.LARGEST


def test_a_section_without_lines_or_a_last_line_is_refused(tmp_path, monkeypatch):
    page = tmp_path / "gallery.md"
    monkeypatch.setattr(gallery, "PAGE", page)
    page.write_text("```python\nx = 1\n```\n### thing\n\nwords\n")
    with pytest.raises(SystemExit, match="section thing must have its lines"):
        gallery.entries()
    page.write_text("```python\nx = 1\n```\n### thing\n```python\ny = x\n```\n![thing](gallery/thing.png)\n")
    with pytest.raises(SystemExit, match="the last line of section thing"):
        list(gallery.made({}))
    page.write_text("```python\nx = 1\n```\n### thing\n```python\ny = x\ny + 1\n```\n![thing](gallery/thing.png)\n")
    assert list(gallery.made({})) == [("thing", 2)]
