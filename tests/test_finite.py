"""Numbers that overflow after the last attention: no answer, score or map is made of logits that are not finite."""

import copy

import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.analysis import attribute, grad_cam, relevancy, sweep_windows, token_activation
from cmllm_tools.models.finite import all_finite, check_logits, finite_runs
from cmllm_tools.models.scoring import AnswerScore

PARTS = {"nan in the last layer": "model.language_model.layers.5.mlp.down_proj", "inf in the head": "lm_head"}


@pytest.fixture(scope="module", params=PARTS.values(), ids=PARTS)
def broken(mllm, example, request):
    """The embedded model, whose attention is finite and whose logits are not."""
    model = copy.deepcopy(mllm.model)
    value = float("inf") if request.param == "lm_head" else float("nan")
    with torch.no_grad():
        model.get_submodule(request.param).weight[0] = value
    other = cm.Mllm(model, mllm.processor)
    return other, other.prepare(example.image, "describe the object."), example


def zeros(prompt):
    return torch.zeros_like(prompt.zero_latent())


USES = {
    "greedy": lambda mllm, prompt, example: mllm.generate(prompt),
    "sampled": lambda mllm, prompt, example: mllm.generate(prompt, do_sample=True),
    "beams": lambda mllm, prompt, example: mllm.generate(prompt, num_beams=2),
    "contrast": lambda mllm, prompt, example: mllm.generate(prompt, zeros(prompt), 0.5),
    "score": lambda mllm, prompt, example: AnswerScore(mllm, prompt, "red cross")(zeros(prompt)[None]),
    "relevancy": lambda mllm, prompt, example: relevancy(mllm, prompt, "red"),
    "token_activation": lambda mllm, prompt, example: token_activation(mllm, prompt, "red"),
    "grad_cam": lambda mllm, prompt, example: grad_cam(mllm, prompt, "red"),
    "attribute": lambda mllm, prompt, example: attribute(mllm, prompt, "red", "input_x_gradient", progress=False),
    "sweep": lambda mllm, prompt, example: sweep_windows(mllm, [example.example()], [(0, 1)], progress=False),
    "self_check": lambda mllm, prompt, example: cm.self_check(mllm),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_logits_that_are_not_finite_are_named(broken, use):
    mllm, prompt, _ = broken
    assert cm.capture_attention(mllm, prompt).values.isfinite().all()
    with pytest.raises(cm.CmllmError, match=r"logits must be finite, .*dtype torch\.float32\)\. The model's weights"):
        use(*broken)


def test_tokens_that_a_model_rules_out_are_no_fault():
    ruled_out = torch.tensor([[1.0, float("-inf")]])
    assert check_logits(ruled_out, torch.float32) is ruled_out
    with pytest.raises(cm.NotFiniteError, match="load the model in bfloat16 or float32"):
        check_logits(torch.tensor([float("nan"), 1.0]), torch.float16)


def test_a_run_of_a_sweep_may_overflow_alone(mllm, prompt):
    latents = zeros(prompt).repeat(2, 1, 1)
    score = AnswerScore(mllm, prompt, "red cross")
    plain = score(latents)
    second = torch.tensor([1])
    handle = mllm.model.lm_head.register_forward_hook(lambda _, given, output: output.index_fill(0, second, torch.nan))
    try:
        found = score(latents, finite=False)
        with pytest.raises(cm.NotFiniteError):
            score(latents)
    finally:
        handle.remove()
    assert found[0] == plain[0]
    assert found[1].isnan()


def test_a_contrast_that_overflows_is_refused(mllm, prompt):
    with pytest.raises(cm.NotFiniteError, match="logits must be finite"):
        mllm.generate(prompt, zeros(prompt) + 0.01, contrast=1e308)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_runs_that_are_not_finite_are_found_by_their_sums(wrong):
    values = torch.randn(3, 4, 5)
    assert finite_runs(values).tolist() == [True] * 3
    assert all_finite(values)
    values[1, 2, 3] = wrong
    assert finite_runs(values).tolist() == [True, False, True]
    assert not all_finite(values)
    values[1, 0, 0] = -wrong
    assert not all_finite(values)


def test_a_sum_that_overflows_says_nothing():
    values = torch.full((2, 2, 100), 3e38)
    assert not values.sum().isfinite()
    assert finite_runs(values).tolist() == [True, True]
    assert all_finite(values)
    assert all_finite(torch.tensor(1.0))
    assert all_finite(torch.zeros(0, 3))
