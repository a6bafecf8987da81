"""The workbench on a real language model in JupyterLab: everyday things, English sentences, and how long one waits."""

import json

import pytest

from .lab import FINISHED, FIRST, Panel, opened, write_notebook

pytestmark = pytest.mark.slow
CELL = """import cmllm_tools as cm

mllm, scene = cm.load("smol"), cm.bench.smol_scene()
bench = cm.widgets.Workbench(mllm, scene.image, scene.question, scene.region("box"), cm.methods.KeySteering())
bench"""


@pytest.fixture(scope="module")
def notebook(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smol")
    write_notebook(folder / "smol.ipynb", [CELL])
    with opened(browser, tmp_path_factory.mktemp("home"), folder / "smol.ipynb", "jupyterlab") as notebook:
        yield notebook


def test_a_class_waits_seconds(notebook, pictures):
    """Seconds are measured, not tested; the answer is: unsteered a church, steered a giraffe."""
    panel = Panel(notebook)
    first, whole = panel.timed("Steer", FIRST, FINISHED)
    before, after = panel.answers()
    panel.page.mouse.move(0, 0)
    panel.root.screenshot(path=pictures / "workbench-smol.png")
    measured = {"KeySteering": {"first step, s": first, "with both answers, s": whole, "answer": after}}
    assert "church" in before
    assert "giraffe" in after
    assert "church" not in after
    panel.root.locator("select").first.select_option(label="ControlMLLM")
    panel.field(0, 5)
    # It may stop before.
    ended = f"{FIRST} && /^(finished|early stop)/.test(panel.querySelector('.cmllm-run').textContent)"
    first, whole = panel.timed("Steer", FIRST, ended)
    measured["ControlMLLM"] = {"first step, s": first, "5 steps, s": whole, "answer": panel.answers()[1]}
    (pictures / "smol-workbench.json").write_text(json.dumps(measured, indent=2) + "\n")
