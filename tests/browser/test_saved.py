"""A notebook of every figure and a progress bar: saved in JupyterLab, opened again without its kernel, and exported."""

import re
from contextlib import contextmanager

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import TimeoutError as NotInTime

from cmllm_tools import figures

from .conftest import HANGS
from .lab import SETTINGS, Notebook, server, write_notebook

pytestmark = pytest.mark.slow
RUN = """import cmllm_tools as cm
from tests.browser import gallery

mllm, scene = cm.load(), cm.demo_scene()
prompt = mllm.prepare(scene.image, "describe the object.")
trace = cm.optimize(mllm, prompt, scene.region("box"), cm.ControlMLLM(steps=7), callbacks=[cm.ProgressBar()])"""
DRAWN = """image = gallery.photograph(400, 300)
drawn = gallery.of_image("photograph", image, gallery.layout_of(image, (12, 16)), 8) | gallery.of_numbers()
drawn |= {"layer_head_grid": cm.figures.layer_head_grid(cm.capture_attention(mllm, prompt), scene.region("box"))}"""
# One of each kind, by its name in the gallery.
SHOWN = [
    "cause_grid",
    "curves",
    "head_grid",
    "head_ranking",
    "insertion_deletion",
    "layer_head_grid",
    "window_grid",
    "words_by_token",
    *(f"{kind}, photograph" for kind in ("answer_regions", "words_on_image")),
    *(f"{kind}, photograph" for kind in ("before_after", "energy_curve", "map_on_image", "maps_on_image")),
    *(f"{kind}, photograph" for kind in ("sinks_on_image", "step_player", "token_weights", "visual_tokens")),
]
GROWING = {
    *(f"{kind}, photograph" for kind in ("before_after", "map_on_image", "maps_on_image", "sinks_on_image")),
    *(f"{kind}, photograph" for kind in ("step_player", "token_weights", "visual_tokens", "words_on_image")),
}
# Text of each cell that shows a figure, and the box of plotly's drawing, or of the picture that stands for it.
BOXES = """() => [...document.querySelectorAll(".jp-Notebook .jp-CodeCell")].map((cell) => {
    const [shown] = [...cell.querySelectorAll(".jp-OutputArea-output :is(.main-svg, img)")]
        .map((one) => one.getBoundingClientRect()).filter(({ width }) => width > 50);
    return [cell.querySelector(".cm-content").textContent, Math.round(shown?.width), Math.round(shown?.height)];
}).filter(([text]) => text.startsWith("drawn["))"""
SIDEWAYS = """() => [...document.querySelectorAll(".jp-Notebook .jp-OutputArea-output")]
    .filter((one) => one.scrollWidth > one.clientWidth + 1)
    .map((one) => [one.className, one.textContent.slice(0, 80), one.scrollWidth, one.clientWidth])"""
# Cells out of sight are drawn too.
WHOLE = {"@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"}}
# A bar at its beginning.
FROZEN, ENDED = re.compile(r"0/7|\b0%\|"), re.compile(r"100%.*\b(\d+)/\1 \[")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    # Comparisons are drawn as curves are, many maps as several.
    others = {"comparison", "frontier", "head_maps", "runs_side_by_side"}
    assert {name.split(",")[0] for name in SHOWN} | others == set(figures.__all__)
    file = tmp_path_factory.mktemp("saved") / "files" / "figures.ipynb"
    file.parent.mkdir()
    write_notebook(file, [RUN, DRAWN, *(f"drawn[{name!r}]" for name in SHOWN)])
    return file


@pytest.fixture(scope="module")
def address(file):
    with server("jupyterlab", file.parent, file.parents[1], SETTINGS | WHOLE) as address:
        yield address


def test_reopened_figures_and_the_export_keep_their_shape_and_bars_their_end(browser, file, address, pictures):
    """One after the other: the export is of the notebook that was run and saved."""
    wide, narrow = (check_reopened(browser, file, address, pictures, width) for width in (1400, 700))
    # Figures of pictures grow with their width, also when they are opened again.
    growing = {name for (name, _, high), (_, _, low) in zip(wide, narrow, strict=True) if high > low + 50}
    assert growing == {f"drawn[{name!r}]" for name in SHOWN if name in GROWING}
    check_export(browser, file, pictures)


def check_reopened(browser, file, address, pictures, width):
    # Numbers of an earlier run would say that all cells have run before one has.
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, file)
    with opened(browser, address, file, width) as front:
        front.run_all()
        before = settled(front.page)
        front.save(file)
        shut_down(front)
    with opened(browser, address, file, width) as front:
        after = settled(front.page)
        front.page.screenshot(path=pictures / f"saved_{width}.png")
        text = front.page.locator(".jp-Notebook").text_content()
        # Figures are laid out a little after they have their boxes. Where the notebook's scrollbar comes only then,
        # JupyterLab does not tell them, and they are some pixels too wide until the window is resized.
        # On a busy machine they take long to be drawn again.
        front.page.evaluate(
            "() => { const told = () => window.dispatchEvent(new Event('resize')); told(); setInterval(told, 45000); }"
        )
        try:
            front.page.wait_for_function(f"() => !({SIDEWAYS})().length", timeout=HANGS)
        except NotInTime:
            raise AssertionError(f"These are scrolled sideways: {front.page.evaluate(SIDEWAYS)}") from None
    assert [name for name, *_ in after] == [f"drawn[{name!r}]" for name in SHOWN]
    assert {name: (size, then) for (name, *size), (_, *then) in zip(before, after, strict=True) if apart(size, then)} == {}
    assert ENDED.search(text)
    assert not FROZEN.search(text)
    return after


def check_export(browser, file, pictures):
    exported, _ = HTMLExporter().from_filename(file)
    assert ENDED.search(exported)
    assert not FROZEN.search(re.sub(r"base64,[^\"]*", "", exported))
    page = file.with_suffix(".html")
    page.write_text(exported, encoding="utf-8")
    context = browser.new_context(viewport={"width": 700, "height": 900}, offline=True)
    shown = context.new_page()
    shown.goto(page.as_uri(), wait_until="domcontentloaded")
    shown.screenshot(path=pictures / "exported_700.png", full_page=True)
    pictured = shown.evaluate("[...document.images].map((image) => image.getBoundingClientRect().right)")
    assert pictured
    assert max(pictured) <= 700
    context.close()


@contextmanager
def opened(browser, address, file, width):
    context = browser.new_context(viewport={"width": width, "height": 1200})
    # Without the sidebar, as one has it on a narrow screen.
    yield Notebook(context.new_page(), f"{address}doc/tree/{file.name}")
    context.close()


def settled(page):
    """The boxes, once all are there and stay as they are."""
    for _ in range(HANGS // 1000):
        before = page.evaluate(BOXES)
        page.wait_for_timeout(1000)
        drawn = len(before) == len(SHOWN) and all(width for _, width, _ in before)
        if drawn and page.evaluate(BOXES) == before:
            return before
    raise AssertionError(f"Not all figures were drawn: {before}")


def shut_down(front):
    """End the kernel, as the menu does."""
    front.menu("Kernel", "Shut Down Kernel")
    front.page.wait_for_function("async () => !(await (await fetch('/api/kernels')).json()).length", polling=200)


def apart(size, then):
    return max(abs(one - other) for one, other in zip(size, then, strict=True)) > 4
