import base64
import json
import re
from copy import deepcopy

import numpy as np
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.layout.visual_tokens import grid_boxes
from cmllm_tools.widgets.step_player import StepPlayer, player_data


@pytest.fixture(scope="module")
def trace(mllm, prompt, box):
    return cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=5), callbacks=[cm.Answers()])


def decoded(data):
    raw = np.stack([np.frombuffer(base64.b64decode(step["maps"]), "<u2") for step in data["steps"]])
    peaks = np.array([step["peaks"] for step in data["steps"]])
    return raw.reshape(*peaks.shape, -1) / 65535 * peaks[..., None]


def state_of(page):
    return json.loads(re.search(r'<script type="application/json" id="state">(.*?)</script>', page, re.DOTALL).group(1))


def test_maps_survive_the_way_to_the_browser(trace):
    data = player_data(trace)
    maps = decoded(data)
    assert maps.shape == trace.maps.shape
    assert np.abs(maps - trace.maps).max() < 1e-5 * trace.maps.max()
    assert data["layers"] == list(trace.layers)
    assert data["xs"] == data["ys"] == [24 * edge for edge in range(9)]
    assert np.frombuffer(base64.b64decode(data["palette"]), np.uint8).shape == (1024,)


def test_numbers_are_the_run_s_and_each_layer_s(trace):
    data = player_data(trace)
    for step, shown in zip(trace.steps, data["steps"], strict=True):
        energy, share = shown["energy"], shown["share"]
        assert (energy[0], share[0]) == (step.energy, step.share)
        assert energy[1:] == pytest.approx([(1 - value) ** 2 for value in share[1:]])
        inside = trace.layout.inside(trace.regions[0])
        expected = [(layer * inside).sum() / layer.sum() for layer in step.maps.numpy()]
        assert share[1:] == pytest.approx(expected, rel=1e-5)
    assert [step["answer"] for step in data["steps"]] == [step.answer for step in trace.steps]


def test_maps_of_tiles_are_rastered(trace):
    boxes = np.concatenate([grid_boxes((0, 0, 192, 192), (4, 8)), grid_boxes((0, 0, 192, 192), (4, 8))])
    tiled = deepcopy(trace)
    tiled.layout = cm.VisualTokenLayout((192, 192), boxes, (4, 8), "tiles", merged=True)
    data = player_data(tiled)
    expected = trace.maps[..., :32] + trace.maps[..., 32:]
    assert np.abs(decoded(data) - expected).max() < 1e-5 * expected.max()
    assert (len(data["xs"]), len(data["ys"])) == (9, 5)


def test_all_kinds_of_regions_and_a_crop():
    mllm = cm.load(tiny_llava())
    prompt = mllm.prepare(Image.new("RGB", (700, 500), "teal"), "what is the red object ?")
    pixels = np.zeros((500, 700))
    pixels[50:490, 60:640] = np.tri(440, 580)
    several = [cm.Box(112, 105, 330, 300), cm.Mask(pixels), cm.Scribble([(300, 300), (310, 400)]), cm.Point(300, 40)]
    with pytest.warns(cm.RegionWarning):
        trace = cm.optimize(mllm, prompt, several, cm.ControlMLLM(steps=1))
    data = player_data(trace)
    assert [outline["marked"] for outline in data["outlines"]] == [False, False, True, True]
    assert data["outlines"][3]["lines"] == [[[300, 40]]]
    assert data["xs"][0] == pytest.approx(trace.layout.seen[0], abs=0.01)
    assert data["xs"][0] > 90
    assert data["steps"][0]["answer"] is None
    assert json.loads(json.dumps(data)) == data


def test_traits(trace):
    player = StepPlayer(trace, step=-1, layer=trace.layers[0])
    assert (player.step, player.layer) == (5, trace.layers[0])
    player.step, player.layer = 2, None
    synced = player.get_state()
    assert (synced["step"], synced["layer"], len(synced["data"]["steps"])) == (2, None, 6)
    assert "export default { initialize, render }" in synced["_esm"]
    assert ".cmllm-player" in synced["_css"]
    assert "step 2 of 5, layers 0..2 (3)" in repr(player)


