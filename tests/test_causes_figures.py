"""Figures and cards of causes, lenses and answers."""

import numpy as np
import pytest

import cmllm_tools as cm
from cmllm_tools.causes import CauseGrid

ASKED = {"answer": "red cross", "progress": False}


@pytest.fixture(scope="module")
def grid():
    values = np.array([[-1.0, -2.0, np.nan], [-1.5, -1.0, 0.5]])
    return CauseGrid("x <b>", "log-odds", ("a <i>", "b"), values, -1.0, ("0", "1"), ("0", "1", "2"), clean=1.0)


def test_a_grid_is_drawn_by_sign_and_escaped(grid):
    figure = cm.figures.cause_grid(grid)
    (drawn,) = figure.data
    np.testing.assert_allclose(drawn.z, grid.change)
    assert (drawn.zmin, drawn.zmax) == (-1.5, 1.5)
    assert "<b>" not in figure.layout.title.text
    assert figure.layout.xaxis.title.text == "head"
    effect = cm.figures.cause_grid(grid, "effect").data[0]
    np.testing.assert_allclose(effect.z, (grid.values + 1) / 2)
    card = grid._repr_html_()
    assert "<img" in card and "<b>x" not in card and "x &lt;b&gt;" in card
    assert "+1.500" in card
    with pytest.raises(cm.SettingsError, match="show must be 'change' or 'effect'"):
        cm.figures.cause_grid(grid, "size")
    with pytest.raises(cm.SettingsError, match="must be a CauseGrid"):
        cm.figures.cause_grid(3)


def test_a_grid_of_nothing_yet_has_a_card(grid):
    empty = CauseGrid("x", "log-odds", ("a",), np.full((1, 1), np.nan), 0.0, ("0",), ("0",))
    assert "0 of 1" in empty._repr_html_()
    assert empty.strongest() == []


def test_words_stand_on_the_image_and_change_with_the_slider(mllm, prompt, box):
    found = cm.lens(mllm, prompt, "image", layers=[-1, 2, 5], top=2)
    figure = cm.figures.words_on_image(found)
    assert [step.label for step in figure.layout.sliders[0].steps] == ["input", "2", "5"]
    assert [frame.name for frame in figure.frames] == ["-1", "2", "5"]
    heat, words = figure.data
    np.testing.assert_allclose(np.ravel(heat.z), found.values[-1, :, 0].numpy(), rtol=1e-5)
    x0, y0, x1, y1 = prompt.layout.boxes[9]
    assert (words.x[9], words.y[9]) == ((x0 + x1) / 2, (y0 + y1) / 2)
    assert words.hovertext[9].startswith(found.words[-1][9][0])
    # Of a region, what was not read stays empty.
    part = cm.figures.words_on_image(cm.lens(mllm, prompt, box, layers=[5]))
    assert np.isnan(part.data[0].z).sum() == 64 - len(part.data[1].x)
    with pytest.raises(cm.CaptureError, match="this lens is of the question"):
        cm.figures.words_on_image(cm.lens(mllm, prompt, "text", layers=[5]))
    assert "Lens" in found._repr_html_()


def test_words_by_token(mllm, prompt):
    found = cm.lens(mllm, prompt, "text", layers=[0, 5], top=1)
    (drawn,) = cm.figures.words_by_token(found).data
    assert drawn.z.shape == (2, 4)
    assert drawn.y == ("0", "5")
    assert drawn.text[1][0].startswith(found.words[1][0][0][:3].replace("<", "&lt;"))


def test_an_answers_regions_and_its_strip_of_pictures(mllm, prompt, box):
    trace = cm.trace_answer(mllm, prompt, regions=[box, cm.Box(0, 0, 96, 192)])
    (drawn,) = cm.figures.answer_regions(trace).data
    np.testing.assert_allclose(drawn.z, trace.shares.T.numpy(), rtol=1e-5)
    assert drawn.y == ("region 1", "region 2")
    card = trace._repr_html_()
    assert card.count("<img") == len(trace)
    assert f"{trace.shares[0, 1]:.0%}" in card
    alone = cm.trace_answer(mllm, prompt, answer="red cross")
    (drawn,) = cm.figures.answer_regions(alone).data
    np.testing.assert_allclose(drawn.z[0], alone.on_image.numpy(), rtol=1e-5)
    other = cm.trace_answer(mllm, prompt, answer="red cross", regions=box, maps="grad_cam")
    assert "The Grad-CAM of each token" in str(cm.figures.answer_regions(other).layout)


@pytest.mark.filterwarnings("error")
def test_a_grid_of_nothing_yet_is_drawn():
    empty = CauseGrid("x", "log-odds", ("a",), np.full((1, 1), np.nan), 0.0, ("0",), ("0",))
    assert np.isnan(cm.figures.cause_grid(empty).data[0].z).all()
