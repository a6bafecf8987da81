"""The published runs, beside the published loops written out from their papers and code on eager attention.

Energies, latents and greedy answers of all steps, for every published run, box, mask, scribble and point, on the embedded
model and on a random LLaVA with the real geometry: 336 px, patches of 14, 576 visual tokens.
"""

import math

import numpy as np
import pytest
import torch
from test_region_reference import published as published_weights
from tests_support import noise
from tiny_families import TINY
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.methods import published_answer
from cmllm_tools.referring.defaults import RUNS

KINDS = ("box", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("mask", "scribble", "point")))
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def real_geometry():
    return cm.load(tiny_llava(width=32, image=336, patch=14)), noise((97, 61)), "what is the red object ?"


def embedded():
    scene = cm.bench.demo_scene()
    return cm.load(), scene.image, scene.question


@pytest.fixture(
    scope="module",
    params=[embedded, pytest.param(real_geometry, marks=pytest.mark.slow)],
    ids=["embedded", "336/14/576"],
)
def setting(request):
    """The model, the same model in eager attention, and its prompt."""
    mllm, image, question = request.param()
    eager = request.param()[0]
    eager.model.set_attn_implementation("eager")
    return mllm, eager, mllm.prepare(image, question)


def region_of(kind, size):
    width, height = size
    pixels = np.zeros((height, width), bool)
    pixels[height // 3 : height // 2 + 5, width // 3 : width // 2 + 9] = True
    points = [(0.4 * width, 0.4 * height), (0.6 * width, 0.5 * height), (0.5 * width, 0.6 * height)]
    return {
        "box": cm.Box(0.3 * width, 0.25 * height, 0.62 * width, 0.7 * height),
        "mask": cm.Mask(pixels),
        "scribble": cm.Scribble(points),
        "point": cm.Point(*points[0]),
    }[kind]


class Published:
    """What the published scripts have in hand: embeddings with the image in them, and where it is."""

    def __init__(self, eager, prompt):
        self.model = eager.model
        ids = prompt.inputs["input_ids"]
        at = (ids[0] == eager.image_token_id).nonzero().flatten().tolist()
        self.start, self.end, self.length = at[0], at[-1] + 1, ids.shape[1]
        with torch.no_grad():
            features = self.model.model.get_image_features(prompt.inputs["pixel_values"])
            features = getattr(features, "pooler_output", features)
            features = features[0] if isinstance(features, list | tuple) else features
            self.embeds = self.model.get_input_embeddings()(ids).clone()
            self.embeds[:, self.start : self.end] = features.reshape(1, -1, self.embeds.shape[-1])

    def with_visual(self, latent):
        return torch.cat(
            [self.embeds[:, : self.start], self.embeds[:, self.start : self.end] + latent, self.embeds[:, self.end :]], 1
        )

    def attention(self, latent, layers):
        """(head, token, token): mean over layers of the prompt's own attention."""
        maps = self.model.model.language_model(inputs_embeds=self.with_visual(latent), output_attentions=True).attentions
        return torch.cat([maps[layer] for layer in layers], 0).mean(0)

    def logits(self, latent, said):
        """(token + 1, word): what follows the prompt, and each token of an answer."""
        words = self.model.get_input_embeddings()(torch.tensor([said], dtype=torch.long))
        states = self.model.model.language_model(inputs_embeds=torch.cat([self.with_visual(latent), words], 1))
        return self.model.lm_head(states.last_hidden_state)[0, -len(said) - 1 :]

    def would_say(self, latent, said, most, alpha=0.0, beta=0.1):
        """Whether this is the greedy answer of at most so many tokens, or the contrastive one against the latent of zeros.

        One forward tells: it is, if each token is the likeliest after those before it.
        """
        with torch.no_grad():
            scores = self.logits(latent, said)
            if alpha:
                plain = self.logits(torch.zeros_like(latent), said)
                cut = scores < scores.max(-1, keepdim=True).values + math.log(beta)
                scores = ((1 + alpha) * scores - alpha * plain).masked_fill(cut, float("-inf"))
        stop = self.model.generation_config.eos_token_id
        return scores.argmax(-1)[:most].tolist() == [*said, stop][:most] and stop not in said


def gaussian(distance, sigma):
    return torch.exp(-(distance**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)


def energy_of(weights, soft, sigma, floor=0.0):
    """(1 - sum of what is inside, or near, over the sum)^2."""
    counted = gaussian(weights, sigma) if soft else weights
    return lambda seen: (1 - (seen * counted).sum() / (seen.sum() + floor)) ** 2


def gradient_run(theirs, energy, layers, alpha, beta, steps, threshold, in_place):
    """controlmllm/llava/roc/llava_roc.py: (energies, latents that the visual tokens carry, at each forward and at last)."""
    carried = torch.zeros(1, theirs.end - theirs.start, theirs.embeds.shape[-1])
    raw = torch.zeros_like(carried, requires_grad=True)
    history, energies, latents = raw, [], []
    for _ in range(steps):
        current = beta * raw + (1 - beta) * history
        carried = carried.detach() + current if in_place else current
        latents.append(carried.detach()[0].clone())
        seen = theirs.attention(carried, layers)[:, theirs.end : theirs.length, theirs.start : theirs.end].mean(0).mean(0)
        loss = alpha * energy(seen)
        energies.append(loss.item() / alpha)
        if abs(energies[-1] - energies[0]) / energies[0] > threshold:
            break
        history = current.detach()
        (gradient,) = torch.autograd.grad(loss, [raw])
        raw = (raw - gradient).detach().requires_grad_()
    last = (beta * raw + (1 - beta) * history).detach()
    latents.append((carried.detach() + last if in_place else last)[0])
    return energies, latents


def adam_run(theirs, energy, layers, lr, steps, alpha=400.0, beta1=0.9, beta2=0.999, eps=1e-3):
    """controlmllm++/llava/roc/llava_7b_roc.py: T - 1 updates; the last prompt token's attention."""
    latent = torch.zeros(1, theirs.end - theirs.start, theirs.embeds.shape[-1], requires_grad=True)
    m = s = torch.zeros_like(latent)
    energies, latents = [], []
    for t in range(1, steps + 1):
        latents.append(latent.detach()[0].clone())
        loss = alpha * energy(theirs.attention(latent, layers)[:, -1, theirs.start : theirs.end].mean(0))
        energies.append(loss.item() / alpha)
        (gradient,) = torch.autograd.grad(loss, [latent])
        m, s = beta1 * m + (1 - beta1) * gradient, beta2 * s + (1 - beta2) * gradient**2
        change = lr * (m / (1 - beta1**t)) / (torch.sqrt(s / (1 - beta2**t)) + eps)
        latent = (latent - change).detach().requires_grad_()
    latents.append(latent.detach()[0])
    return energies, latents


def hold(mllm, prompt, region, method, expected, theirs, alpha=0.0):
    """Our run, its latents and answers against theirs; the last answer is contrastive where `alpha` says so."""
    energies, latents = expected
    run = cm.Steering(mllm, prompt, region, method)
    found = [(step.energy, run.latent.clone()) for step in run]
    # An early stop's extra latent is a step of its own; where it adds nothing there is none.
    assert len(found) in (len(latents), len(energies))
    for (_, latent), other in zip(found, latents, strict=False):
        torch.testing.assert_close(latent, other, **CLOSE)
    for (energy, _), other in zip(found, energies, strict=False):
        assert energy == pytest.approx(other, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(run.trace.latent, latents[-1], **CLOSE)
    for latent in latents[:-1]:
        assert theirs.would_say(latent, mllm.generate(prompt, latent, max_new_tokens=6).ids, 6)
    answer = mllm.generate(prompt, run.method.done(latents[-1]), max_new_tokens=6)
    assert theirs.would_say(latents[-1], answer.ids, 6, alpha)


def weights_for(prompt, region, size):
    grid = prompt.layout.grid[0]
    return torch.from_numpy(published_weights(region, size, grid)).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("model", "task"), [(m, t) for m, tasks in RUNS["ControlMLLM"].items() for t in tasks if t])
def test_runs_of_controlmllm(setting, model, task, kind):
    """InstructBLIP's loop too, on these models: without accumulation, gradients scaled all the same."""
    mllm, eager, prompt = setting
    region = region_of(kind, prompt.image.size)
    # Of InstructBLIP's run what these models have: no CLS.
    method = cm.ControlMLLM.published(model, task, all_states=False)
    theirs = Published(eager, prompt)
    energy = energy_of(weights_for(prompt, region, prompt.image.size), region.soft, 0.1)
    steps = {"roc": 5, "rtc": 4, "demo": 5}[task]
    expected = gradient_run(theirs, energy, mllm.attention_layers, 400.0, 0.5, steps, 0.25, model == "llava-1.5")
    hold(mllm, prompt, region, method, expected, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["roc", "rtc", "refcocog", "screenspot"])
def test_runs_of_controlmllm_plus(setting, task, kind):
    mllm, eager, prompt = setting
    region, window = region_of(kind, prompt.image.size), (1, 3)
    method = cm.ControlMLLMPlus.published("llava-1.5", task, layers=window)
    theirs = Published(eager, prompt)
    energy = energy_of(weights_for(prompt, region, prompt.image.size), region.soft, 0.4)
    updates, alpha = {"roc": (3, 0.7), "rtc": (1, 0.7), "refcocog": (3, 0.1), "screenspot": (2, 0.1)}[task]
    expected = adam_run(theirs, energy, range(*window), 0.03, updates)
    hold(mllm, prompt, region, method, expected, theirs, alpha)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["box", "scribble"])
def test_runs_on_a_q_former(kind, tmp_path):
    """InstructBLIP: its queries' cross-attention without CLS, which the latent has; a mask stretched to the square."""
    model, processor = TINY["instructblip"]()
    mllm = cm.load((model, processor))
    prompt = mllm.prepare(noise((80, 60)), "describe the object .")
    region, call = region_of(kind, prompt.image.size), prompt.call
    weights = torch.from_numpy(published_weights(region, prompt.image.size, prompt.layout.grid[0], stretch=True)).float()
    energy = energy_of(weights, region.soft, 0.1)
    eager = TINY["instructblip"]()[0]
    eager.load_state_dict(model.state_dict())
    eager.set_attn_implementation("eager")
    arguments = {name: value for name, value in call.arguments.items() if "mask" not in name}

    class Theirs:
        start, end, embeds = 0, call.states.shape[1], call.states
        length = end + 1

        def attention(self, latent, layers):
            found = eager.qformer(**arguments, encoder_hidden_states=call.states + latent, output_attentions=True)
            looked = torch.cat([each for each in found.cross_attentions if each.shape[-1] == self.end], 0).mean((0, 1))
            # One row after the states, so that the loop's own means are over queries.
            looked = looked[: prompt.learned].mean(0)
            return torch.cat([torch.zeros(self.end, self.end), looked[None]])[None]

    # At the published alpha a random model's latent grows so far that its rounding does.
    alpha = 40.0
    method = cm.ControlMLLM.published("instructblip", "demo", early_stop=0.0, step_size=alpha)
    expected = gradient_run(
        Theirs(), lambda seen: energy(seen[1:]), mllm.attention_layers, alpha, 0.5, 5, math.inf, in_place=False
    )
    run = cm.Steering(mllm, prompt, region, method)
    for step, theirs, latent in zip(run, expected[0], expected[1], strict=False):
        assert step.energy == pytest.approx(theirs, rel=1e-4, abs=1e-6)
        torch.testing.assert_close(run.latent, latent, **CLOSE)
    torch.testing.assert_close(run.trace.latent, expected[1][-1], **CLOSE)
    assert len(run.trace.latent) == len(prompt.visual) + 1
    assert run.trace.latent[0].norm() > 0
    answer = run.answer()
    reopened = cm.Trace.load(run.trace.save(tmp_path / "run.safetensors"))
    assert mllm.generate(prompt, reopened) == answer
    with torch.no_grad(), run.intervention.opened(mllm, prompt):
        moved = mllm.model(**prompt.inputs, use_cache=False).logits
    assert not torch.equal(moved, mllm.model(**prompt.inputs, use_cache=False).logits)


@pytest.mark.parametrize("task", ["roc", "rtc", "refcocog", "screenspot"])
def test_runs_for_qwen(setting, task):
    """Its loop and energy (mean of regions, eps in the denominator), with the mask of the layout that these models have."""
    mllm, eager, prompt = setting
    regions, window = [region_of("box", prompt.image.size), region_of("mask", prompt.image.size)], (1, 3)
    method = cm.ControlMLLMPlus.published("qwen2.5-vl", task, layers=window)
    theirs = Published(eager, prompt)
    each = [energy_of(weights_for(prompt, region, prompt.image.size), False, 0.4, 1e-6) for region in regions]
    lr, updates = {"roc": (0.02, 1), "rtc": (0.03, 2), "refcocog": (0.03, 3), "screenspot": (0.03, 4)}[task]
    expected = adam_run(theirs, lambda seen: sum(energy(seen) for energy in each) / 2, range(*window), lr, updates)
    hold(mllm, prompt, regions, method, expected, theirs)


def test_every_published_run_has_the_settings_of_its_script():
    for model, task, expected in (
        ("llava-1.5", "roc", (5, 400.0, 0.5, 0.25, True)),
        ("llava-1.5", "rtc", (4, 400.0, 0.5, 0.25, True)),
        ("instructblip", "demo", (5, 400.0, 0.5, 0.25, False)),
    ):
        method = cm.ControlMLLM.published(model, task)
        assert (method.steps, method.step_size, method.ema, method.early_stop, method.accumulate) == expected
        assert (method.rule, method.queries, method.scale_gradient, method.sigma) == ("reference", "after_image", True, 0.1)
        assert method.all_states is (model == "instructblip")
    for model, task, expected in (
        ("llava-1.5", "roc", (0.03, 3, (14, 26), 0.7)),
        ("llava-1.5", "rtc", (0.03, 1, (14, 26), 0.7)),
        ("llava-1.5", "refcocog", (0.03, 3, (14, 26), 0.1)),
        ("llava-1.5", "screenspot", (0.03, 2, (14, 26), 0.1)),
        ("qwen2.5-vl", "roc", (0.02, 1, (12, 28), 0.0)),
        ("qwen2.5-vl", "rtc", (0.03, 2, (12, 28), 0.0)),
        ("qwen2.5-vl", "refcocog", (0.03, 3, (12, 28), 0.0)),
        ("qwen2.5-vl", "screenspot", (0.03, 4, (12, 28), 0.0)),
    ):
        method = cm.ControlMLLMPlus.published(model, task)
        assert (method.step_size, method.steps, method.layers, method.contrast) == expected
        assert (method.sigma, method.loss_scale, method.eps, method.betas) == (0.4, 400.0, 1e-3, (0.9, 0.999))
        assert (method.floor, method.average) == ((1e-6, True) if model == "qwen2.5-vl" else (0.0, False))
        assert published_answer(model, task) == {"max_new_tokens": 50 if task == "refcocog" else 30}
    assert published_answer("instructblip", "demo")["num_beams"] == 5
    for wrong in (("llava-1.5", "vqa"), ("gpt", "roc"), ("instructblip", "roc"), ("llava-1.5", ""), (3, 4)):
        with pytest.raises(cm.SettingsError, match="ControlMLLM was published for llava-1"):
            cm.ControlMLLM.published(*wrong)
    with pytest.raises(
        cm.SettingsError, match=r"Answers were published for tasks of llava-1\.5, instructblip, qwen2\.5-vl"
    ):
        published_answer("gpt", "roc")


def test_all_states_are_moved_where_they_are_no_part_of_the_sequence(mllm, prompt, box):
    with pytest.raises(cm.CaptureError, match="All states can be moved where they are no part of the text's sequence"):
        cm.optimize(mllm, prompt, box, cm.ControlMLLM(all_states=True))


def test_the_box_stands_in_the_question_as_published_for_qwen(mllm):
    request = cm.methods.Request(noise((90, 60)), "Is the object {place} a A or a B?", (cm.Box(10.7, 5, 40.2, 30),))
    asked = cm.ControlMLLMPlus.published("qwen2.5-vl", "roc").sent(request, mllm)
    assert asked.question == "Is the object box @ [10, 5, 40, 30] a A or a B?"
    assert cm.ControlMLLMPlus.published("llava-1.5", "roc").sent(request, mllm) is request


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adams_state_in_half_is_the_published_arithmetic(dtype):
    """All of it in the dtype, as the published code's tensors have the embeddings'; small gradients then go too far."""
    generator = torch.Generator().manual_seed(0)
    gradients = [1e-5 * torch.randn(1, 4, 8, generator=generator) for _ in range(3)]
    found = {}
    for name in ("float32", str(dtype).removeprefix("torch.")):
        updates = cm.ControlMLLMPlus(step_size=0.03, state=name).start(torch.zeros(1, 4, 8))
        for gradient in gradients:
            updates.update(gradient)
        found[name] = updates.latent
        assert updates.latent.dtype == torch.float32
    latent = m = s = torch.zeros(1, 4, 8, dtype=dtype)
    for t, gradient in enumerate(gradients, 1):
        scaled = (400.0 * gradient).to(dtype)
        m, s = 0.9 * m + (1 - 0.9) * scaled, 0.999 * s + (1 - 0.999) * scaled.pow(2)
        latent = latent - 0.03 * (m / (1 - 0.9**t)) / (torch.sqrt(s / (1 - 0.999**t)) + 1e-3)
    half = found[str(dtype).removeprefix("torch.")]
    assert torch.allclose(half, latent.float(), rtol=0.05, atol=2e-3)
    if dtype == torch.float16:
        # The second moment has underflowed.
        assert half.norm() > 1.5 * found["float32"].norm()
