"""The published configuration, against the published loop written out with autograd and none of this package's steps."""

import re

import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.evaluation.matching import reference_match, strict_match
from cmllm_tools.referring.defaults import METHOD_DEFAULTS, published_settings
from cmllm_tools.referring.registry import method_from_json

REGION = cm.Box(8, 8, 24, 24)


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava(width=16))
    return mllm, mllm.prepare(noise((32, 32)), "what is the red object ?")


def published(mllm, prompt, inside, alpha, beta, steps, threshold, in_place=True):
    """Latents that the visual tokens carry at each forward and in the answer; controlmllm/llava/roc/llava_roc.py."""
    model, ids = mllm.model, prompt.inputs["input_ids"]
    embeds = prompt.call.states.clone()
    start, end = prompt.visual[0], prompt.visual[-1] + 1
    carried = torch.zeros(1, end - start, embeds.shape[-1])
    visual_prompt = torch.zeros_like(carried, requires_grad=True)
    history, losses, used = visual_prompt, [], []
    for _ in range(steps):
        current = beta * visual_prompt + (1 - beta) * history
        carried = carried.detach() + current if in_place else current
        used.append(carried.detach()[0].clone())
        given = torch.cat([embeds[:, :start], embeds[:, start:end] + carried, embeds[:, end:]], 1)
        maps = torch.cat(model.model.language_model(inputs_embeds=given, output_attentions=True).attentions, 0).mean(0)
        seen = maps[:, end : ids.shape[1], start:end].mean(0).mean(0)
        loss = alpha * (1 - (seen * inside).sum() / seen.sum()) ** 2
        losses.append(loss.item())
        if abs((losses[-1] - losses[0]) / losses[0]) * 100 > threshold * 100:
            break
        history = current.detach()
        (gradient,) = torch.autograd.grad(loss, [visual_prompt])
        visual_prompt = (visual_prompt - gradient).detach().requires_grad_()
    last = (beta * visual_prompt + (1 - beta) * history).detach()
    used.append((carried.detach() + last if in_place else last)[0])
    return used, losses


@pytest.fixture(scope="module")
def eager():
    model, processor = tiny_llava(width=16)
    model.set_attn_implementation("eager")
    return cm.load((model, processor))


@pytest.mark.parametrize("threshold", [1e9, 0.02, 0.2])
@pytest.mark.parametrize("in_place", [True, False], ids=["llava", "instructblip"])
def test_reference_is_the_published_loop(tiny, eager, threshold, in_place):
    """Early stopping adds the last average once more, where latents accumulate; the trace ends with what is answered."""
    mllm, prompt = tiny
    inside = torch.from_numpy(prompt.layout.inside(REGION, "reference")).float()
    alpha, beta, steps = 40.0, 0.5, 5
    used, losses = published(eager, prompt, inside, alpha, beta, steps, threshold, in_place)
    stopped = len(losses) < steps or abs(losses[-1] - losses[0]) / losses[0] > threshold
    assert stopped is (threshold < 1)
    method = cm.ControlMLLM.published(step_size=alpha, ema=beta, steps=steps, early_stop=threshold)
    if not in_place:
        method = cm.ControlMLLM.published(step_size=alpha, ema=beta, steps=steps, early_stop=threshold, accumulate=False)
    run = cm.Steering(mllm, prompt, REGION, method)
    latents = [(step.energy, run.latent.clone()) for step in run]
    for (energy, latent), loss, theirs in zip(latents, losses, used, strict=False):
        assert energy == pytest.approx(loss / alpha, rel=1e-4)
        assert torch.allclose(latent, theirs, atol=1e-5)
    assert torch.allclose(run.trace.latent, used[-1], atol=1e-5)
    assert run.trace.steps[-1].latent_norm == pytest.approx(used[-1].norm().item(), rel=1e-4)
    # The extra latent is a step; where it is replaced and not added, there is none to take.
    assert len(run.trace) == len(losses) + (0 if stopped and not in_place else 1)
    assert run.trace.stopped == ("early stop: energy changed enough" if stopped else "finished")


