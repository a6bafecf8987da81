import numpy as np
import pytest
import torch
from PIL import Image
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.layout.probe import probe
from cmllm_tools.models.families import FAMILIES


def cells(image, rows=4, columns=6, size=(90, 60)):
    """States of an ideal encoder: each token a random projection of its cell's pixels, one more that sees nothing."""
    side = 15
    pixels = (
        np.asarray(image, float).reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    )
    weights = np.random.default_rng(1).normal(size=(pixels.shape[1], 8))
    return np.concatenate([pixels @ weights, np.full((1, 8), 128.0)])


def test_an_ideal_encoder_is_laid_out_to_a_fraction_of_a_band():
    placement = probe(cells, (90, 60))
    assert placement.placed((90, 60)).tolist() == [True] * 24 + [False]
    layout = placement.layout((90, 60))
    x0, y0 = (corner.ravel() for corner in np.meshgrid(np.arange(6) * 15, np.arange(4) * 15))
    expected = np.stack([x0, y0, x0 + 15, y0 + 15], 1)
    error = np.abs(layout.boxes - expected)
    assert np.median(error) < 1
    assert (error < 2.5).mean() > 0.9
    assert "confidence 0.9" in layout.rule or "confidence 1.00" in layout.rule


def test_tokens_that_look_everywhere_are_refused():
    mixing = np.random.default_rng(0).normal(size=(8, 24))
    with pytest.raises(cm.UnsupportedModelError, match="must be local to be laid out by probing"):
        probe(lambda image: mixing @ cells(image)[:24], (90, 60))


def test_tokens_of_empty_tiles_are_no_discrete_codes():
    """Equal states that respond alike, as mllama's for tiles that an image does not fill, cost sixteen times the images."""
    looked = []

    def states(image):
        looked.append(image)
        found = cells(image)[:24]
        return np.concatenate([found, np.full((6, 8), found.mean() / 100)])

    assert probe(states, (90, 60)).placed((90, 60)).tolist() == [True] * 24 + [False] * 6
    assert len(looked) == 1 + 2 * 24 * 4


@pytest.mark.slow
def test_a_trained_encoder_is_laid_out_by_probing(mllm):
    """Its tokens know of each other; the band in pieces still tells where each of them looks."""
    probed = cm.load((mllm.model, mllm.processor), layout="probe")
    for size in ((192, 192), (300, 120)):
        image = Image.new("RGB", size)
        boxes = probed.prepare(image, "describe the object .").layout.boxes
        expected = mllm.prepare(image, "describe the object .").layout.boxes
        token = expected[0, 2] - expected[0, 0]
        assert np.median(np.abs(boxes - expected)) < 0.2 * token
        centre = (boxes[:, :2] + boxes[:, 2:] - expected[:, :2] - expected[:, 2:]) / 2
        assert (np.abs(centre) < 0.5 * token).all(1).mean() > 0.85


@pytest.mark.slow
def test_a_family_without_a_row_is_refused_by_name_or_probed(monkeypatch):
    monkeypatch.delitem(FAMILIES, "llava")
    with pytest.raises(cm.UnsupportedModelError, match=r"supported family \(vip.*got model_type 'llava'.*layout='probe'"):
        cm.load(tiny_llava())
    torch.manual_seed(0)
    model, processor = tiny_llava(image=64, patch=16)
    with torch.no_grad():
        for parameter in model.model.vision_tower.parameters():
            parameter.mul_(0.1 if parameter.dim() == 2 else 1)
    mllm = cm.load((model, processor), layout="probe")
    prompt = mllm.prepare(noise((60, 50)), "what is this ?")
    assert prompt.layout.rule.startswith("probed, confidence")
    trace = cm.optimize(mllm, prompt, cm.Box(10, 5, 30, 25), cm.ControlMLLMPlus(steps=2, step_size=0.05, contrast=0.0))
    assert trace.steps[-1].energy < trace.steps[0].energy
