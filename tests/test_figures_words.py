"""Texts of any length, pictures of any size and shape, and the wrong kind of thing in figures."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers.utils import logging

import cmllm_tools as cm
from cmllm_tools import figures
from cmllm_tools.analysis import Choice, Sweep
from cmllm_tools.layout.visual_tokens import grid_boxes
from cmllm_tools.progress import progress_bar
from cmllm_tools.show import palette, picture
from cmllm_tools.show.figures.lines import look
from cmllm_tools.show.figures.parts import color_scale
from cmllm_tools.show.figures.words import text_width, whole, wrapped, written


@pytest.mark.parametrize("text", ["word " * 80, "W" * 300, "\u6587" * 300, "", "a <b> & c"])
def test_a_text_is_wrapped_whole_where_lines_do(text):
    lines = wrapped(text, 200)
    assert all(text_width(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert whole(text, 200, 99) is None


def test_a_text_too_long_ends_with_an_ellipsis_and_has_the_whole_to_hover_over():
    text = "one <two> three " * 30
    lines = wrapped(text, 200, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert all(text_width(line) <= 200 for line in lines)
    assert written(text, 200, 3).count("<br>") == 2
    assert "<two>" not in written(text, 200, 3)
    assert whole(text, 200, 3).replace("<br>", " ").count("&lt;two&gt;") == 30


@pytest.mark.parametrize(("size", "most"), [((4000, 3000), 512), ((300, 2000), 1024), ((40, 30), 40)])
def test_images_are_copied_small_once(size, most):
    copy = picture.small(Image.new("RGB", size))
    assert max(copy.size) <= max(most, 600)
    assert copy.width * copy.height <= 512 * 512
    assert copy.width / copy.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_the_image_is_dimmed_and_more_so_where_the_model_does_not_look():
    colors = np.zeros((10, 10, 3), np.uint8)
    colors[:] = (250, 220, 40)
    dark = np.asarray(picture.dimmed(Image.fromarray(colors), np.array([0, 0]), np.array([5, 10]))).astype(int)
    seen, unseen = dark[5, 2], dark[5, 8]
    assert np.ptp(seen) < 0.3 * (250 - 40)
    assert seen.max() < 0.75 * 250
    assert unseen == pytest.approx(seen * (1 - palette.SHADE), abs=2)


def test_a_tenth_of_the_maximum_is_seen():
    assert palette.ramp()[26, 3] > 0.3 * 255
    assert color_scale()[0][1].endswith(", 0.00)")
    assert color_scale(opaque=True)[0][1] == "rgba(49, 104, 142, 1.00)"


def test_36_lines_differ_in_colour_and_dash_and_in_dash_and_marker():
    looks = [look(number) for number in range(36)]
    assert len({(each["line"]["color"], each["line"]["dash"]) for each in looks}) == 36
    assert len({(each["line"]["dash"], each["marker"]["symbol"]) for each in looks}) == 36


def sweep_of(value):
    choices = [Choice((a, b), "text") for b in range(1, 4) for a in range(b)]
    sweep = Sweep.empty("m", cm.ControlMLLMPlus(), choices, ["0", "1"])
    sweep.values[:] = value
    return sweep


@pytest.mark.parametrize(
    ("figure", "value", "ends"), [("share", 1.0, (0, 1)), ("moved", -2.0, (-2, 0)), ("share", 0.0, (0, 1))]
)
def test_where_all_windows_are_equal_the_scale_starts_at_0_and_a_share_ends_at_1(figure, value, ends):
    (heat,) = figures.window_grid(sweep_of(value), figure).data
    assert (heat.zmin, heat.zmax) == ends


def test_windows_that_cannot_be_are_blank_and_windows_are_written_one_way():
    sweep = sweep_of(np.arange(6.0)[None, :, None])
    (heat,) = figures.window_grid(sweep).data
    assert np.isnan(heat.z[2][0])
    assert heat.z[0][0] == 0
    assert heat.customdata[0][2] == "layers 0..2 (3)"
    pixels = picture._colors(np.array([[0.0, np.nan]]), False, True)
    assert pixels[0, 0].tolist() == [49, 104, 142, 255]
    assert pixels[0, 1, 3] == 0


def test_maps_on_their_own_scale_say_how_far_it_goes():
    layout = cm.VisualTokenLayout((40, 40), grid_boxes((0, 0, 40, 40), (2, 2)), (2, 2), "r")
    maps = [("a", np.array([1.0, 1, 1, 1])), ("b", np.array([0.0, 0, 0, 4]))]
    figure = figures.maps_on_image(maps, Image.new("RGB", (40, 40)), layout, scale="own")
    assert [heat.zmax for heat in figure.data] == [25, 100]
    assert [note.text for note in figure.layout.annotations] == ["a<br>up to 25 %", "b<br>up to 1e+02 %"]


def test_the_wrong_kind_of_thing_is_told_in_words(mllm, prompt, box):
    attention = cm.capture_attention(mllm, prompt, layers=[1])
    image, layout = prompt.image, prompt.layout
    for call, told in (
        (
            lambda: figures.map_on_image(attention, image),
            r"must be a ContextMap, from context_map\(attention\); got an Attention",
        ),
        (lambda: figures.maps_on_image(attention, image, layout), r"must be a list of pairs \(title, map\)"),
        (lambda: figures.maps_on_image([("a", np.ones(3))], image, layout), r"64 visual tokens; got shape \(3,\)"),
        (lambda: figures.layer_head_grid(prompt, box), r"must be an Attention, .*got a Prompt"),
        (lambda: figures.head_grid(attention), "must be a HeadGrid"),
        (lambda: figures.head_ranking(attention), "must be a HeadRanking"),
        (lambda: figures.step_player(attention), "must be a Trace"),
        (lambda: figures.before_after(None), "must be a Trace"),
        (lambda: figures.energy_curve([1]), "must be a Trace"),
        (lambda: figures.curves([1], "x", "y"), "must be a Mapping"),
        (lambda: figures.curves({"a": [1, 2, 3, 4]}, "x", "y"), "pair"),
        (lambda: figures.token_weights(prompt, image, {"a": box}), "must be a VisualTokenLayout"),
        (lambda: figures.token_weights(layout, image, {}), "at least one"),
        (lambda: figures.sinks_on_image(attention), "must be a Sinks"),
        (lambda: figures.visual_tokens(prompt, image), "must be a VisualTokenLayout"),
        (lambda: figures.insertion_deletion(attention), "must be a Curves"),
        (lambda: figures.window_grid(attention), "must be a Sweep"),
    ):
        with pytest.raises(cm.SettingsError, match=told):
            call()


def test_a_bar_in_a_notebook_is_text_that_ends_as_it_was(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    bar = progress_bar(total=7, desc="steering")
    bar.update(3)
    bar.close()
    assert "3/7" in output.getvalue().strip().split("\r")[-1]


def test_loading_the_embedded_model_shows_no_bar_and_leaves_transformers_as_it_was(capfd):
    logging.enable_progress_bar()
    cm.load()
    assert "Loading weights" not in "".join(capfd.readouterr())
    assert logging.is_progress_bar_enabled()
