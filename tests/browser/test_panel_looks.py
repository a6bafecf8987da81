"""The workbench with photographs and long texts, in JupyterLab, wide and narrow, light and dark: all can be read."""

import re

import pytest
from playwright.sync_api import TimeoutError as NotInTime

from .gallery import ANSWER, QUESTION
from .lab import Notebook, server, write_notebook
from .test_figures_browser import contrast

pytestmark = pytest.mark.slow
MADE = f"""import cmllm_tools as cm
from cmllm_tools.models.answer import Answer
from tests.browser.gallery import photograph

mllm, said = cm.load(), cm.Mllm.generate
# The embedded model says little.
mllm.generate = lambda *given, **options: Answer({ANSWER!r}, said(mllm, *given, **options).ids)

def panel(width, height):
    middle = cm.Box(width / 2 - 0.2 * min(width, height), height / 2, width / 2 + 0.2 * min(width, height), height / 2 + 60)
    bench = cm.widgets.Workbench(mllm, photograph(width, height), {QUESTION!r}, middle, cm.ControlMLLMPlus(steps=12))
    bench.run(), bench.layers.look(), bench._code.show(bench.code())
    bench.ways._ways.value = ("crop",)
    bench.answer.read(), bench.causes.run(), bench.causes.answer_at(4, 0), bench.ways.run()
    return bench"""
SIZES = {"12 MP": (4000, 3000), "tall": (300, 2000)}
# Faults of a panel: [what, who, with whom].
FAULTS = """(panel) => {
    const frame = panel.closest(".jp-OutputArea-output").getBoundingClientRect(), faults = [], texts = [];
    const walk = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const one = walk.currentNode, range = document.createRange(), style = getComputedStyle(one.parentElement);
        if (!one.textContent.trim() || !one.parentElement.checkVisibility()) continue;
        if (one.parentElement.closest("style, option, noscript, details:not([open]) > :not(summary)")) continue;
        // Folded away.
        if (one.parentElement.matches("details:not([open])")) continue;
        range.selectNodeContents(one);
        // What is scrolled within its own frame, as a wide grid or many tokens are, ends there.
        const port = one.parentElement.closest(".grid, pre, .tokens")?.getBoundingClientRect();
        for (const box of range.getClientRects())
            if (box.width > 1 && box.height > 1 && style.visibility !== "hidden"
                && !(port && (box.right > port.right || box.left < port.left
                    || box.bottom > port.bottom || box.top < port.top)))
                texts.push([one.textContent.slice(0, 50), box]);
    }
    const common = (a, b, start, end) => Math.min(a[end], b[end]) - Math.max(a[start], b[start]);
    texts.forEach(([text, box], at) => {
        for (const [other, its] of texts.slice(at + 1))
            if (common(box, its, "left", "right") > 2 && common(box, its, "top", "bottom") > 3)
                faults.push(["over", text, other]);
        if (box.right > frame.right + 1 || box.left < frame.left - 1) faults.push(["beside", text, ""]);
    });
    for (const one of panel.querySelectorAll("*")) {
        const box = one.getBoundingClientRect(), name = `${one.tagName} ${one.getAttribute("class") ?? ""}`;
        if (!box.width || !one.checkVisibility() || one.closest(".grid, pre, svg, .noUi-target")) continue;
        if (box.right > frame.right + 1) faults.push(["beside", name, Math.round(box.right - frame.right)]);
        const cut = getComputedStyle(one).overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1;
        if (cut && !/INPUT|SELECT/.test(one.tagName)) faults.push(["scrolled", name, one.scrollWidth - one.clientWidth]);
        const below = getComputedStyle(one).overflowY !== "visible" && one.scrollHeight > one.clientHeight + 2;
        // A question of any length has its own scroll bar in the end, and so has a long answer's strip.
        const scrolls = /INPUT|SELECT|TEXTAREA/.test(one.tagName) || one.matches(".tokens");
        if (below && !scrolls) faults.push(["cut", name, one.scrollHeight]);
    }
    return faults;
}"""
# [text, its color, what it stands on] of a panel.
COLORS = """(panel) => {
    const paper = (one) => {
        for (; one; one = one.parentElement) {
            const color = getComputedStyle(one).backgroundColor;
            if (!/^rgba\\(.*, 0(\\.\\d+)?\\)$|transparent|color\\(/.test(color)) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const visible = [...panel.querySelectorAll("*")].filter((one) => one.checkVisibility()
        && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
    const fields = [...panel.querySelectorAll("input[type=number], input[type=text], textarea, select")]
        .filter((one) => one.getClientRects().length);
    return [...visible, ...fields]
        .filter((one) => !one.closest(":disabled, .cmllm-size, svg, option, style"))
        .map((one) => [`${one.tagName} ${one.textContent.slice(0, 40)}`, getComputedStyle(one).color, paper(one)]);
}"""


