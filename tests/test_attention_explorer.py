import base64
import json
import re

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from test_step_player import state_of
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.layout.visual_tokens import grid_boxes
from cmllm_tools.widgets import AttentionExplorer


@pytest.fixture(scope="module")
def explorer(mllm, prompt, box):
    return AttentionExplorer(mllm, prompt, box)


def maps_of(shown):
    """(1 + layer, 1 + head, cell) in percent of the attention on the image, as the browser reads them."""
    raw = np.frombuffer(shown["maps"], "<u2").reshape(len(shown["peaks"]), -1)
    return raw / 65535 * np.array(shown["peaks"])[:, None]


CHOICES = [(None, None), (4, None), (None, 1), (0, 5)]


@pytest.mark.parametrize(("layer", "head"), CHOICES)
@pytest.mark.parametrize("queries", ["text", "object", "last", (69, 67)])
def test_what_the_browser_gets_is_captured_attention(explorer, mllm, prompt, box, queries, layer, head):
    explorer.queries, explorer.layer, explorer.head = queries, layer, head
    layers, heads = (None if number is None else [number] for number in (layer, head))
    # Of its own, without the explorer's.
    expected = cm.context_map(cm.capture_attention(mllm, prompt, layers, heads, queries))
    assert torch.allclose(explorer.map.values, expected.values, rtol=1e-5, atol=1e-9)
    assert explorer.map.words == expected.words
    cell = (0 if layer is None else layer + 1) * 7 + (0 if head is None else head + 1)
    percent = 100 * expected.grid / expected.values.sum().item()
    assert np.abs(maps_of(explorer.shown)[cell] - percent.ravel()).max() < 2e-5 * percent.max()
    assert explorer.shown["on_image"][cell] == pytest.approx(expected.values.sum().item(), rel=1e-5)
    assert explorer.shown["inside"][cell] == pytest.approx(cm.region_share(expected, box), rel=1e-5)


def test_data_names_every_token_after_the_image_and_of_the_answer(explorer, prompt):
    tokens = explorer.data["tokens"]
    assert [token["position"] for token in tokens] == list(range(67, 79))
    assert [token["text"] for token in tokens if token["part"] == "template"] == ["assistant", ":"]
    assert " ".join(token["text"] for token in tokens if token["part"] == "answer") == explorer.answer
    assert [token["text"] for token in tokens if token["part"] == "question"] == ["describe", "the", "object", "."]
    assert explorer.data["presets"] == [
        ["question", [67, 68, 69, 70]],
        ["all after the image", [67, 68, 69, 70, 71, 72]],
        ["last", [72]],
    ]
    assert (explorer.data["layers"], explorer.data["heads"]) == (list(range(6)), list(range(6)))
    assert explorer.data["uniform"] == pytest.approx(prompt.layout.inside(explorer.regions[0]).mean())
    assert json.loads(json.dumps(explorer.data)) == explorer.data


def test_chosen_tokens_layer_and_head_are_what_others_take(explorer, mllm, prompt, box):
    explorer.queries, explorer.layer, explorer.head = ["object", "describe"], 3, 2
    assert explorer.queries == (69, 67)
    attention = cm.capture_attention(mllm, prompt, [explorer.layer], [explorer.head], explorer.queries)
    assert attention.words == ("object", "describe")
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1, queries=explorer.queries))
    assert trace.queries == (69, 67)


def test_the_answers_tokens_look_where_they_look_in_generation():
    mllm = cm.load(attn_implementation="eager")
    example = read_roc(HELDOUT)[1]
    prompt = mllm.prepare(example.image, "describe the object.")
    explorer = AttentionExplorer(mllm, prompt)
    own = mllm.model.generate(
        **prompt.inputs, do_sample=False, output_attentions=True, return_dict_in_generate=True, max_new_tokens=20
    )
    said = explorer.attention.queries[-len(explorer.answer.split()) :]
    assert explorer.attention.prompt.inputs["input_ids"][0, list(said)].tolist() == own.sequences[0, 73:-1].tolist()
    # The first step reads the prompt, each later one the token said before it.
    for position, step in zip(said, own.attentions[1:], strict=True):
        expected = torch.cat(step)[:, :, 0, list(prompt.visual)]
        index = explorer.attention.queries.index(position)
        assert torch.allclose(explorer.attention.values[:, :, index], expected, atol=1e-6)
        explorer.queries = [position]
        assert explorer.map.words == (explorer.attention.prompt.tokens[position],)


def test_without_the_answer(mllm, prompt, explorer):
    short = AttentionExplorer(mllm, prompt, answer=False)
    assert short.answer is None
    assert short.attention.queries == tuple(range(67, 73))
    assert torch.equal(short.attention.values, explorer.attention.values[:, :, :6])
    with pytest.raises(cm.PromptError, match=r"must lie in -73\.\.72; got 73"):
        short.queries = [73]


def test_an_empty_answer_is_said(mllm, prompt, monkeypatch):
    monkeypatch.setattr(mllm, "generate", lambda *_: "")
    explorer = AttentionExplorer(mllm, prompt)
    assert explorer.data["note"] == "The model's answer is empty."
    assert explorer.attention.prompt is prompt


