import re

import numpy as np
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools import figures
from cmllm_tools.analysis import Curves, HeadRanking, head_shares
from cmllm_tools.analysis.sinks import sinks_in
from cmllm_tools.layout.visual_tokens import grid_boxes


@pytest.fixture(scope="module")
def grid(mllm, prompt, box):
    return head_shares(cm.capture_attention(mllm, prompt, layers=[1, 4], heads=[0, 2, 5], queries="last"), box)


@pytest.mark.parametrize("show", ["share", "over_chance", "rank"])
def test_head_grid_shows_one_figure_and_tells_all(grid, show):
    (heat,) = figures.head_grid(grid, show).data
    shown = {"share": grid.values, "over_chance": grid.over_chance, "rank": grid.rank}
    assert np.array_equal(heat.z, shown[show])
    assert (list(heat.x), list(heat.y)) == (["0", "2", "5"], ["1", "4"])
    for index, values in enumerate(shown.values()):
        assert np.allclose(heat.customdata[..., index], values)
    assert "%{customdata[2]:.0%} of other places" in heat.hovertemplate


def test_head_grid_without_other_places(mllm, prompt, box):
    alone = head_shares(cm.capture_attention(mllm, prompt, layers=[1]), box, others=[])
    assert "other places" not in figures.head_grid(alone).data[0].hovertemplate
    with pytest.raises(cm.RegionError, match="A rank needs other places"):
        figures.head_grid(alone, "rank")


def test_head_ranking_shows_pointing_with_its_interval():
    lift = np.arange(6.0).reshape(2, 3)
    ranking = HeadRanking("a", (0, 2), (0, 1, 3), 10, np.arange(6).reshape(2, 3), 0.05, lift, np.stack([lift, lift]))
    figure = figures.head_ranking(ranking)
    (heat,) = figure.data
    assert np.allclose(heat.z, ranking.hits / 10)
    assert np.allclose(heat.customdata[1, 2], [0.5, *ranking.pointing_interval[:, 1, 2], 5.0])
    assert "10 examples (by chance: 5.0%)" in figure.layout.title.text


def test_maps_share_one_scale_and_one_bar(mllm, prompt, box):
    cmap = cm.context_map(cm.capture_attention(mllm, prompt, layers=[1]))
    other = torch.linspace(0, 1, 64)
    maps = [("one <b>", cmap), ("two", other), ("three", other.numpy()), ("four", other * 7)]
    figure = figures.maps_on_image(maps, prompt.image, prompt.layout, box, what="attention")
    heats = [item for item in figure.data if item.type == "heatmap"]
    assert [np.sum(heat.z) for heat in heats] == pytest.approx([100] * 4, rel=1e-4)
    assert np.allclose(heats[1].z, heats[3].z, atol=1e-4)
    assert {(heat.zmin, heat.zmax) for heat in heats} == {(0, max(float(np.max(heat.z)) for heat in heats))}
    assert [heat.showscale for heat in heats] == [True, False, False, False]
    assert [image.xref for image in figure.layout.images] == ["x", "x2", "x3", "x4"]
    assert {item.xaxis for item in figure.data if item.type == "scatter"} == {"x", "x2", "x3", "x4"}
    assert figure.layout.annotations[0].text == "one &lt;b&gt;"


def test_a_map_with_negative_values_has_a_scale_around_zero(prompt):
    signed = np.linspace(-1, 3, 64)
    figure = figures.maps_on_image([("plain", np.ones(64)), ("signed", signed)], prompt.image, prompt.layout)
    plain, heat = figure.data
    assert np.allclose(np.ravel(heat.z), 100 * signed / np.abs(signed).sum())
    assert plain.zmin == heat.zmin == -heat.zmax
    assert re.search(r", 0\)$", heat.colorscale[1][1])


def test_sinks_are_outlined_where_they_look(prompt):
    # Two sizes of tokens over one area: the map shows their mean, not their sum.
    boxes = np.concatenate([grid_boxes((0, 0, 192, 192), (2, 2)), grid_boxes((0, 0, 192, 192), (1, 1))])
    layout = cm.VisualTokenLayout((192, 192), boxes, (2, 2), "tiles", merged=True)
    values = torch.tensor([1.0, 1.0, 1.0, 9.0, 1.0])
    found = sinks_in([cm.ContextMap(values, layout, ("a",)), cm.ContextMap(2 * values, layout, ("b",))])
    assert found.tokens == (3,)
    assert np.allclose(found.grid[0], 1)
    assert found.grid[1, 1] == pytest.approx((9 + 0.25) / 1.25)
    figure = figures.sinks_on_image(found, prompt.image)
    assert np.array_equal(figure.data[0].z, found.grid)
    outline = figure.data[-1]
    assert (min(filter(None, outline.x)), max(filter(None, outline.x))) == (96, 192)
    assert "1 sinks of 5 visual tokens<br><sub>above 5 x" in figure.layout.title.text
    with pytest.raises(cm.ImageError, match="give it as image="):
        figures.sinks_on_image(found)


def test_insertion_and_deletion_stand_over_the_range_of_random_orders():
    x, rng = np.linspace(0, 1, 5), np.random.default_rng(0)
    randoms = rng.random((2, 3, 5))
    curves = Curves(x, x, 1 - x, *randoms, "log p('<b>')")
    figure = figures.insertion_deletion(curves)
    assert [trace.name for trace in figure.data] == [
        "insertion, 3 random orders",
        "deletion, 3 random orders",
        "insertion",
        "deletion",
    ]
    for band, each in zip(figure.data, randoms, strict=False):
        assert np.allclose(band.y, [*each.min(0), *each.max(0)[::-1]])
    assert np.array_equal(figure.data[2].y, x)
    assert np.array_equal(figure.data[3].y, 1 - x)
    assert {figure.data[2].line.dash, figure.data[3].line.dash} == {"solid", "dash"}
    assert "&lt;b&gt;" in figure.layout.title.text
    assert "<b>" not in figure.layout.title.text
