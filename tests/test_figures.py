import re

import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm
from cmllm_tools import figures
from cmllm_tools.layout.visual_tokens import grid_boxes
from cmllm_tools.show.report import report_html, write_report


@pytest.fixture(scope="module")
def trace(mllm, prompt, box):
    return cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=3), callbacks=[cm.Answers()])


def test_step_player_shows_every_step(trace):
    figure = figures.step_player(trace)
    assert [frame.name for frame in figure.frames] == ["0", "1", "2", "3"]
    assert [step.label for step in figure.layout.sliders[0].steps] == ["0", "1", "2", "3"]
    heat = next(item for item in figure.data if item.type == "heatmap")
    for step, frame in zip(trace.steps, figure.frames, strict=True):
        expected = step.maps.mean(0).numpy().reshape(8, 8)
        assert np.allclose(frame.data[0].z, 100 * expected / expected.sum())
        assert np.sum(frame.data[0].z) == pytest.approx(100)
        assert list(frame.data[1].x) == [step.number] * 2
        assert step.answer in frame.layout.title.text
        assert figure.data[frame.traces[0]] is heat
    assert heat.zmax == pytest.approx(max(np.max(frame.data[0].z) for frame in figure.frames))


def test_heat_map_lies_on_the_image(trace, prompt):
    figure = figures.step_player(trace)
    heat = next(item for item in figure.data if item.type == "heatmap")
    image = figure.layout.images[0]
    assert (image.x, image.y, image.sizex, image.sizey) == (0, 0, *prompt.image.size)
    assert list(figure.layout.yaxis.range) == [192, 0]
    assert np.allclose(heat.x, np.linspace(0, 192, 9))
    assert np.allclose(heat.y, np.linspace(0, 192, 9))


def test_map_on_image(mllm, prompt, box):
    cmap = cm.context_map(cm.capture_attention(mllm, prompt))
    figure = figures.map_on_image(cmap, prompt.image, box)
    outlines = [item for item in figure.data if item.type == "scatter"]
    assert [item.line.color for item in outlines] == ["black", "white"]
    assert list(outlines[1].x)[:2] == [box.x0, box.x1]
    assert len([i for i in figures.map_on_image(cmap, prompt.image).data if i.type == "scatter"]) == 0


def test_before_after_shares_one_scale(trace, box):
    figure = figures.before_after(trace)
    first, last = (item for item in figure.data if item.type == "heatmap")
    assert first.zmax == last.zmax == pytest.approx(max(np.max(first.z), np.max(last.z)))
    assert np.allclose(last.z, 100 * (m := trace.steps[-1].maps.mean(0).numpy().reshape(8, 8)) / m.sum())
    assert [image.xref for image in figure.layout.images] == ["x", "x2"]
    assert {item.xaxis for item in figure.data if item.type == "scatter"} == {"x", "x2"}
    assert trace.steps[-1].answer in figure.layout.annotations[1].text.replace("<br>", " ")


def test_energy_curve(trace):
    energy, share = figures.energy_curve(trace).data
    assert list(energy.y) == [step.energy for step in trace.steps]
    assert list(share.y) == [step.share for step in trace.steps]
    assert energy.line.color != share.line.color
    assert share.line.dash == "dash"


def test_layer_head_grid(mllm, prompt, box):
    attention = cm.capture_attention(mllm, prompt, layers=[1, 4], heads=[0, 2, 5])
    figure = figures.layer_head_grid(attention, box)
    (heat,) = figure.data
    assert list(heat.x) == ["0", "2", "5"]
    assert list(heat.y) == ["1", "4"]
    one = cm.context_map(attention, layers=[4], heads=[2])
    assert heat.z[1][1] == pytest.approx(cm.region_share(one, box), abs=1e-6)
    area = (box.x1 - box.x0) * (box.y1 - box.y0) / 192**2
    shown = float(re.search(r"uniform attention: ([\d.]+)%", figure.layout.title.text).group(1))
    assert shown == pytest.approx(100 * area, abs=0.06)