def test_the_model_is_left_as_found(mllm, prompt, box):
    before = snapshot(mllm)
    AttentionExplorer(mllm, prompt, box).to_html()
    assert_same(before, snapshot(mllm))


def test_a_click_in_the_browser(explorer):
    explorer.queries = "text"
    before = explorer.shown
    explorer.set_state({"queries": [68], "layer": 2, "head": None})
    assert (explorer.queries, explorer.layer, explorer.head) == ((68,), 2, None)
    assert explorer.shown["queries"] == [68]
    assert explorer.shown["maps"] != before["maps"]
    assert repr(explorer).startswith("AttentionExplorer(context token 'the', layer 2, ")


def test_without_a_region_the_grid_is_the_share_on_the_image(mllm, prompt):
    explorer = AttentionExplorer(mllm, prompt, queries="last", layer=5)
    assert explorer.shown["inside"] is explorer.data["uniform"] is None
    assert explorer.data["outlines"] == []
    assert all(0 < share < 1 for share in explorer.shown["on_image"])
    assert "in the region" not in repr(explorer) + explorer._static()


def test_several_tokens_looking_at_one_place_are_added_up(explorer, monkeypatch):
    boxes = np.concatenate([grid_boxes((0, 0, 192, 192), (4, 8))] * 2)
    tiled = cm.VisualTokenLayout((192, 192), boxes, (4, 8), "tiles", merged=True)
    whole = maps_of(explorer.shown)
    monkeypatch.setattr(explorer, "prompt", type(explorer.prompt)(**vars(explorer.prompt) | {"layout": tiled}))
    explorer._show(None)
    expected = whole[:, :32] + whole[:, 32:]
    assert np.abs(maps_of(explorer.shown) - expected).max() < 1e-4 * expected.max()
    monkeypatch.undo()
    explorer._show(None)


def test_what_is_not_there(explorer, mllm, prompt):
    explorer.queries, explorer.layer, explorer.head = "text", None, None
    with pytest.raises(cm.PromptError, match="A highlight word must be in the question; got 'zebra'"):
        explorer.queries = "zebra"
    with pytest.raises(cm.CaptureError, match=r"must stand after the image, at one of \[67, .* 78\]; got \[3\]"):
        explorer.queries = [3, 68]
    with pytest.raises(cm.PromptError, match="At least one query token"):
        explorer.queries = []
    with pytest.raises(cm.CaptureError, match=r"layer must be one of \[0, .* 5\], or None for the mean over layers; got 6"):
        explorer.layer = 6
    with pytest.raises(cm.CaptureError, match=r"head must be one of .* got -1"):
        explorer.head = -1
    assert (explorer.queries, explorer.layer, explorer.head) == ((67, 68, 69, 70), None, None)
    with pytest.raises(cm.CaptureError, match="layer must be one of"):
        AttentionExplorer(mllm, prompt, layer=77)


def test_a_head_that_leaves_the_image_nothing(mllm, prompt, box):
    explorer = AttentionExplorer(mllm, prompt, box)
    explorer.attention.values[1, 2] = 0
    explorer.queries = "last"
    cell = 2 * 7 + 3
    assert explorer.shown["inside"][cell] == explorer.shown["on_image"][cell] == 0
    assert not maps_of(explorer.shown)[cell].any()
    # JSON has no NaN, and a browser refuses it.
    assert "NaN" not in json.dumps({**explorer.shown, "maps": ""})


def test_mime_bundle_has_the_widget_and_a_static_fallback(explorer):
    data, _ = explorer._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert type(data["text/html"]) is str
    assert data["text/html"].count("<img") == 2
    assert "layers 0..5 (6) down, heads 0..5 across" in data["text/html"]
    output = new_output("display_data", data=data)
    page, _ = HTMLExporter().from_notebook_node(new_notebook(cells=[new_code_cell("explorer", outputs=[output])]))
    assert "<b>AttentionExplorer</b>" in page
    assert explorer.model_id not in page


def test_page_is_small_and_needs_nothing_else(explorer, tmp_path):
    explorer.queries, explorer.layer, explorer.head = "object", 4, 1
    path = explorer.write_html(tmp_path / "explorer.html")
    page = path.read_text(encoding="utf-8")
    assert page == explorer.to_html()
    assert len(page) < 200_000
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import|import\(|plotly""", page)
    state = state_of(page)
    assert (state["queries"], state["layer"], state["head"], state["fixed"]) == ([69], 4, 1, True)
    assert base64.b64decode(state["shown"]["maps"]) == explorer.shown["maps"]
    assert "export default" not in page
    with pytest.raises(cm.OutputError, match="there is no"):
        explorer.write_html(tmp_path / "no" / "explorer.html")


def test_text_of_users_cannot_leave_its_place(explorer):
    assert "innerHTML" not in explorer.get_state()["_esm"]
    mllm = cm.load(tiny_llava())
    prompt = mllm.prepare(explorer.prompt.image, "</script><script>alert(1)</script>")
    page = AttentionExplorer(mllm, prompt).to_html()
    assert "<script>alert" not in page
