import numpy as np
import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.analysis import head_shares
from cmllm_tools.analysis.region_shares import PLACES, moved_over


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((64, 64)), "what is the red object ?")


# 64 px are cut into 4 x 4 tokens of 16 px.
REGION = cm.Box(16, 0, 40, 16)


def made_up(prompt, values):
    """Attention with these values (layer, head, query, visual token)."""
    layers, heads, queries, _ = values.shape
    return cm.Attention(values, tuple(range(layers)), tuple(range(heads)), tuple(range(queries)), prompt)


def test_shares_are_those_of_eager_attention(tiny):
    mllm, prompt = tiny
    mllm.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            out = mllm.model(**prompt.inputs, output_attentions=True)
    finally:
        mllm.model.set_attn_implementation("sdpa")
    rows = torch.stack(out.attentions)[:, 0][:, :, list(prompt.text_span)][..., list(prompt.visual)].mean(2).numpy()
    weights = np.zeros(16)
    weights[[1, 2]] = 1, 0.5
    grid = head_shares(cm.capture_attention(mllm, prompt, layers=[0, 2]), REGION)
    expected = (rows * weights).sum(-1) / rows.sum(-1)
    assert np.allclose(grid.values, expected[[0, 2]], atol=1e-5)
    assert grid.chance == pytest.approx(1.5 / 16)
    assert np.allclose(grid.over_chance, grid.values / (1.5 / 16))
    assert (grid.layers, grid.heads) == ((0, 2), (0, 1, 2, 3))


def test_uniform_attention_has_the_share_of_area_and_no_rank(tiny):
    _, prompt = tiny
    grid = head_shares(made_up(prompt, torch.full((2, 3, 1, 16), 0.01)), cm.Box(0, 0, 16, 16))
    assert np.allclose(grid.over_chance, 1)
    assert np.allclose(grid.elsewhere, 1)


def test_a_head_on_the_region_ranks_first_and_one_elsewhere_last(tiny):
    _, prompt = tiny
    values = torch.full((1, 3, 1, 16), 0.01)
    values[0, 0, 0, 5] = 0.5  # on the region
    values[0, 1, 0, 15] = 0.5  # on another place
    values[0, 2, 0, 5], values[0, 2, 0, 15] = 0.3, 0.5  # on both, more on the other
    grid = head_shares(made_up(prompt, values), cm.Box(16, 16, 32, 32))
    others = len(grid.elsewhere)
    assert others == 15
    assert grid.rank[0].tolist() == pytest.approx([1, 0, (others - 1) / others])
    given = head_shares(made_up(prompt, values), cm.Box(16, 16, 32, 32), others=[cm.Box(48, 48, 64, 64)])
    assert given.rank[0].tolist() == [1, 0, 0]
    alone = head_shares(made_up(prompt, values), cm.Box(16, 16, 32, 32), others=[])
    with pytest.raises(cm.RegionError, match="A rank needs other places to compare with"):
        _ = alone.rank
    assert "<td" in alone._repr_html_()


def test_a_head_that_does_not_look_at_the_image_has_no_share(tiny):
    _, prompt = tiny
    values = torch.full((1, 2, 1, 16), 0.01)
    values[0, 1] = 0
    grid = head_shares(made_up(prompt, values), cm.Box(16, 16, 32, 32))
    assert grid.values[0, 1] == grid.rank[0, 1] == 0
    assert "mean 3.1%" in repr(grid)


@pytest.mark.parametrize("kind", ["box", "mask", "scribble", "point"])
def test_other_places_are_seen_whole_and_clear_of_the_region(prompt, example, kind):
    region = example.region(kind)
    places = moved_over(prompt.layout, region)
    assert 4 < len(places) <= PLACES
    own = region.cover(192, 192) > 0
    for (place,) in places:
        place.check(192, 192)
        cover = place.cover(192, 192) > 0
        assert not (cover & own).any()
        assert abs(int(cover.sum()) - int(own.sum())) <= 0.05 * own.sum() + 1
    assert len({place[0] for place in places}) == len(places)


def test_several_regions_move_together_and_a_large_one_has_no_other_place(prompt):
    pair = [cm.Box(10, 10, 30, 30), cm.Point(50, 20)]
    for box, point in moved_over(prompt.layout, pair):
        assert (box.x0 - 10, box.y0 - 10) == (point.x - 50, point.y - 20)
    assert moved_over(prompt.layout, cm.Box(10, 10, 180, 180)) == []


def test_moved_regions_keep_their_shape():
    pixels = np.zeros((6, 8))
    pixels[1:3, 2:5] = 1
    moved = cm.Mask(pixels).moved(2, -1)
    assert np.argwhere(moved.pixels).tolist() == [[0, 4], [0, 5], [0, 6], [1, 4], [1, 5], [1, 6]]
    assert cm.Box(1, 2, 3, 4).moved(0.5, 1) == cm.Box(1.5, 3, 3.5, 5)
    assert cm.Point(1, 2).moved(3, 4) == cm.Point(4, 6)
    assert cm.Scribble([(1, 2), (3, 4)]).moved(1, 1) == cm.Scribble([(2, 3), (4, 5)])


def test_grid_shows_itself(tiny):
    mllm, prompt = tiny
    grid = head_shares(cm.capture_attention(mllm, prompt), REGION)
    layer, head = np.unravel_index(grid.values.argmax(), grid.values.shape)
    assert f"highest layer {layer}, head {head}" in repr(grid)
    assert "layers 0..2 (3) x 4 heads" in repr(grid)
    page = grid._repr_html_()
    assert page.count("<img") > 1
    assert "by area alone" in page
    assert f"layers 0..2 (3) down, heads 0..3 across: 0 to {grid.values.max():.1%} in the region" in page


def test_region_out_of_view_is_refused(tiny):
    with pytest.raises(cm.RegionError, match="must lie within the image"):
        head_shares(cm.capture_attention(*tiny), cm.Box(0, 0, 100, 100))
