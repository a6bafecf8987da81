"""Figures as they stand on paper: what is in the file, how wide it is, and that the user's matplotlib is left alone."""

import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import Normalize
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.show.figures.printed import FORMATS, WIDTHS, drawn


@pytest.fixture(scope="module")
def trace(mllm, prompt, box):
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=3), callbacks=[cm.Answers("ends")])
    trace.steps[-1].answer = "a $5 note <b> & more"
    return trace


@pytest.fixture(scope="module")
def attention(mllm, prompt):
    return cm.capture_attention(mllm, prompt)


@pytest.fixture(scope="module")
def figures(mllm, trace, attention, prompt, box):
    cmap = cm.context_map(attention)
    curve = ([0, 1, 2], [1.0, None, 3.0])
    return {
        "map": cm.figures.map_on_image(cmap, prompt.image, box),
        "maps": cm.figures.maps_on_image([("a", cmap), ("b", -cmap.values)], prompt.image, prompt.layout, box),
        "before": cm.figures.before_after(trace),
        "runs": cm.figures.runs_side_by_side({"a": trace, "b": trace, "c": trace}),
        "player": cm.figures.step_player(trace),
        "curve": cm.figures.energy_curve(trace),
        "curves": cm.figures.curves({"a": curve, "b": (*curve, [[0, 2]] * 3)}, "step", "energy", "Title"),
        "grid": cm.figures.layer_head_grid(attention, box),
        "heads": cm.figures.head_maps(attention),
        "tokens": cm.figures.visual_tokens(prompt.layout, prompt.image),
        "words": cm.figures.words_on_image(cm.lens(mllm, prompt, layers=[3, 5])),
        "by token": cm.figures.words_by_token(cm.lens(mllm, prompt, "text")),
    }


@pytest.mark.slow
@pytest.mark.parametrize("columns", WIDTHS)
def test_pictures_are_as_wide_as_columns(figures, columns, tmp_path):
    for name, figure in figures.items():
        path = figure.save(tmp_path / f"{name}.png", columns)
        with Image.open(path) as picture:
            assert picture.width == pytest.approx(300 * WIDTHS[columns], abs=2)
            assert 0.2 < picture.height / picture.width < 1.5


def test_nothing_touches_the_edge(figures, tmp_path):
    """Words that a sheet cuts have ink in its first or last row or column of pixels."""
    for name, figure in figures.items():
        with Image.open(figure.save(tmp_path / f"{name}.png")) as picture:
            ink = np.asarray(picture.convert("L")) < 160
        assert not ink[0].any() and not ink[-1].any() and not ink[:, 0].any(), name