def test_text_of_model_and_user_is_escaped(trace, mllm, example):
    prompt = mllm.prepare(example.image, "is <b>this</b> a <script>alert(1)</script> ?")
    hostile = cm.optimize(mllm, prompt, cm.Box(0, 0, 90, 90), cm.ControlMLLM(steps=1))
    hostile.steps[0].answer = "<img src=x onerror=alert(2)>"
    titles = figures.step_player(hostile).frames[0].layout.title.text
    assert "&lt;script&gt;" in titles
    assert "<script" not in titles
    assert "<img" not in titles
    page = report_html(hostile)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_report_is_one_offline_page(trace, tmp_path):
    page = write_report(trace, tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("plotly.js v") == 1
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="?https?:', page)
    assert trace.steps[0].answer in page
    assert trace.image_hash in page
    assert len(page) < 7.5e6
    with pytest.raises(cm.OutputError, match="there is no"):
        write_report(trace, tmp_path / "no" / "page.html")


def test_visual_tokens_outlines_every_token_by_size():
    boxes = np.concatenate([grid_boxes((0, 0, 80, 40), (2, 2)), grid_boxes((0, 0, 40, 40), (4, 4))])
    layout = cm.VisualTokenLayout((80, 40), boxes, (4, 8), "thumbnail & tile", merged=True)
    figure = cm.figures.visual_tokens(layout, Image.new("RGB", (80, 40)))
    assert [trace.name for trace in figure.data] == ["16 tokens of 10 x 10 px", "4 tokens of 40 x 20 px"]
    # Five corners and a gap for each token.
    assert [len(trace.x) for trace in figure.data] == [16 * 6, 4 * 6]
    assert "20 visual tokens" in figure.layout.title.text
    assert "thumbnail &amp; tile" in figure.layout.title.text
    assert len(figure.layout.images) == 1


def test_curves_can_be_told_apart_without_color():
    lines = {f"<i>{number}</i>": ([0, 1], [number, 2 * number]) for number in range(6)}
    figure = figures.curves(lines, "step", "energy")
    assert [list(line.y) for line in figure.data] == [[number, 2 * number] for number in range(6)]
    for style in ([line.line.color, line.line.dash, line.marker.symbol] for line in figure.data):
        assert sum(style[1:] == [other.line.dash, other.marker.symbol] for other in figure.data) == 1
    assert figure.data[0].name == "&lt;i&gt;0&lt;/i&gt;"
    assert figure.data[0].mode == "lines+markers"
    assert figures.curves({"long": (range(31), range(31))}, "x", "y").data[0].mode == "lines"


def test_token_weights_shows_regions_side_by_side_on_one_scale(prompt, box):
    point = cm.Point(100, 80)
    figure = figures.token_weights(prompt.layout, prompt.image, {"box": box, "point": point}, sigma=0.3)
    hard, soft = (item for item in figure.data if item.type == "heatmap")
    assert np.allclose(np.ravel(hard.z), prompt.layout.inside(box))
    assert np.allclose(np.ravel(soft.z), np.exp(-(prompt.layout.distance(point) ** 2) / (2 * 0.3**2)))
    assert hard.zmax == soft.zmax == 1
    assert [note.text for note in figure.layout.annotations] == ["box", "point"]
    assert {item.xaxis for item in figure.data if item.type == "scatter"} == {"x", "x2"}


def test_token_weights_of_overlapping_tokens_are_those_of_the_place():
    boxes = np.concatenate([grid_boxes((0, 0, 40, 40), (1, 1)), grid_boxes((0, 0, 40, 40), (2, 2))])
    layout = cm.VisualTokenLayout((40, 40), boxes, (2, 2), "thumbnail and tiles", merged=True)
    figure = figures.token_weights(layout, Image.new("RGB", (40, 40)), {"a quarter": cm.Box(0, 0, 20, 20)})
    assert np.allclose(figure.data[0].z, [[1, 0], [0, 0]])
