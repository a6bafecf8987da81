import pytest
import torch
from conftest import assert_same, snapshot
from PIL import Image
from tests_support import noise
from tiny_families import TINY
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.analysis import relevancy, rollout
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.models.latent_states import latent_added


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


def eager(mllm, prompt, latent):
    """Logits of the last token, and each layer's attention in their graph, by transformers' own eager attention."""
    mllm.model.set_attn_implementation("eager")
    try:
        with latent_added(prompt.call, latent):
            out = mllm.model(**prompt.inputs, output_attentions=True, use_cache=False)
    finally:
        mllm.model.set_attn_implementation("sdpa")
    return out.logits[0, -1], out.attentions


@pytest.mark.parametrize("residual", [0.5, 0.2])
def test_rollout_is_the_product_of_eager_attention(tiny, residual):
    mllm, prompt = tiny
    latent = 0.2 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    before = snapshot(mllm)
    cmap = rollout(mllm, prompt, "text", residual=residual, latent=latent)
    assert_same(before, snapshot(mllm))
    product = torch.eye(len(prompt.tokens))
    for weights in eager(mllm, prompt, latent)[1]:
        mixed = residual * torch.eye(len(prompt.tokens)) + (1 - residual) * weights[0].detach().mean(0)
        product = mixed @ product
    expected = product[list(prompt.text_span)].mean(0)[list(prompt.visual)]
    assert torch.allclose(cmap.values, expected, atol=1e-6)
    assert cmap.words == prompt.words(prompt.text_span)
    assert not cmap.values.requires_grad


@pytest.mark.parametrize("answer", [None, "red circle"])
def test_relevancy_is_the_formula_on_eager_attention(tiny, answer):
    mllm, prompt = tiny
    latent = 0.2 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    before = snapshot(mllm)
    cmap = relevancy(mllm, prompt, answer, latent=latent)
    assert_same(before, snapshot(mllm))
    logits, attentions = eager(mllm, prompt, latent)
    token = int(logits.argmax()) if answer is None else mllm.processor.tokenizer.convert_tokens_to_ids("red")
    relevance = torch.eye(len(prompt.tokens))
    for weights, gradient in zip(attentions, torch.autograd.grad(logits[token], attentions), strict=True):
        relevance = relevance + (weights * gradient)[0].clamp_min(0).mean(0).detach() @ relevance
    row = relevance[-1] - torch.eye(len(prompt.tokens))[-1]
    assert torch.allclose(cmap.values, (row / row.sum())[list(prompt.visual)], atol=1e-5)
    assert cmap.words == (mllm.processor.tokenizer.decode([token]),)


@pytest.mark.slow
def test_relevancy_of_a_named_object_lies_on_it(mllm):
    """For the name's second word, which has to be read off the image."""
    found = []
    for example in (line.example() for line in read_roc(HELDOUT)[:20]):
        color, kind = example.answer.split()
        prompt = mllm.prepare(example.image, f"what shape is the {color} object ?")
        cmap = relevancy(mllm, prompt, kind)
        found.append(cm.region_share(cmap, example.region) / prompt.layout.inside(example.region).mean())
    assert min(found) > 3


@pytest.mark.parametrize("name", ["mllama", "instructblip"])
def test_families_without_visual_tokens_in_the_sequence_are_refused(name):
    mllm = cm.load(TINY[name]())
    prompt = mllm.prepare(Image.new("RGB", (80, 80), "red"), "describe the object .")
    for follow in (rollout, relevancy):
        with pytest.raises(cm.CaptureError, match=f"those of {name} are seen by"):
            follow(mllm, prompt)


def test_padding_changes_nothing(tiny):
    mllm, prompt = tiny
    padded = mllm.prepare(prompt.image, prompt.question, padding="max_length", max_length=40, padding_side="left")
    assert len(padded.tokens) > len(prompt.tokens)
    for follow in (rollout, relevancy):
        assert torch.allclose(follow(mllm, padded).values, follow(mllm, prompt).values, atol=1e-5)


def test_bad_settings_are_refused(tiny):
    with pytest.raises(cm.SettingsError, match="residual must be at least 0 and below 1; got 1"):
        rollout(*tiny, residual=1)
    with pytest.raises(cm.PromptError, match="'zebra'"):
        rollout(*tiny, "zebra")
    with pytest.raises(cm.PromptError, match="at least one word; got ''"):
        relevancy(*tiny, "")
