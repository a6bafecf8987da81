import numpy as np
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.attention.context_map import layer_maps


@pytest.fixture(scope="module")
def attention(mllm, prompt):
    return cm.capture_attention(mllm, prompt, layers=[1, 3, 4], heads=[0, 5], queries="after_image")


def test_map_is_the_mean_over_queries_heads_and_layers(attention):
    cmap = cm.context_map(attention)
    assert torch.allclose(cmap.values, attention.values.mean((0, 1, 2)))
    assert np.array_equal(cmap.grid, cmap.values.numpy().reshape(8, 8))


def test_subsets(attention, prompt):
    cmap = cm.context_map(attention, queries="object", layers=[3], heads=[5])
    row = attention.queries.index(prompt.positions("object")[0])
    assert torch.equal(cmap.values, attention.values[1, 1, row])
    last = cm.context_map(attention, queries="last", layers=[4, 1])
    assert torch.allclose(last.values, attention.values[[0, 2]][:, :, -1].mean((0, 1)))
    assert last.words == (":",)


def test_what_was_not_captured_is_refused(attention):
    with pytest.raises(cm.CaptureError, match=r"layers must be among those captured, \[1, 3, 4\]; got \[2\]"):
        cm.context_map(attention, layers=[2])
    with pytest.raises(cm.CaptureError, match="heads must be"):
        cm.context_map(attention, heads=[1])
    with pytest.raises(cm.CaptureError, match="query positions must be"):
        cm.context_map(attention, queries=0)
    with pytest.raises(cm.PromptError, match="'zebra'"):
        cm.context_map(attention, queries="zebra")


def test_repr_says_what_it_holds(attention):
    text = repr(cm.context_map(attention, queries="text"))
    assert "64 visual tokens on 8 x 8" in text
    assert "'describe the object .'" in text


def test_energy_carries_gradient(mllm, prompt, box):
    latent = prompt.zero_latent()
    cmap = cm.context_map(cm.capture_attention(mllm, prompt, layers=range(2, 6), latent=latent))
    cm.energy(cmap, box).backward()
    assert latent.grad.abs().sum() > 0
    assert 0 < cm.region_share(cmap, box) < 1


def test_pairs_of_layer_and_head_are_averaged_alone(mllm, prompt, box):
    full = cm.capture_attention(mllm, prompt)
    pairs = ((1, 4), (3, 0), (3, 5))
    expected = torch.stack([full.values[layer, head].mean(0) for layer, head in pairs]).mean(0)
    some = cm.capture_attention(mllm, prompt, heads=pairs)
    assert (some.layers, some.heads, some.pairs) == ((1, 3), (0, 4, 5), pairs)
    assert "heads of 3 (layer, head) pairs" in repr(some)
    for cmap in (cm.context_map(full, heads=pairs), cm.context_map(some), cm.context_map(some, heads=list(pairs))):
        assert torch.allclose(cmap.values, expected, atol=1e-7)
    within = cm.context_map(some, layers=[3]).values
    assert torch.allclose(within, full.values[3, [0, 5]].mean((0, 1)), atol=1e-7)
    # A layer's part is as large as the number of its pairs, so that figures, which average layers, show the map.
    parts = layer_maps(some)
    assert torch.allclose(parts.mean(0), expected, atol=1e-7)
    assert torch.allclose(parts[0] * 3 / 2, full.values[1, 4].mean(0), atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": [1, (2, 3)]}, r"numbers, or \(layer, head\) pairs throughout; got \[1, \(2, 3\)\]"),
        ({"heads": [(1, 2, 3)]}, "pairs throughout"),
        ({"heads": [(1, 2)], "layers": [3, 4]}, r"pair must be in layers \[3, 4\]; got \[\(1, 2\)\]"),
        ({"heads": [(1, 6)]}, r"Heads must be at least one number in 0\.\.5; got \[6\]"),
        ({"heads": [(6, 1)]}, r"Layers must be at least one number in 0\.\.5; got \[6\]"),
    ],
)
def test_pairs_that_cannot_be_captured_are_refused(mllm, prompt, options, message):
    with pytest.raises(cm.CaptureError, match=message):
        cm.capture_attention(mllm, prompt, **options)


def test_pairs_that_were_not_captured_are_refused(attention):
    with pytest.raises(cm.CaptureError, match=r"layers must be among those captured, \[1, 3, 4\]; got \[2\]"):
        cm.context_map(attention, heads=[(2, 0)])
    with pytest.raises(cm.CaptureError, match=r"heads must be among those captured, \[0, 5\]; got \[3\]"):
        cm.context_map(attention, heads=[(1, 3)])


def test_tokens_left_out_count_for_nothing(attention, box):
    whole, without = cm.context_map(attention), cm.context_map(attention, without=[3, 17])
    kept = [token for token in range(64) if token not in (3, 17)]
    assert (without.values[[3, 17]] == 0).all()
    assert torch.equal(without.values[kept], whole.values[kept])
    inside = torch.from_numpy(without.layout.inside(box))
    expected = (whole.values * inside)[kept].sum() / whole.values[kept].sum()
    assert cm.region_share(without, box) == pytest.approx(expected.item(), rel=1e-5)
    for tokens in ([64], [-1], range(64)):
        with pytest.raises(cm.CaptureError, match=r"numbers in 0\.\.63, and not all of them"):
            cm.context_map(attention, without=tokens)