@pytest.fixture(scope="module")
def front(browser, pictures, tmp_path_factory):
    home = tmp_path_factory.mktemp("looks")
    file = home / "files" / "looks.ipynb"
    file.parent.mkdir()
    write_notebook(file, [MADE, *(f"panel{size}" for size in SIZES.values())])
    with server("jupyterlab", file.parent, home) as address:
        context = browser.new_context(viewport={"width": 1400, "height": 3000})
        # Without the sidebar, as one has it on a narrow screen.
        front = Notebook(context.new_page(), f"{address}doc/tree/{file.name}")
        front.run_all()
        try:
            front.page.locator(".cmllm-workbench").nth(1).locator(".cmllm-explorer .cell").last.wait_for(state="attached")
        except NotInTime:
            front.page.screenshot(path=pictures / "panel-missing.png")
            shown = front.page.locator(".jp-OutputArea").all_text_contents()
            raise AssertionError(f"The panels are not there: {front.problems}; {shown}") from None
        yield front
        context.close()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("width", [1400, 700])
def test_nothing_is_cut_or_covered_or_unreadable(front, pictures, width, theme):
    page = front.page
    page.set_viewport_size({"width": 1400, "height": 3000})
    front.theme(theme)
    page.set_viewport_size({"width": width, "height": 3000})
    page.wait_for_timeout(500)
    faults, pale = {}, {}
    for at, name in enumerate(SIZES):
        panel = page.locator(".cmllm-workbench").nth(at)
        for tab in ("Steps", "Answer", "Layers", "Causes", "Compare"):
            panel.get_by_role("tab", name=tab).click()
            page.mouse.move(0, 0)
            page.wait_for_timeout(300)
            panel.screenshot(path=pictures / f"panel-{name.replace(' ', '')}-{tab}-{width}-{theme}.png".lower())
            faults[name, tab] = panel.evaluate(FAULTS)
            pale[name, tab] = [each for each in panel.evaluate(COLORS) if faint(*each[1:])]
    assert {key: found for key, found in faults.items() if found} == {}
    assert {key: found for key, found in pale.items() if found} == {}
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def faint(ink, paper):
    """Whether a text has a contrast below 3 with what it stands on; inks may be half transparent."""
    *color, opacity = numbers(ink)
    below = numbers(paper)[:3]
    seen = [round(opacity * one + (1 - opacity) * other) for one, other in zip(color, below, strict=True)]
    return contrast(f"rgb{tuple(seen)}", [round(part) for part in below]) < 3


def numbers(color):
    """Red, green and blue in 0..255 and opacity, of `rgb(1, 2, 3)` or `color(srgb 0.1 0.2 0.3 / 0.7)`."""
    found = [float(part) for part in re.findall(r"[\d.]+", color)]
    scale = 255 if color.startswith("color") else 1
    return [*(scale * part for part in found[:3]), *found[3:], 1.0][:4]
