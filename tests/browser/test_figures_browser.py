"""Figures at the size of real work, in a page without a network: no text over another, nothing cut, no sideways scroll."""

import re

import gallery
import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from cmllm_tools import figures

from .gallery import every_figure

pytestmark = pytest.mark.slow

# Beside plotly.js, which a page has once.
LARGEST = 2_000_000
WIDTHS = (700, 1400, 1800)
# Pixels by which boxes of texts may meet, as they are higher than their letters.
MEET = 2
THEMES = {"light": (255, 255, 255), "dark": (17, 17, 17)}

# Faults of each figure in the page: [what, who, with whom].
FAULTS = """
([meet]) => [...document.querySelectorAll(".plotly-graph-div")].map((div) => {
    const frame = div.getBoundingClientRect();
    const pictures = [...div.querySelectorAll(".layer-below image, .imagelayer image")].map((image) => {
        const { x, y, width, height } = image.getBoundingClientRect();
        return { x, y, width, height };
    });
    const seen = (node) => {
        const { width, height } = node.getBoundingClientRect();
        return width > 0 && height > 0 && getComputedStyle(node).visibility !== "hidden";
    };
    const boxes = (selector, name) => [...div.querySelectorAll(selector)].filter(seen)
        .map((node) => ({ name: name ?? node.textContent.slice(0, 60), box: node.getBoundingClientRect() }));
    const texts = [...div.querySelectorAll("text")].filter((node) => seen(node) && node.textContent.trim())
        .filter((node) => !node.closest(".updatemenu-container"))
        .map((node) => ({ name: node.textContent.slice(0, 60), box: node.getBoundingClientRect() }));
    const others = [
        ...boxes(".modebar-group", "tools"), ...boxes(".updatemenu-button", "button"),
        ...boxes(".slider-rail-rect", "slider"), ...boxes(".slider-grip-rect", "handle"),
        ...boxes(".cbfills rect", "scale"),
    ];
    const over = (one, other) =>
        Math.min(one.right, other.right) - Math.max(one.left, other.left) > meet &&
        Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > meet;
    const faults = [];
    texts.forEach((text, at) => {
        for (const other of [...texts.slice(at + 1), ...others])
            if (over(text.box, other.box)) faults.push(["over", text.name, other.name]);
        if (text.box.left < frame.left - 1 || text.box.right > frame.right + 1
            || text.box.top < frame.top - 1 || text.box.bottom > frame.bottom + 1) faults.push(["cut", text.name, ""]);
    });
    const [tools, ...controls] = others;
    for (const one of controls.filter((each) => each.name === "button"))
        for (const other of controls.filter((each) => each.name === "handle" || each.name === "slider"))
            if (over(one.box, other.box)) faults.push(["over", one.name, other.name]);
    const { width, height } = frame;
    return { name: div.closest('section').id, faults, texts: texts.length, width, height, pictures };
})
"""


# How the names end of what docs/gallery.md shows, which is drawn beside the figures at the size of real work.
SHOWN = ", of the page"


@pytest.fixture(scope="module")
def drawn():
    of_page = {f"{name}{SHOWN}": value for name, value in gallery.made({}) if name in figures.__all__}
    return every_figure() | of_page


@pytest.fixture(scope="module")
def page(browser, drawn, tmp_path_factory):
    parts = [
        f'<section id="{name}">{figure.to_html(full_html=False, include_plotlyjs=False, auto_play=False)}</section>'
        for name, figure in drawn.items()
    ]
    style = "<style>body { margin: 8px } .dark { background: rgb(17, 17, 17) }</style>"
    file = tmp_path_factory.mktemp("figures") / "all.html"
    file.write_text(f"<meta charset=utf-8>{style}<script>{get_plotlyjs()}</script>{''.join(parts)}", encoding="utf-8")
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900}, offline=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_function(
        """() => [...document.querySelectorAll('.plotly-graph-div')]
            .every((div) => div._fullLayout && div.querySelector('.infolayer'))"""
    )
    yield page
    context.close()


def test_every_figure_is_tried(drawn):
    assert {re.split("[ ,]", name)[0] for name in drawn} == set(figures.__all__)
    # A width of its own would be stretched to the notebook's in the picture that JupyterLab saves.
    assert {name for name, figure in drawn.items() if figure.layout.width is not None} == set()


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_lies_over_another_and_nothing_is_cut(page, width, drawn, pictures):
    found = at_width(page, width)
    assert len(found) == len(drawn)
    assert all(each["texts"] for each in found)
    assert {each["name"]: each["faults"] for each in found if each["faults"]} == {}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.complaints == []
    for theme in THEMES:
        page.evaluate("theme => document.body.className = theme", theme)
        page.screenshot(path=pictures / f"figures_{width}_{theme}.png", full_page=True)


