"""Lesson 03 in a real JupyterLab and Notebook 7, followed with a real mouse: draw, steer, stop, reload, export."""

import json
import re
import shutil

import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter

import cmllm_tools as cm
from cmllm_tools.inputs.regions import region_from_json

from .lab import FINISHED, FIRST, ROOT, Panel, opened
from .test_region_picker import disc_line, rim

pytestmark = pytest.mark.slow
LESSON = "03_the_workbench.ipynb"
# The lesson's scene: the object to steer to, and where the others are.
CROSS, STAR = (146, 79, 192, 127), (12, 140, 68, 192)
NAMES = {CROSS: "red cross", STAR: "magenta star"}
# What the tests ask the kernel, in cells of their own after the lesson.
ASKED = {
    "regions": 'print("regions", json.dumps([region.to_json() for region in bench.picker.regions]))',
    "head": 'print("head", json.dumps([explorer.layer, explorer.head, cm.region_share(explorer.map, explorer.regions)]))',
    # What was taken over, and the lesson's own settings again.
    "used": 'print("used", json.dumps([bench.method.layers, bench.method.heads])); bench.method = cm.ControlMLLMPlus()',
    "exported": 'print("exported", json.dumps(str(bench.player.write_html("player.html"))))',
    "stopped": 'print("stopped", json.dumps([pressed[-1:], len(bench.trace), bench.trace.stopped, bench.answers]))',
}
SETUP = """import json
import ipywidgets as ipw

pressed = []
bench._stop.on_click(lambda _: pressed.append(len(bench.trace)))
count, other = ipw.Label("0"), ipw.Button(description="Another widget")
other.on_click(lambda _: setattr(count, "value", str(int(count.value) + 1)))
ipw.HBox([other, count.add_class("counted")])"""


