"""Keys typed at a widget stay in it: all letters and digits, focus on each control, in JupyterLab and Notebook 7."""

import string

import nbformat
import pytest

from .lab import Notebook, server, write_notebook

pytestmark = pytest.mark.slow
KEYS = string.ascii_lowercase + string.digits
MADE = """import cmllm_tools as cm
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.bench.heldout import HELDOUT

mllm, example = cm.load(), read_roc(HELDOUT)[0]
bench = cm.widgets.Workbench(mllm, example.image, regions=example.region("box"), method=cm.ControlMLLM(steps=1))
bench.run(), bench.layers.look(), bench._code.show(bench.code())
bench"""
CELLS = [
    nbformat.v4.new_markdown_cell("# First"),
    nbformat.v4.new_code_cell(MADE),
    nbformat.v4.new_code_cell("cm.widgets.RegionPicker(bench.image, example.region('box'), bench._prompt.layout)"),
    nbformat.v4.new_code_cell("cm.widgets.StepPlayer(bench.trace)"),
    nbformat.v4.new_code_cell("cm.widgets.AttentionExplorer(mllm, bench._prompt, example.region('box'))"),
    nbformat.v4.new_code_cell("print('last')"),
]
ROOTS = {
    ".cmllm-workbench": 40,
    ".jp-Cell:has(.cmllm-picker):not(:has(.cmllm-workbench)) .cmllm-picker": 8,
    ".jp-Cell:has(.cmllm-player):not(:has(.cmllm-workbench)) .cmllm-player": 4,
    ".jp-Cell:has(.cmllm-explorer):not(:has(.cmllm-workbench)) .cmllm-explorer": 4,
}
# The cells as they are: kinds, texts, and the widgets below them.
NOTEBOOK = """() => [...document.querySelectorAll(".jp-Notebook .jp-Cell")].map((cell) => [
    [...cell.classList].filter((name) => /^jp-(Code|Markdown|Raw)Cell$/.test(name)),
    cell.querySelector(".jp-InputArea")?.textContent.replace(/\\[.*?\\]:?/, ""),
    [...cell.querySelectorAll(".cmllm-workbench, .cmllm-picker, .cmllm-player, .cmllm-explorer")].length,
])"""
# Focus the next control of a root that can have it, by its number; its name, "" where it cannot, null after the last.
FOCUS = """(root, number) => {
    const wanted = "button, input, select, textarea, summary, pre, canvas[tabindex], [tabindex]";
    const control = [...root.querySelectorAll(wanted)][number];
    if (!control) return null;
    if (control.disabled || control.closest("[hidden]") || !control.getClientRects().length) return "";
    // Of many tokens and cells the first is enough: the tab key reaches one of them.
    if (control.getAttribute("tabindex") === "-1" && /token|cell/.test(control.className)) return "";
    control.focus();
    const name = `${control.tagName} ${control.className} ${control.textContent.slice(0, 20)}`;
    return document.activeElement === control ? name : "";
}"""


@pytest.mark.parametrize("app", ["jupyterlab", "notebook"])
def test_letters_and_digits_change_no_cell(browser, tmp_path, pictures, app):
    file = tmp_path / "files" / "keys.ipynb"
    file.parent.mkdir()
    write_notebook(file, CELLS)
    with server(app, file.parent, tmp_path) as address:
        context = browser.new_context(viewport={"width": 1440, "height": 1300})
        where = {"jupyterlab": "lab/tree", "notebook": "notebooks"}[app]
        front = Notebook(context.new_page(), f"{address}{where}/{file.name}")
        front.run_all()
        page = front.page
        page.locator(".jp-Cell:has(.cmllm-explorer) .cmllm-explorer .cell").last.wait_for(state="attached")
        before = page.evaluate(NOTEBOOK)
        assert [widgets for _, _, widgets in before] == [0, 4, 1, 1, 1, 0]
        page.locator(".cmllm-workbench").first.screenshot(path=pictures / f"workbench-{app}.png")
        for selector, least in ROOTS.items():
            root, tried = page.locator(selector).first, 0
            for tab in ["Steps", "Layers"] if selector == ".cmllm-workbench" else [None]:
                if tab:
                    root.get_by_role("tab", name=tab).click()
                tried += typed(page, root, before)
            assert tried >= least, selector
        # The notebook can still be saved from within a widget.
        page.locator(".cmllm-drawing").last.focus()
        front.save(file)
        context.close()


def typed(page, root, before):
    """Type all keys with the focus on each control; how many controls had it."""
    tried = number = 0
    while (name := root.evaluate(FOCUS, number)) is not None:
        number += 1
        if name:
            page.keyboard.type(KEYS)
            assert page.evaluate(NOTEBOOK) == before, name
            tried += 1
    return tried
