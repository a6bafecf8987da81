"""Patches against plain forwards, with hooks written out."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from PIL import Image
from test_causes_knockout import ANSWER, attention_of, plain

import cmllm_tools as cm
from cmllm_tools.causes import patch

FEW = {"answer": ANSWER, "progress": False}


@pytest.fixture(scope="module")
def other(mllm, prompt, box):
    """The same prompt with the region grey."""
    pixels = np.array(prompt.image)
    x0, y0, x1, y1 = map(int, box.bounds)
    pixels[y0:y1, x0:x1] = 128
    return mllm.prepare(Image.fromarray(pixels), prompt.question)


def layers_of(mllm):
    return mllm.model.model.language_model.layers


def read(mllm, prompt, modules):
    """What each module gives, or an output projection takes, in a plain forward with the answer."""
    found = {}
    handles = [
        module.register_forward_hook(lambda module, given, output: found.update({module: output[0].clone()}))
        for module in modules
    ]
    projections = [module.o_proj for module in attention_of(mllm)]
    handles += [
        module.register_forward_pre_hook(lambda module, given: found.update({module: given[0][0].clone()}))
        for module in projections
    ]
    try:
        plain(mllm, prompt)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def written(mllm, found, layer, rows, where, heads=range(6)):
    """While open, a layer's output, or what its heads draw, is what was found at `rows`."""

    def residual(module, given, output):
        changed = output.clone()
        changed[:, rows] = found[module][rows]
        return changed

    def drawn(module, given):
        changed = given[0].clone()
        width = changed.shape[-1] // mllm.heads
        for head in heads:
            part = slice(head * width, (head + 1) * width)
            changed[:, rows, part] = found[module][rows, part]
        return (changed,)

    if where == "residual":
        handle = layers_of(mllm)[layer].register_forward_hook(residual)
    else:
        handle = attention_of(mllm)[layer].o_proj.register_forward_pre_hook(drawn)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("where", ["residual", "attention"])
def test_a_patch_equals_hooks_written_out_and_leaves_the_model_alone(mllm, prompt, other, box, where):
    before = snapshot(mllm)
    # Random models of the tests say little of text; here the image's states, the last token and the answering ones matter.
    end = len(prompt.tokens)
    inside = [prompt.visual[number] for number in np.flatnonzero(prompt.layout.inside(box) >= 0.5)]
    rows = {"region": inside, "last": [end - 1], "answering": list(range(end - 1, end + 3)), "all": list(range(end + 3))}
    names = {"region": box, "last": "last", "answering": "answering", "all": "all"}
    grid = patch(mllm, prompt, other, where, tokens=names, **FEW)
    assert grid.columns == tuple(names)
    assert grid.before == pytest.approx(plain(mllm, other), abs=1e-5)
    assert grid.clean == pytest.approx(plain(mllm, prompt), abs=1e-5)
    found = read(mllm, prompt, layers_of(mllm))
    for layer in (0, 3, 5):
        for column, name in enumerate(names):
            with written(mllm, found, layer, rows[name], where):
                expected = plain(mllm, other)
            assert grid.values[layer, column] == pytest.approx(expected, abs=1e-5)
    if where == "residual":
        np.testing.assert_allclose(grid.effect[:, -1], 1, atol=1e-4)
    assert_same(before, snapshot(mllm))


def test_heads_are_patched_one_by_one_over_a_kept_prefix(mllm, prompt, other):
    grid = patch(mllm, prompt, other, "attention", tokens="last", heads=[0, 4], **FEW)
    assert grid.axes == ("layer", "head")
    found = read(mllm, prompt, ())
    for layer in (1, 4):
        for column, head in enumerate((0, 4)):
            with written(mllm, found, layer, [len(prompt.tokens) - 1], "attention", [head]):
                assert grid.values[layer, column] == pytest.approx(plain(mllm, other), abs=1e-5)


def test_visual_states_of_a_region_or_of_another_one(mllm, prompt, other, box):
    both = patch(mllm, prompt, other, "visual", tokens={"region": box, "all": "image"}, **FEW)
    assert both.effect[0, 1] == pytest.approx(1, abs=1e-3)
    inside = np.flatnonzero(prompt.layout.inside(box) >= 0.5).tolist()
    latent = torch.zeros(len(prompt.visual), prompt.call.states.shape[-1])
    latent[inside] = (prompt.call.visual_states - other.call.visual_states)[inside]
    score = cm.AnswerScore(mllm, other, ANSWER)(latent[None]).item()
    assert both.values[0, 0] == pytest.approx(score, abs=1e-5)
    # One region's states put at another place of the same image.
    left, right = cm.Box(0, 0, 48, 96), cm.Box(144, 0, 192, 96)
    moved = patch(mllm, prompt, other, "visual", tokens=right, source=left, **FEW)
    to, of = (np.flatnonzero(prompt.layout.inside(each) >= 0.5).tolist() for each in (right, left))
    latent = torch.zeros_like(latent)
    latent[to] = prompt.call.visual_states[of] - other.call.visual_states[to]
    assert moved.values[0, 0] == pytest.approx(cm.AnswerScore(mllm, other, ANSWER)(latent[None]).item(), abs=1e-5)


def test_windows_of_layers_are_patched_together(mllm, prompt, other):
    grid = patch(mllm, prompt, other, "attention", window=6, **FEW)
    visual = patch(mllm, prompt, other, "visual", **FEW)
    assert (grid.rows, visual.rows) == (("0..5",), ("-",))
    # With what attention draws of the clean run everywhere, the corrupted image is left in its own states alone.
    assert np.isfinite(grid.values).all()


def test_what_cannot_be_patched_is_refused(mllm, prompt, other, box):
    longer = mllm.prepare(prompt.image, "describe the red object.")
    for message, given, options in (
        ("of the same number of tokens; got", longer, {}),
        ("where must be|must be 'visual'", other, {"where": "keys"}),
        ("Heads are patched where='attention'", other, {"heads": [0]}),
        ("Visual states are those of the 'image' or of regions", other, {"where": "visual", "tokens": "text"}),
        ("leave out the layers", other, {"where": "visual", "layers": [0]}),
        ("Layers must be at least one number in 0..5", other, {"layers": [6]}),
        (r"as many tokens must be taken as are patched, 1; got 64", other, {"tokens": "last", "source": "image"}),
        ("Tokens must be one choice", other, {"tokens": {"a": "last"}, "source": "image"}),
        ("Tokens must be one choice", other, {"tokens": {}}),
    ):
        with pytest.raises((cm.CaptureError, cm.SettingsError), match=message):
            patch(mllm, prompt, given, **(FEW | options))
    same = patch(mllm, prompt, prompt, layers=[5], **FEW)
    with pytest.raises(cm.DataError, match="which must differ; here they do not"):
        _ = same.effect
    with pytest.raises(cm.DataError, match="nothing was patched"):
        _ = cm.causes.knockout_grid(mllm, prompt, layers=[5], heads=[0], **FEW).effect
