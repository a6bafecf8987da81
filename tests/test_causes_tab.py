"""The workbench's tab of causes: its grid is `knockout_grid` of what is set, in turns; a cell has its answer."""

import asyncio

import numpy as np
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools import causes
from cmllm_tools.causes import cutting
from cmllm_tools.widgets.cause_view import CauseView, cause_data


def message(bench):
    return bench.causes._message.value


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"candidates": ["red cross", "blue zero"], "from_": "last"},
        {"together": True, "window": 2, "step": 2, "to": "image", "from_": "answering"},
        {"window": 4, "step": 4},
        {"together": True, "window": 5, "step": 5},
    ],
    ids=["own answer by head", "log-odds of the last token", "windows of the image", "a shorter turn", "a shorter window"],
)
def test_in_turns_it_is_what_one_call_finds(mllm, bench, scene, chosen):
    tab = bench.causes
    tab._candidates.value = ", ".join(chosen.get("candidates", ()))
    tab._from.value = chosen.get("from_", "after_image")
    tab._to.value = "the whole image" if chosen.get("to") == "image" else "the region"
    tab._heads.value, tab._window.value = chosen.get("together", False), chosen.get("window", 1)
    found = tab.run()
    arguments = {"to": scene.region("box")} | chosen
    expected = causes.knockout_grid(mllm, bench._prompt, progress=False, **arguments)
    assert found is tab.grid
    assert (found.rows, found.columns, found.measure) == (expected.rows, expected.columns, expected.measure)
    assert found.rows[-1].endswith(str(mllm.attention_layers[-1]))
    assert (found.answers, found.before) == (expected.answers, pytest.approx(expected.before))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    assert tab._progress.value == tab._progress.max >= 1
    assert tab._found.children == (tab.view,)
    # The copied lines do the same.
    names = {}
    exec(tab.code(), names)  # noqa: S102
    np.testing.assert_allclose(names["grid"].values, expected.values, atol=1e-5)


def test_many_layers_are_cut_into_windows_at_first(mllm, monkeypatch, scene):
    monkeypatch.setattr(cm.Mllm, "attention_layers", property(lambda self: tuple(range(30))))
    bench = cm.widgets.Workbench(mllm, scene.image, method=cm.methods.Crop())
    assert bench.causes.choices == {
        "from_": "after_image",
        "to": "regions",
        "together": True,
        "window": 3,
        "step": 3,
    }


@pytest.mark.slow
def test_a_cell_says_what_the_model_says_then(mllm, bench, scene):
    with pytest.raises(cm.SettingsError, match="There is no grid yet"):
        bench.causes.answer_at(0, 0)
    bench.causes._to.value, bench.causes._heads.value = "the whole image", True
    bench.causes._window.value = mllm.layers
    bench.causes.run()
    bench.causes.view.cell = [0, 0]
    change = causes.knockout(mllm, bench._prompt)
    said = bench.causes.view.said
    assert said["after"] == mllm.generate(bench._prompt, change.intervention) != said["before"]
    assert said == {"cell": [0, 0], "before": mllm.generate(bench._prompt), "after": said["after"]}
    assert message(bench) == ""


@pytest.mark.slow
def test_a_click_answers_and_measures_nothing(mllm, bench, scene, monkeypatch):
    bench.causes.run()
    asked, generate = [], cm.Mllm.generate
    monkeypatch.setattr(cm.Mllm, "generate", lambda *given: (asked.append(given[2:]), generate(*given))[1])
    monkeypatch.setattr(cutting, "MeasuredPrompt", None)
    said = bench.causes.answer_at(1, 2), bench.causes.answer_at(1, 3)
    monkeypatch.undo()
    # Once unchanged, and once for each cell.
    assert [len(given) for given in asked] == [0, 1, 1]
    for head, after in zip((2, 3), said, strict=True):
        change = causes.knockout(mllm, bench._prompt, to=scene.region("box"), layers=[1], heads=[head])
        assert after == mllm.generate(bench._prompt, change.intervention)


@pytest.mark.slow
def test_a_click_after_the_model_has_changed_says_what_to_press(scene):
    mllm = cm.load()
    bench = cm.widgets.Workbench(mllm, scene.image, regions=scene.region("box"))
    bench.causes._heads.value, bench.causes._window.value = True, mllm.layers
    bench.causes.run()
    before = bench.causes.answer_at(0, 0)
    # What is asked here is no recorded call, so that any implementation does.
    mllm.model.set_attn_implementation("eager")
    assert bench.causes.answer_at(0, 0) == before
    mllm.model.to(torch.float64)
    bench.causes.view.cell = [0, 0]
    assert "The model has changed since the grid was made; press Knock out." in message(bench)
    bench.causes.run()
    assert bench.causes.answer_at(0, 0) == before


def test_it_is_lazy_and_says_what_will_be_there_and_what_is_wrong(bench):
    assert "which layers and heads the answer needs" in bench.causes._found.children[0].value
    assert bench.causes.grid is None
    bench.causes._button.click()
    assert "needs a running event loop" in message(bench)
    bench.causes._candidates.value = "red cross"
    with pytest.raises(cm.SettingsError, match="two answers or more"):
        bench.causes.run()
    bench.causes._copy.click()
    assert "two answers or more" in message(bench)
    bench.causes._candidates.value = ""
    bench.picker.regions = ()
    with pytest.raises(cm.RegionError, match="Draw at least one region"):
        bench.causes.run()
    assert "Press Knock out" in bench.causes._found.children[0].value
    assert not bench.causes._button.disabled


def test_stop_keeps_the_cells_that_were_done(bench):
    async def stopped():
        task = bench.causes.begin()
        with pytest.raises(cm.OptimizationError, match="A knockout goes on"):
            bench.causes.begin()
        while bench.causes.grid is None and not task.done():
            await asyncio.sleep(0.01)
        bench.causes._stop.click()
        return await task

    found = asyncio.run(stopped())
    done = np.isfinite(found.values)
    assert done.any()
    assert not done.all()
    # Whole rows, from the first on.
    assert done.all(1).tolist() == sorted(done.any(1).tolist(), reverse=True)
    assert bench.causes.view.data["change"][-1][0] is None


@pytest.mark.slow
def test_a_question_changed_meanwhile_is_not_mixed_in(mllm, bench, scene):
    async def changed():
        task = bench.causes.begin()
        while bench.causes.grid is None and not task.done():
            await asyncio.sleep(0.01)
        bench.question = "what is it ?"
        return await task

    before = bench._prompt
    found = asyncio.run(changed())
    expected = causes.knockout_grid(mllm, before, to=scene.region("box"), progress=False)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    assert "from before the last change" in bench.causes._stale.value
    bench.question = before.question
    assert bench.causes._stale.value == ""


def test_what_the_browser_gets_is_plain(bench):
    grid = causes.CauseGrid("x", "log-odds", ("a", "b"), np.array([[1.0, np.nan]]), 0.5, ("0",), ("0", "1"))
    data = cause_data(grid)
    assert data["change"] == [[0.5, None]]
    assert (data["answers"], data["before"]) == (["a", "b"], 0.5)
    view = CauseView(grid)
    view.answered((0, 1), "a", "b")
    assert view.said == {"cell": [0, 1], "before": "a", "after": "b"}