@pytest.fixture(scope="module")
def measured(pictures):
    """Figures of this run, written to test-output/jupyterlab.json when it ends."""
    figures = {}
    yield figures
    (pictures / "jupyterlab.json").write_text(json.dumps(figures, indent=2) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The lessons, the workbench's with cells to ask the kernel."""
    folder = tmp_path_factory.mktemp("lessons")
    shutil.copytree(ROOT / "notebooks", folder, dirs_exist_ok=True)
    notebook = nbformat.read(folder / LESSON, as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in (SETUP, *ASKED.values())]
    nbformat.write(notebook, folder / LESSON)
    return folder


@pytest.fixture(scope="module")
def lesson(browser, tmp_path_factory, folder):
    with opened(browser, tmp_path_factory.mktemp("jupyterlab"), folder / LESSON, "jupyterlab") as notebook:
        yield notebook


@pytest.fixture
def panel(lesson):
    panel = Panel(lesson)
    panel.rest()
    return panel


def asked(notebook, what):
    return json.loads(notebook.run_cell(ASKED[what][:16]).split(" ", 1)[1])


def drawn(notebook):
    (region,) = asked(notebook, "regions")
    return region_from_json(region)


def corners(region):
    return np.array([region.x0, region.y0, region.x1, region.y1])


def test_box(lesson, panel, measured):
    panel.draw("Box", CROSS[:2], CROSS[2:])
    region = drawn(lesson)
    off = float(np.abs(corners(region) - CROSS).max())
    measured["box off by px"] = off
    assert off <= 2


def test_mask(lesson, panel, measured):
    line = [(160, 95), (180, 95), (170, 115)]
    panel.draw("Mask", *line)
    region = drawn(lesson)
    expected = disc_line(panel.image_size(), line, float(panel.root.get_by_label("Brush size").input_value()))
    assert isinstance(region, cm.Mask)
    measured["mask pixels more than 2 px off"] = int(((region.pixels != expected) & ~rim(expected)).sum())
    assert measured["mask pixels more than 2 px off"] == 0


def test_scribble(lesson, panel, measured):
    line = [(152, 103), (186, 103), (186, 120)]
    panel.draw("Scribble", *line)
    points = np.array(drawn(lesson).points)
    ends = np.abs(points[[0, -1]] - [line[0], line[-1]]).max()
    off = max(ends, np.minimum(np.abs(points[:, 1] - 103), np.abs(points[:, 0] - 186)).max())
    measured["scribble off by px"] = float(off)
    assert off <= 2


def test_point(lesson, panel, measured):
    panel.draw("Point", (169, 103))
    region = drawn(lesson)
    off = max(abs(region.x - 169), abs(region.y - 103))
    measured["point off by px"] = off
    assert off <= 2


@pytest.mark.parametrize("box", NAMES, ids=NAMES.values())
def test_steer(panel, measured, pictures, box):
    panel.draw("Box", box[:2], box[2:])
    panel.field(0, 5)
    first, whole = panel.timed("Steer", FIRST, FINISHED)
    before, after = panel.answers()
    panel.page.mouse.move(0, 0)
    panel.root.screenshot(path=pictures / f"workbench-{NAMES[box].replace(' ', '-')}.png")
    measured[f"steer to the {NAMES[box]}"] = {"first step, s": first, "5 steps and both answers, s": whole, "answer": after}
    assert before == "blue zero at the center"
    assert NAMES[box] in after


def test_stop_and_another_widget_meanwhile(lesson, panel, measured):
    panel.draw("Box", CROSS[:2], CROSS[2:])
    panel.field(0, 500)
    panel.press("Steer")
    panel.wait_for(r"^step [3-9]\d* of 500")
    measured["another widget while steering, s"] = [another_widget(lesson) for _ in range(5)]
    assert panel.status().startswith("step")
    (measured["stopped after s"],) = panel.timed("Stop", "/^stopped/.test(panel.querySelector('.cmllm-run').textContent)")
    (pressed, steps, reason, answers) = asked(lesson, "stopped")
    measured["steps after Stop"] = steps - pressed[-1]
    assert reason == "stopped"
    assert steps - pressed[-1] <= 1
    assert panel.answers() == answers
    # The panel is free, and what it holds is a whole trace: it can be saved, and another run begins.
    panel.press("Save trace")
    panel.root.get_by_text(f"({steps - 1} updates).").wait_for()
    panel.field(0, 2)
    panel.press("Steer")
    panel.wait_for("^finished .step 2 of 2")


def another_widget(lesson):
    """Seconds from a click on another cell's button until its label, written by Python, shows it."""
    lesson.page.evaluate(
        """() => {
            const label = document.querySelector(".counted");
            const before = label.textContent;
            window.counted = new Promise((done) => addEventListener("click", async ({ timeStamp }) => {
                while (label.textContent === before) await new Promise(requestAnimationFrame);
                done((performance.now() - timeStamp) / 1000);
            }, { capture: true, once: true }));
        }"""
    )
    lesson.page.get_by_role("button", name="Another widget").click()
    return lesson.page.evaluate("window.counted")


def test_slider(panel, measured, pictures):
    panel.field(0, 10)
    panel.draw("Box", CROSS[:2], CROSS[2:])
    panel.timed("Steer", FINISHED)
    player = panel.root.locator(".cmllm-player")
    slider = player.locator(".step")
    slider.evaluate(
        """(slider) => {
            slider.addEventListener("input", ({ timeStamp }) => requestAnimationFrame(() => setTimeout(() =>
                window.switches.push(performance.now() - timeStamp))), { capture: true });
        }"""
    )
    slider.scroll_into_view_if_needed()
    times = dragged(panel.page, slider.bounding_box())
    assert player.locator(".label").text_content() == "step 5 of 10"
    assert player.locator(".answer").text_content() == "not asked for at this step"
    player.screenshot(path=pictures / "step_player.png")
    measured["step of the slider, ms"] = {"median": times[len(times) // 2], "largest": times[-1], "steps": len(times)}
    assert times


def dragged(page, slider):
    """Drag the slider's handle from its end to its start, and to the middle; milliseconds that each step took, sorted."""
    page.evaluate("window.switches = []")
    y = slider["y"] + slider["height"] / 2
    page.mouse.move(slider["x"] + slider["width"] - 6, y)
    page.mouse.down()
    for share in (*np.linspace(0.98, 0.02, 12), *np.linspace(0.02, 0.52, 6)):
        page.mouse.move(slider["x"] + share * slider["width"], y)
        page.wait_for_timeout(30)
    page.mouse.up()
    return sorted(page.evaluate("window.switches"))


def test_click_a_head(lesson, pictures):
    explorer = lesson.page.locator(".cmllm-explorer")
    explorer.scroll_into_view_if_needed()
    before = explorer.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    # The first row and column are those of the means.
    cell = explorer.locator(".grid .row[role=row]").nth(1 + 4).locator(".cell").nth(1 + 2)
    cell.click()
    layer, head, share = asked(lesson, "head")
    assert (layer, head) == (4, 2)
    assert cell.get_attribute("aria-label") == f"layer 4, head 2: {100 * share:.1f} %"
    assert explorer.locator("canvas").evaluate("canvas => canvas.toDataURL()") != before
    explorer.screenshot(path=pictures / "attention_explorer.png")


def test_layers_tab(lesson, panel, pictures):
    """After a run: look with its latent, click a head, and steer with it."""
    panel.draw("Box", CROSS[:2], CROSS[2:])
    panel.field(0, 3)
    panel.timed("Steer", FINISHED)
    panel.root.get_by_role("tab", name="Layers").click()
    panel.press("after")
    panel.press("Look")
    explorer = panel.root.locator(".cmllm-explorer")
    explorer.locator(".token", has_text="red").wait_for()
    explorer.get_by_role("button", name="last", exact=True).click()
    explorer.locator(".cell[aria-label^='layer 2, head 5:']").click()
    explorer.locator(".cell[aria-label^='layer 2, head 5:'][aria-selected=true]").wait_for()
    panel.root.screenshot(path=pictures / "workbench-layers.png")
    panel.press("Use in settings")
    panel.root.locator(".cmllm-layers", has_text=re.compile("^layer 2$")).wait_for()
    panel.timed("Steer", FINISHED)
    panel.root.get_by_role("tab", name="Steps").click()
    assert panel.root.locator(".cmllm-player .label").text_content() == "step 3 of 3"
    assert asked(lesson, "used") == [[2, 3], [5]]


def test_copy_as_code(panel):
    panel.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel.draw("Point", (169, 103))
    panel.press("Copy as code")
    panel.root.get_by_text("Copied to the clipboard").wait_for()
    copied = panel.page.evaluate("navigator.clipboard.readText()")
    assert copied == panel.root.locator(".cmllm-code pre:visible").text_content()
    assert "cm.Point(169.0, 103.0)" in copied
    # What is set afterwards is shown, and the clipboard is left alone.
    panel.draw("Box", CROSS[:2], CROSS[2:])
    panel.root.locator(".cmllm-code", has_text="cm.Box(146.0, 79.0").wait_for()
    assert panel.page.evaluate("navigator.clipboard.readText()") == copied


@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_themes(lesson, panel, pictures, theme):
    lesson.theme(theme)
    panel.page.wait_for_timeout(300)
    panel.root.screenshot(path=pictures / f"workbench-{theme.lower()}.png")


def kept(page):
    """The panel's static picture: hidden while the widget lives."""
    return page.locator("div[class^='cmllm-']:has(> small)", has_text="Trace")


def test_reloaded_page_shows_the_views_again(lesson, panel, folder):
    panel.draw("Box", STAR[:2], STAR[2:])
    panel.field(0, 3)
    panel.timed("Steer", FINISHED)
    answers, picture = panel.answers(), panel.canvas.evaluate("canvas => canvas.toDataURL()")
    kept(lesson.page).filter(has_text="3 updates, finished").wait_for(state="attached")
    lesson.save(folder / LESSON)
    lesson.reload()
    again = Panel(lesson)
    again.root.locator(".cmllm-status", has_text="1 region").wait_for()
    assert again.answers() == answers
    assert again.root.locator(".cmllm-player .label").text_content() == "step 3 of 3"
    again.page.wait_for_timeout(200)
    assert again.canvas.evaluate("canvas => canvas.toDataURL()") == picture
    assert not kept(lesson.page).is_visible()
    # They are alive: another run.
    again.field(0, 2)
    again.press("Steer")
    again.wait_for("^finished .step 2 of 2")


def test_exported_pages_open_from_disk_without_a_network(lesson, browser, folder, pictures):
    lesson.save(folder / LESSON)
    page, _ = HTMLExporter().from_filename(folder / LESSON)
    (folder / "lesson.html").write_text(page, encoding="utf-8")
    asked(lesson, "exported")
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    page, problems, abroad = context.new_page(), [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: abroad.append(request.url))
    page.goto((folder / "player.html").as_uri())
    page.locator(".cmllm-player .label", has_text="step 2 of 2").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    assert page.locator(".cmllm-player .label").text_content() == "step 0 of 2"
    assert [url for url in abroad if not url.startswith(("file:", "data:"))] == problems == []
    page.goto((folder / "lesson.html").as_uri(), wait_until="domcontentloaded")
    picture = kept(page)
    picture.scroll_into_view_if_needed()
    assert picture.is_visible()
    assert "magenta star" in picture.text_content()
    page.screenshot(path=pictures / "exported.png")
    # nbconvert's own pages ask for these; nothing of ours does.
    own = ("file:", "data:", "https://cdnjs.cloudflare.com/", "https://unpkg.com/")
    assert [url for url in abroad if not url.startswith(own)] == []
    context.close()


def test_reopened_without_its_kernel_a_picture_is_there(lesson, panel, pictures):
    lesson.menu("Kernel", "Shut Down Kernel")
    lesson.page.locator(".jp-NotebookPanel").get_by_text("No Kernel").wait_for()
    assert panel.root.locator(".cmllm-player").is_visible()
    lesson.reload()
    lesson.page.get_by_text("model not found").first.wait_for()
    assert kept(lesson.page).is_visible()
    assert "magenta star" in kept(lesson.page).text_content()
    lesson.page.get_by_text("model not found").nth(1).scroll_into_view_if_needed()
    lesson.page.screenshot(path=pictures / "reopened.png")
    # JupyterLab's own, one for each widget that is gone.
    assert {"widget model not found" in problem for problem in lesson.problems} == {True}
    lesson.problems.clear()


def test_notebook_7(browser, tmp_path_factory, folder, pictures):
    notebook = nbformat.read(folder / LESSON, as_version=4)
    del notebook.cells[5:]
    nbformat.write(notebook, folder / "short.ipynb")
    with opened(browser, tmp_path_factory.mktemp("notebook"), folder / "short.ipynb", "notebook") as front:
        # Of Notebook 7.6 itself: said before the notebook is open, with any notebook.
        front.problems = [problem for problem in front.problems if "(reading 'schema')" not in problem]
        panel = Panel(front)
        panel.draw("Box", STAR[:2], STAR[2:])
        panel.field(0, 5)
        panel.timed("Steer", FINISHED)
        before, after = panel.answers()
        panel.root.screenshot(path=pictures / "workbench-notebook-7.png")
        assert before == "blue zero at the center"
        assert "magenta star" in after