def test_an_early_stop_after_one_update_doubles_the_latent(tiny):
    mllm, prompt = tiny
    trace = cm.optimize(mllm, prompt, REGION, cm.ControlMLLM.published(steps=5, step_size=40.0, early_stop=1e-6))
    assert [step.number for step in trace.steps] == [0, 1, 2]
    assert trace.steps[2].latent_norm == pytest.approx(2 * trace.steps[1].latent_norm, rel=1e-6)
    assert trace.steps[2].gradient_norm is None


def test_reference_leaves_to_each_family_what_its_own_script_does(mllm):
    method = cm.ControlMLLM.published()
    assert method_from_json(method.to_json()) == method
    resolved = method.resolve(mllm)
    assert (resolved.accumulate, resolved.scale_gradient, resolved.rule) == (True, True, "reference")
    assert (resolved.average, resolved.floor, resolved.queries) == (False, 0.0, "after_image")
    assert not cm.ControlMLLM().resolve(mllm).accumulate
    assert cm.ControlMLLM.published(task="rtc").steps == 4
    with pytest.raises(cm.SettingsError, match="task must be 'roc' or 'rtc'; got 'vqa'"):
        cm.ControlMLLM.published(task="vqa")
    assert published_settings("instructblip")["accumulate"] is False
    assert published_settings("llava") == {"accumulate": True, "average": False, "floor": 0.0}
    assert METHOD_DEFAULTS["llava", 32, 4096]["ControlMLLM"]["steps"] == 5
    qwen = published_settings("qwen2_5_vl")
    assert (qwen["average"], qwen["floor"]) == (True, 1e-6)


def test_energies_are_averaged_and_their_denominator_raised_as_published_for_qwen(tiny):
    mllm, prompt = tiny
    regions = [REGION, cm.Box(0, 0, 8, 8)]
    values = torch.rand(16, generator=torch.Generator().manual_seed(0)) * 1e-6
    inside = [torch.from_numpy(prompt.layout.inside(region)).float() for region in regions]
    expected = sum((1 - (values * each).sum() / (values.sum() + 1e-6)) ** 2 for each in inside) / 2
    target = cm.ControlMLLMPlus(average=True, floor=1e-6).resolve(mllm).target(prompt.layout, regions).to(values)
    assert target.energy(values).item() == pytest.approx(expected.item(), rel=1e-5)


def their_match(answer, name, synonyms):
    """controlmllm/llava/roc/eval.py, written out."""
    answer = re.sub(r"\s+not[^,.]*[,.]", "", answer)
    answer = re.sub(r"\s+no[^,.]*[,.]", "", answer)
    listed = []
    for each in synonyms:
        if "(" in each:
            before, after = each.split("(")
            listed += [before.replace("_", " ").strip(), after.replace("_", " ").replace(")", "").strip()]
        else:
            listed.append(each.replace("_", " ").strip())
    return name.replace("_", " ").strip() in answer or any(each in answer for each in listed)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("It is a bat.", True),
        ("An animal", True),
        ("It is a Bat.", False),
        # "no" is looked for in what is left when the clause with "not" is gone: together they would leave the bat.
        ("A dog no cat not seen, really a bat.", False),
        ("There is no bat, but a ball.", False),
        ("It is not a ball, it is a flying fox.", True),
        ("a combat", True),
        ("bat", True),
    ],
)
def test_published_matcher(answer, right):
    names = ["bat_(animal)", " flying_fox "]
    assert their_match(answer, names[0], names) is right
    assert reference_match(answer, names) is right


def test_published_matcher_of_labels_that_are_no_synonyms():
    assert reference_match("It says OPEN (24h", "OPEN_(24h")
    assert not reference_match("It says OPEN", "OPEN_(24h")
    assert not strict_match("It says OPENING", ["OPEN"], [])
    with pytest.raises(cm.DataError, match=r"one parenthesis, as in 'bat_\(animal\)'; got 'a\(b'"):
        reference_match("a", ["a(b"])
