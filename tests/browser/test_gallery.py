"""The widgets of docs/gallery.md in JupyterLab, wide and narrow, light and dark: nothing is covered or cut."""

import gallery
import pytest

from cmllm_tools import widgets

from .lab import SETTINGS, Notebook, server, write_notebook
from .test_panel_looks import COLORS, FAULTS, faint
from .test_saved import WHOLE

pytestmark = pytest.mark.slow
SHOWN = {name: lines for name, lines in gallery.entries().items() if name in widgets.__all__}


@pytest.fixture(scope="module")
def front(browser, tmp_path_factory):
    home = tmp_path_factory.mktemp("gallery")
    file = home / "files" / "widgets.ipynb"
    file.parent.mkdir()
    write_notebook(file, [gallery.first_lines(), *SHOWN.values()])
    with server("jupyterlab", file.parent, home, SETTINGS | WHOLE) as address:
        context = browser.new_context(viewport={"width": 1400, "height": 3000})
        # Without the sidebar, as one has it on a narrow screen.
        front = Notebook(context.new_page(), f"{address}doc/tree/{file.name}")
        front.run_all()
        for at in range(len(SHOWN)):
            output(front.page, at).wait_for()
        front.page.locator(".cmllm-workbench .cmllm-player").wait_for()
        yield front
        context.close()
    assert front.problems == []
    assert front.abroad == []


def output(page, at):
    """The widget of a cell; the first cell is of the lines that all start from, and a picture beside it is hidden."""
    return page.locator(".jp-Notebook .jp-CodeCell").nth(at + 1).locator(".jp-OutputArea-output").first.locator("> *")


@pytest.mark.parametrize("theme", ["Dark", "Light"])
@pytest.mark.parametrize("width", [1400, 700])
def test_nothing_is_cut_or_covered_or_unreadable(front, pictures, width, theme):
    page = front.page
    page.set_viewport_size({"width": 1400, "height": 3000})
    front.theme(theme)
    page.set_viewport_size({"width": width, "height": 3000})
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    faults, pale = {}, {}
    for at, name in enumerate(SHOWN):
        widget = output(page, at)
        faults[name] = widget.evaluate(FAULTS)
        pale[name] = [each for each in widget.evaluate(COLORS) if faint(*each[1:])]
        drawn = widget.screenshot(path=pictures / f"gallery-{name}-{width}-{theme}.png".lower())
        if (width, theme) == (700, "Light"):
            gallery.keep(name, drawn)
    assert {name: found for name, found in faults.items() if found} == {}
    assert {name: found for name, found in pale.items() if found} == {}
