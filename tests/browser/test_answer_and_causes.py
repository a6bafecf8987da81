"""The workbench's tabs of the answer and of causes in JupyterLab, with a real mouse: look first, read, knock out, point."""

import re

import pytest

from .lab import Panel, opened, write_notebook

pytestmark = pytest.mark.slow
CELL = """import cmllm_tools as cm

mllm, scene = cm.load(), cm.demo_scene()
bench = cm.widgets.Workbench(mllm, scene.image, regions=scene.region("box"), method=cm.ControlMLLMPlus(steps=3))
bench"""
WIDTHS = (1400, 700)
NUMBER = re.compile(r"\d")


@pytest.fixture(scope="module")
def panel(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("causes")
    write_notebook(folder / "causes.ipynb", [CELL])
    with opened(browser, tmp_path_factory.mktemp("home"), folder / "causes.ipynb", "jupyterlab", alone=True) as front:
        yield Panel(front)


def photographed(panel, pictures, name):
    for width in WIDTHS:
        # So high that the whole panel is in the picture.
        panel.page.set_viewport_size({"width": width, "height": 2600})
        panel.page.mouse.move(0, 0)
        panel.page.wait_for_timeout(300)
        panel.root.screenshot(path=pictures / f"workbench-{name}-{width}.png")
    panel.page.set_viewport_size({"width": 1440, "height": 1700})


def test_before_the_first_run_the_unsteered_answer_and_map_are_there(panel, pictures):
    panel.press("Look first")
    panel.wait_for("^unsteered")
    assert panel.answers() == ["blue zero at the center"]
    assert panel.root.locator(".cmllm-player .label").text_content() == "step 0 of 0"
    photographed(panel, pictures, "first")


def test_the_answer_is_stepped_through(panel, pictures):
    panel.root.get_by_role("tab", name="Answer").click()
    panel.press("Read")
    strip = panel.root.locator(".cmllm-strip")
    tokens = strip.locator(".token")
    tokens.nth(4).wait_for()
    assert strip.locator(".word").all_text_contents() == ["blue", "zero", "at", "the", "center"]
    large = strip.locator(".left canvas")
    before = large.evaluate("canvas => canvas.toDataURL()")
    tokens.nth(1).click()
    assert '"zero", token 2 of 5' in strip.locator(".facts").text_content()
    assert large.evaluate("canvas => canvas.toDataURL()") != before
    assert strip.locator(".said b").text_content() == "zero"
    panel.page.keyboard.press("ArrowRight")
    assert tokens.nth(2).get_attribute("aria-selected") == "true"
    strip.get_by_role("button", name="Back").click()
    photographed(panel, pictures, "answer")


def test_attention_is_knocked_out_and_a_cell_says_what_the_model_says_then(panel, pictures):
    panel.root.get_by_role("tab", name="Causes").click()
    panel.press("Knock out")
    view = panel.root.locator(".cmllm-causes")
    # All of them have their numbers.
    view.locator(".row:last-child .cell:last-child", has_text=NUMBER).wait_for()
    assert view.locator(".cell").count() == 36
    view.locator(".row[role=row]").nth(4).locator(".cell").first.click()
    view.locator(".said .after", has_text="blue zero").wait_for()
    assert view.locator(".said .when").last.text_content() == "layer 4, head 0"
    panel.root.locator(".cmllm-causes-tab").get_by_role("button", name="Copy as code").click()
    panel.root.get_by_text("cm.causes.knockout_grid(").first.wait_for()
    photographed(panel, pictures, "causes")
    panel.root.get_by_label("heads").last.select_option("all at once")
    panel.press("Knock out")
    view.locator(".heads", has_text="all heads").wait_for()
    view.locator(".row:last-child .cell:last-child", has_text=NUMBER).wait_for()
    photographed(panel, pictures, "causes-windows")


def test_ways_are_compared(panel, pictures):
    panel.root.get_by_role("tab", name="Compare").click()
    photographed(panel, pictures, "compare-empty")
    panel.press("Compare")
    panel.root.locator(".cmllm-found tbody tr").nth(7).wait_for()
    photographed(panel, pictures, "compare")