def test_what_the_trace_does_not_hold(trace, mllm, prompt, box):
    with pytest.raises(cm.TraceError, match=r"step must lie in -6\.\.5, as the trace has 6; got 6"):
        StepPlayer(trace, step=6)
    player = StepPlayer(trace)
    with pytest.raises(cm.TraceError, match=r"layer must be one that the trace holds, .* or None for their mean; got 77"):
        player.layer = 77
    assert player.layer is None
    with pytest.raises(cm.TraceError, match="at least one step"):
        StepPlayer(cm.Steering(mllm, prompt, box).trace)


def test_the_trace_is_only_read(trace):
    before, maps = trace.table(), trace.maps
    player = StepPlayer(trace)
    player.step = 3
    player.to_html()
    assert trace.table() == before
    assert np.array_equal(trace.maps, maps)


def test_refresh_sends_only_what_is_new(mllm, prompt, box, monkeypatch):
    run, sent, states = cm.Steering(mllm, prompt, box, cm.ControlMLLM(steps=3)), [], []
    steps = iter(run)
    next(steps)
    player = StepPlayer(run.trace)
    monkeypatch.setattr(player, "send", sent.append)
    monkeypatch.setattr(player, "send_state", lambda key=None: states.append(key))
    next(steps)
    next(steps)
    assert len(player.data["steps"]) == 1
    player.refresh()
    run.trace.steps[2].answer = "a red cross"
    player.refresh()
    player.refresh()
    assert [(message["from"], len(message["steps"])) for message in sent] == [(1, 2), (2, 1)]
    assert states == []
    assert player.get_state()["data"] == player_data(run.trace)
    list(steps)
    run.trace.steps[0].answer = "a blue zero"
    player.refresh()
    assert (sent[-1]["from"], sent[-1]["steps"]) == (0, player_data(run.trace)["steps"])


def test_page_is_small_and_needs_nothing_else(mllm, prompt, box, tmp_path):
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=9), callbacks=[cm.Answers()])
    page = StepPlayer(trace, step=4).to_html()
    assert len(trace) == 10
    assert len(page) < 300_000
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import|import\(|plotly""", page)
    state = state_of(page)
    assert (state["step"], state["layer"]) == (4, None)
    assert state["data"] == player_data(trace)
    # The module's own export is the page's name for it.
    assert "export default" not in page
    assert page.count("const widget = { initialize, render };") == 1
    path = StepPlayer(trace).write_html(tmp_path / "player.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(cm.OutputError, match="there is no"):
        StepPlayer(trace).write_html(tmp_path / "no" / "player.html")


def test_text_of_users_and_models_cannot_leave_its_place(trace):
    hostile = deepcopy(trace)
    hostile.question = hostile.steps[2].answer = "</script><script>alert(1)</script><!--"
    hostile.model["name"] = "</title><img src=x onerror=alert(2)>"
    page = StepPlayer(hostile).to_html()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert state_of(page)["data"]["question"] == hostile.question
    module = StepPlayer(trace).get_state()["_esm"]
    assert "innerHTML" not in module
    assert "</script" not in module


def test_mime_bundle_has_the_widget_and_a_static_fallback(trace):
    player = StepPlayer(trace)
    data, _ = player._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == player.model_id
    assert data["text/html"] == trace._repr_html_()
    assert type(data["text/html"]) is str


def test_exported_without_a_kernel_the_fallback_shows(trace):
    player = StepPlayer(trace)
    output = new_output("display_data", data=player._repr_mimebundle_()[0])
    notebook = new_notebook(cells=[new_code_cell("player", outputs=[output])])
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "<b>Trace</b>" in page
    assert page.count('src="data:image/') == trace._repr_html_().count('src="data:image/')
    assert player.model_id not in page
