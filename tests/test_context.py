import numpy as np
import pytest
import torch

import cmllm_tools as cm


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