def test_the_gallery_s_pictures(page, drawn, pictures):
    """They are left for `make gallery`, as a notebook 700 pixels wide shows them in light."""
    at_width(page, WIDTHS[0])
    page.evaluate("document.body.className = 'light'")
    folder = pictures / "gallery"
    folder.mkdir(exist_ok=True)
    for name in drawn:
        if name.endswith(SHOWN):
            page.locator(f'[id="{name}"] .plotly-graph-div').screenshot(path=folder / f"{name.removesuffix(SHOWN)}.png")
            assert (folder / f"{name.removesuffix(SHOWN)}.png").stat().st_size > 1000


def at_width(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function(
        """() => [...document.querySelectorAll('.plotly-graph-div')].every((div) =>
            ["width", "height"].every((side) => Math.abs(div._fullLayout[side] - div.getBoundingClientRect()[side]) < 2))"""
    )
    return page.evaluate(FAULTS, [MEET])


def test_pictures_use_the_width_there_is(page):
    """They keep their shape, nothing else grows with them, and they stop where a screen is full, or the figure."""
    found = {
        width: {each["name"]: each for each in at_width(page, width) if each["pictures"] and SHOWN not in each["name"]}
        for width in WIDTHS
    }
    assert len({re.split("[ ,]", name)[0] for name in found[WIDTHS[0]]}) == 9
    for name, narrow in found[WIDTHS[0]].items():
        aspect = 3000 / 4000 if "12 MP" in name else 2000 / 300
        rows = {round(one["y"]) for one in narrow["pictures"]}
        assert not {row + 1 for row in rows} & rows, name
        between = narrow["height"] - len(rows) * narrow["pictures"][0]["height"]
        for width, figures_there in found.items():
            each = figures_there[name]
            sizes = np.array([(one["width"], one["height"]) for one in each["pictures"]])
            assert sizes[:, 1] / sizes[:, 0] == pytest.approx(aspect, rel=0.02), (name, width)
            assert np.ptp(sizes, axis=0).max() < 2, (name, width)
            if not name.startswith("step_player"):  # its curves have a least height
                assert each["height"] - len(rows) * sizes[0, 1] == pytest.approx(between, abs=4), (name, width)
            across = (
                sum(sizes[:, 0]) / len(rows) if len(sizes) % len(rows) == 0 else sizes[0, 0] * -(-len(sizes) // len(rows))
            )
            across = 2 * across if name.startswith("step_player") else across
            highest = 680 if len(rows) == 1 else 460
            assert across > 0.88 * (each["width"] - 56) or sizes[0, 1] >= highest - 2, (name, width)


@pytest.mark.parametrize("theme", THEMES)
def test_figures_are_read_on_the_page_s_own_colour(page, theme):
    """Nothing is painted below, and all texts have contrast with it, but for what stands in a cell or on an image."""
    colors = page.evaluate(
        """() => [...document.querySelectorAll(".plotly-graph-div text")]
            .filter((node) => node.textContent.trim() && !node.closest(".heatmap-label, .textpoint"))
            .map((node) => getComputedStyle(node).fill)"""
    )
    papers = page.evaluate("[...document.querySelectorAll('.plotly-graph-div .main-svg')].map((n) => n.style.background)")
    assert set(papers) <= {"rgba(0, 0, 0, 0)", "transparent", ""}
    assert {color for color in colors if contrast(color, THEMES[theme]) < 4} == set()


def contrast(color, paper):
    """By WCAG 2."""

    def light(rgb):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted([light(map(int, re.findall(r"\d+", color)[:3])), light(paper)])
    return (high + 0.05) / (low + 0.05)


def test_a_figure_is_small_whatever_the_photograph(drawn, monkeypatch):
    import plotly.io

    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")
    sizes = {name: len(figure.to_json()) + len(figure._repr_html_()) for name, figure in drawn.items()}
    print(sizes)
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}


def test_the_player_s_slider_shows_each_step(page):
    div = page.locator('[id="step_player, 12 MP"] .plotly-graph-div')
    shown = "(div) => div._fullLayout.title.text"
    assert "step 100 of 100" in div.evaluate(shown)
    div.evaluate("(div) => Plotly.animate(div, ['7'], {mode: 'immediate', frame: {duration: 0, redraw: true}})")
    assert "step 7 of 100" in div.evaluate(shown)
    assert div.evaluate("(div) => div.data.at(-1).x[0]") == 7