def test_letters_are_in_the_file(figures, tmp_path):
    pdf = figures["before"].save(tmp_path / "before.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    svg = figures["before"].save(tmp_path / "before.svg").read_text("utf-8")
    assert "<text" not in svg
    assert "http" not in re.sub(r'(xmlns[\w:]*|rdf:resource)="[^"]*"', "", svg.split("<defs>", 1)[1])


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_figure_gives_the_same_file(figures, suffix, tmp_path):
    one, two = (figures["grid"].save(tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert one == two


def test_a_map_is_drawn_where_it_is(figures, prompt, attention):
    sheet = drawn(figures["map"], 3.3)
    (mesh,) = sheet.axes[0].collections
    values = cm.context_map(attention).values.numpy()
    np.testing.assert_allclose(mesh.get_array().ravel(), 100 * values / values.sum(), rtol=1e-5)
    assert sheet.axes[0].get_xlim() == (0, prompt.image.width)
    assert sheet.axes[0].get_ylim() == (prompt.image.height, 0)


def test_curves_are_drawn_as_they_are(figures, trace):
    sheet = drawn(figures["curve"], 3.3)
    energy, share = sheet.axes[0].lines
    np.testing.assert_allclose(energy.get_ydata(), [step.energy for step in trace.steps])
    np.testing.assert_allclose(share.get_ydata(), [step.share for step in trace.steps])
    assert [text.get_text() for text in sheet.legends[0].get_texts()] == ["energy", "share in the region"]


def test_lightness_rises_with_the_value(figures):
    """A copy in grey says the same."""
    sheet = drawn(figures["grid"], 3.3)
    colors = sheet.axes[0].images[0].cmap(Normalize()(np.arange(256)))[:, :3]
    lightness = colors @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > -1e-6).all()
    assert lightness[-1] - lightness[0] > 0.4


def test_texts_are_plain(figures):
    """What a model says is no formula and no markup."""
    titles = [axes.get_title(loc="left") for axes in drawn(figures["before"], 6.9).axes]
    assert any("a $5 note <b> & more" in title for title in titles)


def test_a_title_stands_above_where_it_is_asked_for(figures):
    assert drawn(figures["curves"], 3.3).get_suptitle() == ""
    assert drawn(figures["curves"], 3.3, title=True).get_suptitle() == "Title"


def test_later_changes_are_in_the_file(figures):
    figure = cm.figures.curves({"a": ([0, 1], [0, 1])}, "step", "energy")
    figure.update_xaxes(title="time")
    assert drawn(figure, 3.3).axes[0].get_xlabel() == "time"


def test_a_log_axis_is_one_on_paper():
    figure = cm.figures.curves({"a": ([1, 10], [1, 1000])}, "step", "energy")
    figure.update_yaxes(type="log", range=[0, 3])
    (axes,) = drawn(figure, 3.3).axes
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylim()) == ("linear", "log", (1.0, 1000.0))
    figure.update_xaxes(type="date")
    with pytest.raises(cm.SettingsError, match="must be linear, log or of names; this one is 'date'"):
        drawn(figure, 3.3)


def test_rules_go_from_edge_to_edge():
    figure = cm.figures.curves({"a": ([0, 4], [0, 8])}, "step", "energy")
    figure.add_hline(y=2)
    figure.add_vline(x=3)
    sheet = drawn(figure, 3.3)
    sheet.draw_without_rendering()
    (axes,) = sheet.axes
    across, down = (
        axes.transAxes.inverted().transform(line.get_transform().transform(line.get_xydata())) for line in axes.lines[-2:]
    )
    assert (across[:, 0].min(), across[:, 0].max()) == pytest.approx((0, 1))
    assert (down[:, 1].min(), down[:, 1].max()) == pytest.approx((0, 1))
    inside = axes.transAxes.transform
    assert axes.transData.inverted().transform(inside(across))[:, 1] == pytest.approx(2)
    assert axes.transData.inverted().transform(inside(down))[:, 0] == pytest.approx(3)


def test_what_is_not_known_is_named():
    figure = cm.figures.curves({"a": ([0, 4], [0, 8])}, "step", "energy")
    figure.add_shape(type="line", xref="paper", yref="y", x0=0, x1=1, y0=2, y1=2)
    with pytest.raises(cm.SettingsError, match="of one panel; this one has a line at xref='paper'"):
        drawn(figure, 3.3)
    figure.layout.shapes = ()
    figure.add_bar(x=[0, 1], y=[1, 2])
    with pytest.raises(cm.SettingsError, match="curves and heat maps; this one has a bar"):
        drawn(figure, 3.3)
    figure.data = ()
    figure.add_pie(values=[1, 2])
    with pytest.raises(cm.SettingsError, match="this one has a pie"):
        drawn(figure, 3.3)


@pytest.mark.slow
def test_settings_of_matplotlib_are_left_alone(figures, tmp_path):
    before = dict(matplotlib.rcParams)
    figures["grid"].save(tmp_path / "grid.pdf")
    assert dict(matplotlib.rcParams) == before
    code = (
        f"import sys, cmllm_tools as cm; cm.figures.curves({{'a': ([0], [1])}}, 'x', 'y').save({str(tmp_path / 'x.png')!r})"
    )
    code += "; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("x.gif", {}, r"must be saved as \.pdf, \.svg or \.png; got 'x\.gif'"),
        ("x", {}, r"must be saved as \.pdf"),
        ("x.pdf", {"columns": 3}, "columns must be a whole number"),
        ("x.pdf", {"width": 0}, "width of a figure, in inches, must be"),
        ("x.pdf", {"title": "yes"}, "title must be"),
    ],
)
def test_what_cannot_be_saved_is_refused(figures, tmp_path, monkeypatch, path, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cm.SettingsError, match=message):
        figures["grid"].save(path, **options)
    assert not any(tmp_path.iterdir())


