"""Batches of copies, and answers' log-probabilities, held against generation and against runs one by one."""

import pytest
import torch
from conftest import assert_same, snapshot
from transformers import LogitsProcessor, LogitsProcessorList

import cmllm_tools as cm
from cmllm_tools.attention.recorder import capture
from cmllm_tools.models.batch import _NotTwice, copies, widened
from cmllm_tools.models.latent_states import latent_added
from cmllm_tools.models.scoring import AnswerScore
from cmllm_tools.models.undisturbed import undisturbed

ANSWER = "red cross at the right"


class Forced(LogitsProcessor):
    """Makes generation say the given tokens, and keeps how likely each was."""

    def __init__(self, ids):
        self.ids, self.found = ids, []

    def __call__(self, input_ids, scores):
        token = self.ids[len(self.found)]
        self.found.append(scores[0].log_softmax(-1)[token].item())
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([token]), 0.0)


def said(mllm, prompt, ids, latent):
    """Log-probability of each token, as generation with its cache finds it."""
    forced = Forced(ids)
    with torch.no_grad(), undisturbed(mllm.model), latent_added(prompt.call, latent):
        mllm.model.generate(
            **prompt.inputs,
            max_new_tokens=len(ids),
            do_sample=False,
            logits_processor=LogitsProcessorList([forced]),
        )
    return torch.tensor(forced.found)


def latents(prompt, count, size=0.5):
    zero = prompt.zero_latent().detach()
    noise = torch.randn(count, *zero.shape, generator=torch.Generator().manual_seed(0))
    return size * noise * prompt.call.visual_states.float().std()


def test_each_copy_attends_as_it_does_alone(mllm, prompt):
    batch = latents(prompt, 3)
    rows = prompt.positions("text")
    together = capture(mllm, copies(mllm, prompt, 3), mllm.attention_layers, None, rows, prompt.visual, batch)
    for number, latent in enumerate(batch):
        alone = cm.capture_attention(mllm, prompt, latent=latent).values
        for layer, values in zip(together.layers, alone, strict=True):
            torch.testing.assert_close(together.captured[layer][number], values, atol=1e-6, rtol=1e-4)


def test_the_score_is_what_generation_finds(mllm, prompt):
    before = snapshot(mllm)
    score = AnswerScore(mllm, prompt, ANSWER)
    batch = latents(prompt, 2)
    found = score.tokens(batch)
    for number, latent in enumerate(batch):
        torch.testing.assert_close(found[number], said(mllm, prompt, score.ids, latent), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(score(batch), found.sum(-1))
    assert_same(before, snapshot(mllm))


def test_a_score_may_be_asked_for_batches_of_any_size(mllm, prompt):
    score, batch = AnswerScore(mllm, prompt, "red cross"), latents(prompt, 3)
    expected = torch.cat([score(latent[None]) for latent in batch])
    assert expected.std() > 1e-3
    torch.testing.assert_close(score(batch), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(score(batch[:2]), expected[:2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (torch.tensor([300, 301]), torch.tensor([300, 301, 302, 303])),
        (torch.tensor(300), torch.tensor(302)),
        (torch.full((1, 3), 0.005), torch.tensor([[0.005] * 3, [0.006] * 3])),
        (torch.zeros(1, 3), torch.zeros(2, 4)),
        ({"rows": 1}, {"rows": 2}),
    ],
    ids=["positions", "a count", "small states", "shape", "a number"],
)
def test_what_two_copies_do_not_share_is_recorded_again(one, two):
    with pytest.raises(_NotTwice):
        widened(one, two, 4)


def test_what_two_copies_share_is_repeated():
    one = {"states": torch.rand(1, 3), "mask": torch.tensor([[0.0, -torch.inf]]), "flag": True}
    two = {"states": torch.cat([one["states"]] * 2) * (1 + 1e-4), "mask": one["mask"], "flag": True}
    four = widened(one, two, 4)
    torch.testing.assert_close(four["states"], one["states"].expand(4, 3))
    assert torch.equal(four["mask"], one["mask"])
    assert four["flag"] is True


def test_copies_are_made_of_one_prompt(mllm, prompt):
    with pytest.raises(cm.PromptError, match="got 2 copies already"):
        copies(mllm, copies(mllm, prompt, 2), 3)


def test_the_score_is_differentiable(mllm, prompt):
    score = AnswerScore(mllm, prompt, "red cross")
    latent = latents(prompt, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(score(latent).sum(), latent)
    direction = gradient / gradient.norm()
    step = 1e-2
    difference = (score((latent + step * direction).detach()) - score((latent - step * direction).detach())) / (2 * step)
    assert difference.item() == pytest.approx(gradient.norm().item(), rel=1e-2)


def test_the_vision_encoder_runs_once_for_all_scores_of_a_batch(mllm, prompt):
    runs = []
    tower = mllm.model.model.vision_tower
    score = AnswerScore(mllm, prompt, "red cross")
    handle = tower.register_forward_hook(lambda module, arguments, output: runs.append(arguments))
    inner = next(module for module in tower.modules() if isinstance(module, torch.nn.Conv2d))
    inner_handle = inner.register_forward_hook(lambda *_: runs.append("encoder"))
    try:
        for _ in range(3):
            score(latents(prompt, 2))
    finally:
        handle.remove()
        inner_handle.remove()
    assert runs.count("encoder") == 1


def test_a_score_that_fails_leaves_the_model_as_found(mllm, prompt):
    before = snapshot(mllm)
    score = AnswerScore(mllm, prompt, "red cross")
    with pytest.raises(cm.CaptureError, match="A latent must have shape"):
        score(torch.zeros(1, 3, 4))
    assert_same(before, snapshot(mllm))
    assert not any("forward" in vars(module) for module in mllm.model.modules())


def test_a_latent_without_an_axis_of_copies_is_refused(mllm, prompt):
    score, latent = AnswerScore(mllm, prompt, "red cross"), prompt.zero_latent().detach()
    for other in (latent, latent[None][:0]):
        with pytest.raises(cm.CaptureError, match="one or more; got shape"):
            score(other)


def test_an_empty_answer_is_refused(mllm, prompt):
    with pytest.raises(cm.PromptError, match="at least one word"):
        AnswerScore(mllm, prompt, "")