def test_an_empty_figure_is_refused(tmp_path):
    with pytest.raises(cm.SettingsError, match="must have something drawn in it"):
        cm.figures.curves({}, "x", "y").save(tmp_path / "x.pdf")


def test_without_matplotlib_it_says_what_to_install(figures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs matplotlib.*pip install 'cmllm_tools\[paper\]'"):
        figures["grid"].save(tmp_path / "grid.pdf")


def test_heads_are_tiled_in_their_order(attention, figures):
    """Row of layers, column of heads, each over its own largest weight."""
    tiled = figures["heads"].data[0].z
    weights = attention.values.mean(2).numpy()
    for layer in range(6):
        for head in range(6):
            tile = tiled[8 * layer : 8 * layer + 8, 8 * head : 8 * head + 8]
            expected = 100 * weights[layer, head] / weights[layer, head].max()
            assert np.abs(tile.ravel() - expected).max() <= 0.5 + 1e-4
    common = cm.figures.head_maps(attention, "common").data[0].z
    share = weights / weights.sum(-1, keepdims=True)
    assert common.max() == 100
    assert np.unravel_index(share.argmax(), share.shape)[:2] == tuple(
        at // 8 for at in np.unravel_index(common.argmax(), (48, 48))
    )


def test_heads_of_attention_to_all_tokens_are_those_to_the_image(mllm, prompt, figures):
    every = cm.capture_attention(mllm, prompt, columns="all")
    assert (cm.figures.head_maps(every).data[0].z == figures["heads"].data[0].z).all()


def test_more_heads_than_a_page_holds_are_refused(attention, monkeypatch):
    monkeypatch.setattr("cmllm_tools.show.figures.many._MOST", 2000)
    with pytest.raises(cm.SettingsError, match=r"at most 2000 cells; 6 layers of 6 heads of 8 x 8 have 2304"):
        cm.figures.head_maps(attention)


def test_runs_side_by_side_have_one_scale(trace, mllm, prompt, box):
    other = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=2))
    figure = cm.figures.runs_side_by_side({"one": trace, "other": other})
    maps = [item for item in figure.data if item.type == "heatmap"]
    assert len({item.zmax for item in maps}) == 1
    own = cm.figures.runs_side_by_side({"one": trace, "other": other}, "own")
    assert len({item.zmax for item in own.data if item.type == "heatmap"}) == 2
    assert any("one: " in note.text for note in figure.layout.annotations)
    for given, message in (({}, "1 to 12 runs"), ({"a": 1}, "must be a Trace"), ([trace], "must be a Mapping")):
        with pytest.raises(cm.SettingsError, match=message):
            cm.figures.runs_side_by_side(given)


def test_a_runs_steps_are_a_table(trace):
    frame = trace.frame()
    assert list(frame.columns) == ["step", "energy", "share", "latent_norm", "gradient_norm", "seconds", "answer"]
    assert list(frame["energy"]) == [step.energy for step in trace.steps]
    assert frame["answer"].iloc[-1] == trace.steps[-1].answer


def test_without_pandas_it_says_what_to_install(trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs pandas.*pip install 'cmllm_tools\[paper\]'"):
        trace.frame()
