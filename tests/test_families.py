"""The conformance suite: every family must pass every check, on a tiny random model loaded by `from_pretrained`."""

import re
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from PIL import Image
from test_scoring import latents, said
from tiny_families import TINY, at_hand
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig
from transformers.image_processing_backends import TorchvisionBackend
from transformers.utils import is_torchvision_available

import cmllm_tools as cm
from cmllm_tools.analysis import Example, sweep_windows
from cmllm_tools.attention.recorder import capture, kernel_errors
from cmllm_tools.causes import ablate, knockout, knockout_grid, patch
from cmllm_tools.causes.tokens import keys_of, queries_of
from cmllm_tools.layout.grid_rules import square_grid
from cmllm_tools.layout.placement import LayoutInputs
from cmllm_tools.layout.probe import probe
from cmllm_tools.models import places as places_module
from cmllm_tools.models import prepare as prepare_module
from cmllm_tools.models.batch import copies, followed_by
from cmllm_tools.models.families import FAMILIES
from cmllm_tools.models.family import ACTIVATION, CAM, KNOCKOUT, LENS, PATCHING, TILES
from cmllm_tools.models.latent_states import latent_added
from cmllm_tools.models.lookup import family_for
from cmllm_tools.models.other_image import AgainstImage
from cmllm_tools.models.processors import VIDEO, processor_class
from cmllm_tools.models.scoring import AnswerScore, continuation
from cmllm_tools.models.template import prompt_text

pytestmark = pytest.mark.slow
QUESTION = "describe the object ."
SIZES = {"square": (80, 80), "wide": (150, 60), "tall": (50, 130)}
METHOD = cm.ControlMLLMPlus(steps=5, step_size=0.05, layers=(), contrast=0.0)


def picture(size):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


@pytest.fixture(scope="module", params=at_hand())
def family(request, tmp_path_factory):
    """(mllm, prompt) of one family, saved and loaded back."""
    folder = tmp_path_factory.mktemp(request.param.replace("-", "_"))
    model, processor = TINY[request.param]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    mllm = cm.load(folder)
    assert mllm.model.config.model_type == request.param
    prompt = mllm.prepare(picture(SIZES["square"]), QUESTION)
    # transformers hangs hooks of its own on a model at its first forward.
    own_logits(mllm, prompt)
    before = snapshot(mllm)
    yield mllm, prompt
    assert_same(before, snapshot(mllm))


def test_processor_is_on_torchvision_where_that_is_at_hand(family):
    processor = family[0].processor
    assert isinstance(getattr(processor, "image_processor", None), TorchvisionBackend) == is_torchvision_available()
    if VIDEO in processor_class(type(processor).__name__).get_attributes():
        assert (getattr(processor, VIDEO, None) is not None) == is_torchvision_available()


def box_of(prompt):
    """A box in the upper left of what the model sees."""
    x0, y0, x1, y1 = prompt.layout.seen
    return cm.Box(x0, y0, x0 + 0.6 * (x1 - x0), y0 + 0.6 * (y1 - y0))


def lower_part(prompt):
    """The lower part of what the model sees, whose tokens come last: those that a window of keys is on."""
    x0, y0, x1, y1 = prompt.layout.seen
    return cm.Box(x0, y1 - 0.5 * (y1 - y0), x1, y1)


@contextmanager
def eager(mllm):
    """While open, the whole model draws its attention eagerly."""

    def parts(config):
        inner = [getattr(config, name, None) for name in config.sub_configs]
        return [config, *(part for each in inner if each is not None for part in parts(each))]

    before = [(config, config._attn_implementation) for config in parts(mllm.model.config)]
    mllm.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name


def eager_weights(mllm, prompt):
    """{layer: (head, query, key)}: what transformers' own eager attention returns in the model's own forward."""
    weights = {}

    def keep(module, arguments, output):
        weights[mllm.attention_modules[module]] = output[1][0].detach()

    handles = [module.register_forward_hook(keep) for module in mllm.attention_modules]
    try:
        with eager(mllm), torch.no_grad():
            mllm.model(**prompt.inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return weights


def assert_equals_eager(mllm, prompt, tolerance):
    rows = prompt.positions("text")
    attention = cm.capture_attention(mllm, prompt, queries=list(rows))
    expected = eager_weights(mllm, prompt)
    assert attention.layers == tuple(sorted(expected))
    assert attention.values.shape[1] == mllm.heads
    for values, layer in zip(attention.values, attention.layers, strict=True):
        own = expected[layer][:, list(rows)][..., list(prompt.visual)]
        assert (values - own).abs().max() < tolerance
        # Far from uniform, or the comparison would say little.
        assert own.std() > 0


def test_attention_equals_eager_attention(family):
    mllm, prompt = family
    assert_equals_eager(mllm, prompt, 1e-5)


def test_attention_equals_eager_attention_of_an_eager_model(family):
    mllm, prompt = family
    with eager(mllm):
        assert_equals_eager(mllm, mllm.prepare(prompt.image, QUESTION), 1e-5)
        if prompt.call.attention != "eager":
            with pytest.raises(cm.CaptureError, match="prepared for"):
                cm.capture_attention(mllm, prompt)


class PaddedAfterwards:
    """A processor whose prompts are padded on the left when it is done with them."""

    def __init__(self, processor, length):
        self.processor, self.length = processor, length

    def __getattr__(self, name):
        return getattr(self.processor, name)

    def __call__(self, **options):
        batch = self.processor(**options)
        missing = self.length - batch["input_ids"].shape[1]
        for name in {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"} & set(batch):
            value = self.tokenizer.pad_token_id if name == "input_ids" else 0
            batch[name] = torch.nn.functional.pad(batch[name], (missing, 0), value=value)
        return batch


def test_attention_equals_eager_attention_under_padding(family):
    mllm, prompt = family
    length = len(prompt.tokens) + 5
    options = {"padding": "max_length", "max_length": length, "padding_side": "left"}
    processed = mllm.processor(images=prompt.image, text=prompt.text, return_tensors="pt", **options)
    if processed["input_ids"].shape[1] == len(prompt.tokens):
        # Some processors pad a prompt to the longest of its batch, whatever they are told.
        mllm, options = cm.load((mllm.model, PaddedAfterwards(mllm.processor, length))), {}
    padded = mllm.prepare(prompt.image, QUESTION, **options)
    assert len(padded.tokens) == length
    assert [padded.tokens[i] for i in padded.text_span] == [prompt.tokens[i] for i in prompt.text_span]
    assert_equals_eager(mllm, padded, 1e-5)


def test_attention_equals_eager_attention_in_bfloat16(family):
    mllm = in_precision(family[0], torch.bfloat16)
    # Kernels round differently, and every layer multiplies that: both sides run the same one.
    with eager(mllm):
        assert_equals_eager(mllm, mllm.prepare(family[1].image, QUESTION), 3e-2)


def in_precision(mllm, dtype):
    """A copy, as a way back would not restore buffers that no checkpoint holds."""
    model = deepcopy(mllm.model).to(dtype)
    # The grouped kernel of experts has no float64.
    model.set_experts_implementation("eager")
    return cm.load((model, mllm.processor))


def test_rows_give_what_the_models_kernel_draws(family):
    """Rows over all keys, multiplied with the values, equal the kernel's output; without sinks they sum to one."""
    mllm, prompt = family
    errors = kernel_errors(mllm, prompt, prompt.positions("text"))
    assert tuple(sorted(errors)) == mllm.attention_layers
    assert max(errors.values()) < 1e-5
    recorder = capture(mllm, prompt, mllm.attention_layers, None, prompt.positions("text"), None)
    for rows in recorder.captured.values():
        assert rows.shape[-1] > max(prompt.visual)
        torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows.sum(-1)), atol=1e-5, rtol=0)


def test_contrastive_decoding_compares_with_the_unsteered_model(family, monkeypatch):
    """The second row of the batch gives the logits of the model without the latent, or the family is said not to."""
    mllm, prompt = family
    latent = 5 * torch.randn_like(prompt.zero_latent().detach()) * prompt.call.visual_states.float().std()
    contrast = cm.Contrast(0.5)
    if not mllm.family.contrast:
        with pytest.raises(cm.SettingsError, match="does not keep apart"):
            mllm.generate(prompt, latent, contrast)
        return
    seen = []

    def combine(self, steered, plain):
        seen.append((steered, plain))
        return steered

    monkeypatch.setattr(cm.Contrast, "combine", combine)
    mllm.generate(prompt, latent, contrast, max_new_tokens=1)
    steered, plain = seen[0]
    torch.testing.assert_close(plain, own_logits(mllm, prompt)[-1].float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(steered, own_logits(mllm, prompt, latent)[-1].float(), atol=1e-4, rtol=1e-4)
    assert (steered - plain).abs().max() > 1e-3


def test_an_attention_bias_is_the_softmax_written_out(family):
    """In the first layer that looks at visual states; and generation, with a cache, has the logits of one forward."""
    mllm, prompt = family
    bias = torch.linspace(-1, 2, len(prompt.visual), device=prompt.call.states.device)
    layer, head = mllm.attention_layers[0], mllm.heads - 1
    before = cm.capture_attention(mllm, prompt, layers=[layer]).values[0]
    one = cm.AttentionBias(bias, layers=(layer,), heads=(head,))
    after = cm.capture_attention(mllm, prompt, layers=[layer], latent=one).values[0]
    raised = before * bias.exp()
    expected = raised / (1 - before.sum(-1, keepdim=True) + raised.sum(-1, keepdim=True))
    torch.testing.assert_close(after[head], expected[head], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(after[:head], before[:head], atol=1e-6, rtol=0)
    scores, edit = [], cm.AttentionBias(4 * bias)

    def keep(ids, logits):
        scores.append(logits[0].clone())
        return logits

    with edit.opened(mllm, prompt):
        expected = own_logits(mllm, prompt)[-1].float()
    assert (expected - own_logits(mllm, prompt)[-1].float()).abs().max() > 1e-4
    if mllm.family.processors:
        mllm.generate(prompt, edit, max_new_tokens=2, logits_processor=[keep])
        torch.testing.assert_close(scores[0].float(), expected, atol=1e-4, rtol=1e-4)
    else:
        with pytest.raises(cm.SettingsError, match="must be one that the model's generate heeds"):
            mllm.generate(prompt, edit, logits_processor=[keep])


def test_attention_is_knocked_out(family):
    """The softmax without those keys in the first layer that looks at them; a grid's cells are what whole forwards say."""
    mllm, prompt = family
    layer, head = mllm.attention_layers[0], mllm.heads - 1
    some = {"layers": [layer], "heads": [0, head], "answer": "red cross", "progress": False}
    grid = knockout_grid(mllm, prompt, "text", lower_part(prompt), **some)
    rows, keys = queries_of(mllm, prompt, "text"), keys_of(mllm, prompt, lower_part(prompt))
    cut = cm.causes.AttentionCut(rows.positions, keys, rows.onwards, (layer,), (head,))
    assert grid.values[0, -1] == pytest.approx(continuation(mllm, prompt, "red cross", cut).sum().item(), abs=1e-4)
    before = cm.capture_attention(mllm, prompt, layers=[layer]).values[0]
    after = cm.capture_attention(mllm, prompt, layers=[layer], latent=cut).values[0]
    kept = before.masked_fill(torch.tensor([position in keys for position in prompt.visual]), 0)
    expected = kept / (1 - (before - kept).sum(-1, keepdim=True))
    torch.testing.assert_close(after[head], expected[head], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(after[:head], before[:head], atol=1e-6, rtol=0)
    # Those that are left with nothing to look at draw nothing, which is no error.
    assert np.isfinite(knockout(mllm, prompt, "all", "image", answer="red cross").after)
    if KNOCKOUT in mllm.family.lacking:
        with pytest.raises(cm.CaptureError, match=f"In {mllm.family.name} only the attention to visual states is known"):
            knockout(mllm, prompt, "last", "text")
        with pytest.raises(cm.CaptureError, match=f"The visual tokens of {mllm.family.name} are no part of"):
            knockout(mllm, prompt, "image", "image")


def test_heads_are_silenced(family):
    mllm, prompt = family
    pair = (mllm.attention_layers[0], mllm.heads - 1)
    one = ablate(mllm, prompt, [pair], how="mean", answer="red cross")
    found = continuation(mllm, prompt, "red cross", one.intervention).sum().item()
    assert one.after == pytest.approx(found, abs=1e-4)
    assert one.difference


def test_a_clean_runs_states_bring_its_answer_back(family):
    """All states after the last layer are all that the answer is made of; what attention draws is put in, too."""
    mllm, prompt = family
    other = mllm.prepare(picture(prompt.image.size).rotate(180), QUESTION)
    last = len(mllm.family.layer_modules(mllm.model)) - 1
    asked = {"answer": "red cross", "progress": False}
    try:
        found = patch(mllm, prompt, other, layers=[last], **asked)
    except cm.UnsupportedModelError as error:
        assert f"The residual stream of {mllm.family.name} cannot be patched" in str(error)
        assert PATCHING in mllm.family.lacking
    else:
        assert PATCHING not in mllm.family.lacking
        assert found.values[0, 0] == pytest.approx(found.clean, abs=1e-4)
        assert found.before != pytest.approx(found.clean, abs=1e-5)
    drawn = patch(mllm, prompt, other, "attention", layers=[mllm.attention_layers[0]], **asked)
    assert np.isfinite(drawn.values).all()
    assert drawn.change.any()


def test_a_lens_says_what_the_model_does_or_is_refused_by_name(family):
    """After the last layer its likeliest words are those of the model's own logits."""
    mllm, prompt = family
    try:
        found = cm.lens(mllm, prompt, "last", top=1)
    except cm.UnsupportedModelError as error:
        assert f"{mllm.family.name} has none" in str(error)
        assert LENS in mllm.family.lacking
        return
    assert LENS not in mllm.family.lacking
    own = own_logits(mllm, prompt)[-1].softmax(-1)
    torch.testing.assert_close(found.values[-1, 0, 0], own.max().float(), atol=1e-4, rtol=1e-3)
    assert (found.values[0] - found.values[-1]).abs().max() > 0
    assert cm.lens(mllm, prompt, "last", how="embeddings", layers=[0], top=2).values.shape == (1, 1, 2)


def test_an_answers_tokens_and_its_text_look_as_eager_attention_does(family):
    mllm, prompt = family
    if not mllm.family.site.in_sequence or prompt.learned:
        with pytest.raises(cm.CaptureError, match=f"in {mllm.family.name} they are not"):
            cm.capture_attention(mllm, prompt, columns="text")
    if prompt.learned or mllm.model.config.is_encoder_decoder:
        with pytest.raises(cm.CaptureError, match=f"of {mllm.family.name} do not look at the image themselves"):
            cm.trace_answer(mllm, prompt, answer="red cross")
        return
    trace = cm.trace_answer(mllm, prompt, answer="red cross", regions=box_of(prompt))
    followed = followed_by(mllm, prompt, trace.answer.ids)
    expected = eager_weights(mllm, followed)
    rows = list(range(len(prompt.tokens) - 1, len(prompt.tokens) - 1 + len(trace)))
    mean = torch.stack([expected[layer][:, rows] for layer in trace.layers]).mean((0, 1))
    torch.testing.assert_close(trace.maps, mean[:, list(prompt.visual)], atol=1e-5, rtol=1e-3)
    if mllm.family.site.in_sequence:
        text = cm.capture_attention(mllm, followed, queries=rows, columns="text")
        torch.testing.assert_close(text.values.mean((0, 1)), mean[:, list(text.columns)], atol=1e-5, rtol=1e-3)


# Of those that only send another picture or other words, which no family knows of, one of each shape of picture.
WAYS = (
    cm.methods.AttentionEdit(best=2),
    cm.methods.AttentionEdit(3.0, edit="weights"),
    cm.methods.Crop(margin=0.0),
    cm.methods.ZoomAndKeep(),
    cm.methods.Words("own"),
    cm.methods.RegionGuidance(),
    cm.methods.PromptHighlighter(),
    cm.methods.ViCrop(window=0.4),
    cm.methods.ViCrop("gradient", window=0.4),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.called())
def test_every_way_of_pointing_answers_or_is_refused_by_name(family, way):
    """And its effect is measured: an answer under it has a probability."""
    mllm, prompt = family
    decoding = {"max_new_tokens": 2, "min_new_tokens": 2, "suppress_tokens": mllm.processor.tokenizer.all_special_ids}
    try:
        outcome = cm.refer(mllm, prompt.image, QUESTION, box_of(prompt), way, **decoding)
    except (cm.SettingsError, cm.UnsupportedModelError) as error:
        assert mllm.family.name in str(error)
        assert "own" in str(error) or not mllm.family.contrast or mllm.family.one_image
        return
    sent = mllm.prepare(outcome.sent.image, outcome.sent.question)
    assert mllm.generate(sent, outcome, **decoding) == outcome.answer
    found = continuation(mllm, sent, outcome.answer.ids or "object", outcome)
    assert torch.isfinite(found).all()


def test_guidance_decodes_against_the_other_image(family, monkeypatch):
    """The batch's first row gives the logits of the image, the second those of the other one."""
    mllm, prompt = family
    if not mllm.family.contrast:
        return
    other = mllm.prepare(picture(prompt.image.size).rotate(180), QUESTION)
    seen = []

    def combine(self, steered, plain):
        seen.append((steered, plain))
        return steered

    monkeypatch.setattr(cm.Contrast, "combine", combine)
    pixels = torch.from_numpy(np.array(other.image))
    if mllm.family.one_image:
        with pytest.raises(cm.SettingsError, match=f"A {mllm.family.name} model cannot decode against another image"):
            mllm.generate(prompt, AgainstImage(pixels, contrast=cm.Contrast(1.0)), max_new_tokens=1)
        return
    mllm.generate(prompt, AgainstImage(pixels, contrast=cm.Contrast(1.0)), max_new_tokens=1)
    for found, each in zip(seen[0], (prompt, other), strict=True):
        torch.testing.assert_close(found, own_logits(mllm, each)[-1].float(), atol=1e-4, rtol=1e-4)
    assert (seen[0][0] - seen[0][1]).abs().max() > 1e-4


def test_each_copy_of_a_batch_attends_as_it_does_alone(family):
    mllm, prompt = family
    if not mllm.family.batch:
        with pytest.raises(cm.SettingsError, match="not kept apart"):
            copies(mllm, prompt, 3)
        return
    batch, rows = latents(prompt, 3), prompt.positions("text")
    together = capture(mllm, copies(mllm, prompt, 3), mllm.attention_layers, None, rows, prompt.visual, batch)
    for number, latent in enumerate(batch):
        alone = cm.capture_attention(mllm, prompt, latent=latent).values
        for layer, values in zip(together.layers, alone, strict=True):
            torch.testing.assert_close(together.captured[layer][number], values, atol=1e-5, rtol=1e-3)


def test_an_answers_score_is_what_generation_finds(family):
    mllm, prompt = family
    score = AnswerScore(mllm, prompt, "red cross at")
    batch = latents(prompt, 3 if mllm.family.batch else 1)
    found = score.tokens(batch.requires_grad_())
    (gradient,) = torch.autograd.grad(found.sum(), batch)
    assert gradient.flatten(1).norm(dim=1).min() > 0
    for number, latent in enumerate(batch.detach()):
        # Where generation takes no processor of logits, the model's own forward on the lengthened inputs says it.
        generates = mllm.family.contrast or not mllm.family.batch
        expected = (said if generates else forwarded)(mllm, prompt, score.ids, latent)
        torch.testing.assert_close(found[number].detach(), expected, atol=1e-3, rtol=1e-3)


def test_each_token_that_is_said_is_as_likely_as_in_a_forward(family):
    mllm, prompt = family
    answer = mllm.generate(prompt, max_new_tokens=4)
    said_by_words = answer.without(mllm.image_token_id, mllm.video_token_id).ids == answer.ids
    assert len(answer.log_probabilities) == len(answer.ids) or not said_by_words
    if answer.ids and said_by_words:
        expected = continuation(mllm, prompt, answer)
        torch.testing.assert_close(torch.tensor(answer.log_probabilities), expected, atol=1e-3, rtol=1e-3)


def test_windows_are_swept(family):
    mllm, prompt = family
    example = Example(prompt.image, QUESTION, box_of(prompt), "red cross", ("blue seven",))
    method = cm.ControlMLLMPlus(steps=2, step_size=0.05, contrast=0.0)
    sweep = sweep_windows(mllm, [example], contexts=["text"], method=method, progress=False)
    count = len(mllm.attention_layers)
    assert len(sweep.choices) == count * (count + 1) // 2
    assert np.isfinite(sweep.values).all()
    whole = cm.optimize(mllm, prompt, example.region, replace(method, layers=(0, mllm.layers), queries="text"))
    index = next(number for number, choice in enumerate(sweep.choices) if choice.layers[1] - choice.layers[0] >= count)
    assert sweep.figure("energy")[index, 0] == pytest.approx(whole.steps[-1].energy, rel=1e-3)
    assert sweep.figure("energy")[index, 0] < sweep.figure("energy before")[index, 0]


def test_where_an_answers_tokens_look_equals_eager_attention(family, monkeypatch):
    mllm, prompt = family
    monkeypatch.setattr(mllm, "generate", lambda *_: "red cross at")
    explorer = cm.widgets.AttentionExplorer(mllm, prompt)
    assert bool(explorer.answer) == (not prompt.learned)
    assert bool(explorer.data["note"]) == bool(prompt.learned)
    assert explorer.data["presets"][0][0] == ("all" if prompt.learned else "question")
    rows = [position for position in explorer.attention.queries if prompt.learned or position >= len(prompt.tokens)]
    assert len(rows) >= 3
    explorer.queries = rows
    expected = eager_weights(mllm, explorer.attention.prompt)
    for values, layer in zip(explorer.attention.values, explorer.attention.layers, strict=True):
        own = expected[layer][:, rows][..., list(prompt.visual)]
        assert (values[:, -len(rows) :] - own).abs().max() < 1e-5


def forwarded(mllm, prompt, ids, latent):
    logits = own_logits(mllm, followed_by(mllm, prompt, ids), latent)[-len(ids) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


def own_logits(mllm, prompt, latent=None):
    with torch.no_grad(), latent_added(prompt.call, latent):
        return mllm.model(**prompt.inputs, use_cache=False).logits[0]


def test_the_replayed_call_gives_the_models_own_logits(family):
    mllm, prompt = family
    latent = torch.randn_like(prompt.zero_latent().detach())
    with torch.no_grad():
        replayed = prompt.call.replay(latent)
    handle = mllm.decoder.register_forward_hook(lambda module, arguments, output: replayed)
    try:
        logits = own_logits(mllm, prompt)
    finally:
        handle.remove()
    torch.testing.assert_close(logits, own_logits(mllm, prompt, latent), atol=1e-5, rtol=1e-5)


def test_a_latent_changes_logits_from_the_image_on(family):
    mllm, prompt = family
    zero = prompt.zero_latent().detach()
    plain = own_logits(mllm, prompt)
    assert torch.equal(own_logits(mllm, prompt, zero), plain)
    latent = 5 * torch.randn_like(zero) * prompt.call.visual_states.float().std()
    moved = (own_logits(mllm, prompt, latent) - plain).abs().amax(-1)
    if mllm.model.config.is_encoder_decoder:
        # The logits are those of the decoder's tokens, which all come after the image.
        assert moved.min() > 0
        return
    ids = prompt.inputs["input_ids"]
    image = ids == mllm.image_token_id
    # Tokens of an image that attend to one another begin with its marks, where the processor counts these in.
    image |= prompt.inputs.get("mm_token_type_ids", torch.zeros_like(ids)) == 1
    start = image[0].tolist().index(True)
    # A kernel of experts rounds a token's result differently in another company of tokens.
    assert moved[:start].sum() < 1e-6
    assert moved[prompt.text_span[0] :].min() > 1e-6


class Doubled(TorchFunctionMode):
    """While open, float64 stays where transformers asks for float32 (norms, softmax, linear attention)."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.float:
            return args[0].double()
        args = [torch.float64 if value is torch.float32 else value for value in args]
        named = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return function(*args, **named)


def test_gradient_equals_finite_differences(family):
    mllm = in_precision(family[0], torch.float64)
    with Doubled():
        prompt = mllm.prepare(family[1].image, QUESTION)
        latent = prompt.zero_latent().detach().double().requires_grad_()

        def energy(values):
            return cm.energy(cm.context_map(cm.capture_attention(mllm, prompt, latent=values)), box_of(prompt))

        (gradient,) = torch.autograd.grad(energy(latent), latent)
        direction = gradient / gradient.norm()
        step = 1e-6 * float(prompt.call.visual_states.std())
        difference = (energy(latent + step * direction) - energy(latent - step * direction)).item() / (2 * step)
    assert gradient.norm() > 1e-8
    assert difference == pytest.approx(gradient.norm().item(), rel=1e-5)


def test_layout_equals_the_probed_one(family, monkeypatch):
    """Of a tall image, and of all shapes where these are cut into tiles; the rest's are in the conversation below."""
    mllm, _ = family
    monkeypatch.setattr(places_module, "probe", partial(probe, pieces=1))
    probing = cm.load((mllm.model, mllm.processor), layout="probe")
    # Some processors cut an image into tiles only where it stands alone.
    for shape in SIZES if mllm.family.several or mllm.family.way_in == TILES else ("tall",):
        prompt, found = (each.prepare(picture(SIZES[shape]), QUESTION) for each in (mllm, probing))
        boxes, others = (dict(zip(each.visual, each.layout.boxes, strict=True)) for each in (prompt, found))
        assert_boxes_alike(boxes, others, prompt.layout)


def assert_boxes_alike(boxes, probed, layout):
    """Boxes by position of their visual tokens, in pixels of one image, are those that probing found."""
    size = layout.image_size
    # What is no visual token looks nowhere; a token over padding may still feel the image beside it.
    assert set(probed) <= set(boxes) or "padded" in layout.rule
    # A box that is mostly padding shows the probe too little to be measured.
    clipped = {position: np.clip(box, 0, [*size] * 2) for position, box in boxes.items()}
    visible = [
        position
        for position, box in boxes.items()
        if (clipped[position][2:] - clipped[position][:2] > 0.5 * (box[2:] - box[:2])).all()
    ]
    assert len(visible) > 0.3 * len(boxes)
    seen = [position for position in visible if position in probed]
    assert len(seen) > 0.9 * len(visible)
    shown = np.stack([clipped[position] for position in seen])
    error = (np.stack([probed[position] for position in seen]) - shown) / np.tile(shown[:, 2:] - shown[:, :2], 2)
    centres = np.abs(error[:, :2] + error[:, 2:]) / 2
    assert (centres < 0.5).all(1).mean() > 0.95
    # Each edge by itself: one median over all would hide an error along one axis.
    assert np.median(np.abs(error), axis=0).max() < 0.25
    assert np.abs(np.median(error[:, :2] + error[:, 2:], axis=0)).max() / 2 < 0.1


def generates_without_cache(mllm, prompt, decoding):
    """Whether transformers itself, without this package, does: it lengthens some families' inputs only with a cache."""
    try:
        mllm.model.generate(**prompt.inputs, **decoding, use_cache=False)
    except IndexError:
        return False
    return True


def test_energy_falls_and_the_answer_can_be_steered(family):
    mllm, prompt = family
    trace = cm.optimize(mllm, prompt, box_of(prompt), METHOD)
    assert len(trace) == 6
    assert trace.steps[-1].energy < trace.steps[0].energy
    assert trace.steps[-1].share > trace.steps[0].share
    # A random model may say an image token, which would ask for another image.
    decoding = {"max_new_tokens": 3, "min_new_tokens": 3, "suppress_tokens": mllm.processor.tokenizer.all_special_ids}
    answer = mllm.generate(prompt, latent=trace.latent, **decoding)
    assert answer
    if generates_without_cache(mllm, prompt, decoding):
        assert answer == mllm.generate(prompt, latent=trace.latent, use_cache=False, **decoding)
    if not mllm.family.beams:
        with pytest.raises(ValueError, match="do not match"):
            mllm.model.generate(**prompt.inputs, num_beams=2, **decoding)
        with pytest.raises(cm.SettingsError, match="Beam search needs several copies"):
            mllm.generate(prompt, latent=trace.latent, num_beams=2, **decoding)
    else:
        assert isinstance(mllm.generate(prompt, latent=trace.latent, num_beams=2, **decoding), str)


def test_layers_and_heads_are_measured(family):
    """Share grid, gradients and ranking on every family, against what the step-by-step functions say."""
    mllm, prompt = family
    region = box_of(prompt)
    attention = cm.capture_attention(mllm, prompt)
    grid = cm.analysis.head_shares(attention, region)
    layer, head = attention.layers[-1], mllm.heads - 1
    one = cm.context_map(attention, heads=[(layer, head)])
    assert grid.values.shape == (len(mllm.attention_layers), mllm.heads)
    assert grid.values[-1, -1] == pytest.approx(cm.region_share(one, region), abs=1e-5)
    assert grid.chance == pytest.approx(prompt.layout.inside(region).mean(), rel=1e-5)
    latent = prompt.zero_latent()
    alone = cm.capture_attention(mllm, prompt, layers=[layer], latent=latent)
    (gradient,) = torch.autograd.grad(cm.energy(cm.context_map(alone), region), latent)
    profile = cm.analysis.gradient_profile(mllm, prompt, region)
    assert profile.layers == mllm.attention_layers
    assert profile.norms[-1] == pytest.approx(gradient.norm().item(), rel=1e-3)
    ranking = cm.analysis.rank_heads(mllm, [cm.analysis.Example(prompt.image, QUESTION, region)])
    hit = prompt.layout.inside(region)[int(one.values.argmax())] >= 0.5
    assert ranking.hits[-1, -1] == hit
    steered = cm.optimize(mllm, prompt, region, replace(METHOD, heads=ranking.top(2)))
    assert steered.steps[-1].energy < steered.steps[0].energy


def test_maps_through_all_layers_equal_those_of_eager_attention(family):
    """Rollout and relevancy written out with the weights that transformers' own eager attention returns, in their graph."""
    mllm, prompt = family
    if not mllm.family.site.in_sequence or prompt.learned:
        for follow in (cm.analysis.rollout, cm.analysis.relevancy):
            with pytest.raises(cm.CaptureError, match="in the text's own sequence"):
                follow(mllm, prompt)
        return
    weights = {}
    handles = [
        module.register_forward_hook(lambda module, _, output: weights.update({mllm.attention_modules[module]: output[1]}))
        for module in mllm.attention_modules
    ]
    try:
        with eager(mllm), latent_added(prompt.call, prompt.zero_latent()):
            logits = mllm.model(**prompt.inputs, use_cache=False).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    ascending = [weights[layer] for layer in sorted(weights)]
    gradients = torch.autograd.grad(logits.max(), ascending)
    product = relevance = identity = torch.eye(len(prompt.tokens))
    for each, gradient in zip(ascending, gradients, strict=True):
        mean = each.detach()[0].mean(0)
        product = (identity + mean / mean.sum(-1, keepdim=True)) / 2 @ product
        relevance = relevance + (each.detach() * gradient)[0].clamp_min(0).mean(0) @ relevance
    visual = list(prompt.visual)
    expected = product[list(prompt.text_span)].mean(0)[visual]
    torch.testing.assert_close(cm.analysis.rollout(mllm, prompt).values, expected, atol=1e-5, rtol=1e-3)
    row = (relevance - identity)[-1]
    torch.testing.assert_close(cm.analysis.relevancy(mllm, prompt).values, (row / row.sum())[visual], atol=1e-4, rtol=1e-3)


def test_maps_of_what_visual_states_hold(family):
    """Grad-CAM from the gradient at what goes in, and activation from the model's own logits, or a refusal by name."""
    mllm, prompt = family
    first, second = mllm.processor.tokenizer("red cross", add_special_tokens=False)["input_ids"][:2]
    followed, latent = followed_by(mllm, prompt, [first]), prompt.zero_latent()
    with latent_added(prompt.call, latent):
        logits = mllm.model(**followed.inputs, use_cache=False).logits[0]
    given = cm.analysis.grad_cam(mllm, prompt, [first, second], token=1)
    (gradient,) = torch.autograd.grad(logits[-1, second], latent)
    expected = (prompt.call.visual_states.float() @ gradient.mean(0)).clamp_min(0)
    torch.testing.assert_close(given.values, expected / expected.sum().clamp_min(1e-30), atol=1e-4, rtol=1e-3)
    explain = partial(cm.analysis.token_activation, mllm, prompt, [first, second], token=1, context=False, smooth=False)
    after = partial(cm.analysis.grad_cam, mllm, prompt, [first, second], token=1, layer=0)
    if CAM in mllm.family.lacking:
        with pytest.raises(cm.CaptureError, match=rf"of {mllm.family.name} (are no part|after a layer are not one)"):
            after()
    elif len(mllm.family.layer_modules(mllm.model)) > 1:
        assert after().values.isfinite().all()
    if ACTIVATION in mllm.family.lacking:
        with pytest.raises(cm.UnsupportedModelError, match=f"that of {mllm.family.name} is not"):
            explain()
        return
    positive = logits[:, second].detach().float().clamp_min(0)
    own, context = positive[list(prompt.visual)], positive[[*prompt.text_span, len(prompt.tokens) - 1]].sum()
    expected = own / (own.sum() + context).clamp_min(1e-30)
    torch.testing.assert_close(explain().values, expected, atol=1e-4, rtol=1e-3)
    whole = cm.analysis.token_activation(mllm, prompt, [first, second], token=1)
    assert whole.values.isfinite().all()
    assert whole.values.min() >= 0


def test_attribution_is_what_states_and_gradients_say(family):
    mllm, prompt = family
    states = prompt.call.visual_states
    score = AnswerScore(mllm, prompt, "red cross")
    away = (states.mean(0) - states).float()
    latent = torch.zeros_like(away)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(score(latent).sum(), latent)
    found = cm.analysis.attribute(mllm, prompt, "red cross", "input_x_gradient", progress=False)
    expected = -(gradient[0] * away).sum(-1)
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-3)
    assert found.values.abs().max() > 0
    cells = cm.analysis.attribute(mllm, prompt, "red cross", "feature_ablation", (2, 2), progress=False)
    taken = torch.from_numpy(cells.features == 0)[:, None] * away
    with torch.no_grad():
        fall = score(torch.zeros_like(away)[None]) - score(taken[None])
    assert cells.of_features[0] == pytest.approx(fall.item(), abs=1e-4)


# A conversation: a system prompt, three turns, two images, words before and after an image.

TURNS = (
    "{% for turn in messages %}{{ turn['role'] }} : {% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %} {% endfor %}\n{% endfor %}assistant :"
)


# Of perception_lm, transformers stacks the images of a prompt, which must then have as many tiles as each other.
BESIDE_WIDE = {"perception_lm": "tall"}


def talk_of(mllm):
    said = [
        {"role": "system", "content": [{"type": "text", "text": "what is in the picture ?"}]},
        {"role": "user", "content": [picture(SIZES[BESIDE_WIDE.get(mllm.family.name, "square")]), "is it red ?"]},
        {"role": "assistant", "content": ["the object is red ."]},
        {"role": "user", "content": ["or this one :", picture(SIZES["wide"]), QUESTION]},
    ]
    family = mllm.family
    # Of the published model an image has 256 tokens, of the tiny one 16.
    mllm.family = replace(family, image=f"<img>{'<imgpad>' * 16}</img>") if family.name == "pp_chart2table" else family
    try:
        return mllm.prepare(said, chat_template=TURNS.replace("IMAGE", mllm.family.image))
    finally:
        mllm.family = family


@pytest.fixture(scope="module")
def talk(family):
    """(mllm, prompt of a conversation); of families that take one image, a refusal that says so."""
    mllm, _ = family
    if mllm.family.several:
        with pytest.raises(cm.PromptError, match=f"holds one image: {re.escape(mllm.family.several)}"):
            talk_of(mllm)
        pytest.skip(mllm.family.several)
    return mllm, talk_of(mllm)


def test_attention_in_a_conversation_equals_eager_attention(talk):
    mllm, prompt = talk
    assert len(prompt.images) == len(prompt.layouts) == 2
    assert_equals_eager(mllm, prompt, 1e-5)
    for number, layout in enumerate(prompt.layouts):
        x0, y0, x1, y1 = layout.seen
        box = cm.Box(x0, y0, (x0 + x1) / 2, (y0 + y1) / 2)
        weights = prompt.layout.inside(box.on(number))
        own = prompt.layout.tokens_of(number)
        np.testing.assert_array_equal(weights[own], layout.inside(box))
        assert weights.sum() == weights[own].sum() > 0


def test_the_replayed_call_of_a_conversation_gives_the_models_own_logits(talk):
    test_the_replayed_call_gives_the_models_own_logits(talk)


def test_each_image_of_a_conversation_is_laid_out_as_probing_finds(talk, monkeypatch):
    mllm, prompt = talk
    monkeypatch.setattr(places_module, "probe", partial(probe, pieces=1))
    found = talk_of(cm.load((mllm.model, mllm.processor), layout="probe"))
    for number, (own, probed) in enumerate(zip(prompt.layouts, found.layouts, strict=True)):
        numbers = [each.layout.tokens_of(number) for each in (prompt, found)]
        boxes, others = (
            dict(zip(each.visual[part], layout.boxes, strict=True))
            for each, part, layout in zip((prompt, found), numbers, (own, probed), strict=True)
        )
        assert_boxes_alike(boxes, others, own)


def test_every_family_is_told_apart_by_whether_it_is_tested():
    assert set(TINY) == {name for name, family in FAMILIES.items() if family.tested}


def test_image_settings_for_one_prompt_are_refused():
    mllm = cm.load(TINY["llava"]())
    for options in ({"do_center_crop": False}, {"images_kwargs": {"size": {"shortest_edge": 64}}}):
        with pytest.raises(cm.PromptError, match="must be set on it, where the layout rule reads them"):
            mllm.prepare(picture((80, 80)), QUESTION, **options)


def test_pan_and_scan_is_refused():
    mllm = cm.load(TINY["gemma3"]())
    with pytest.raises(cm.PromptError, match="do_pan_and_scan"):
        mllm.prepare(picture((240, 80)), QUESTION, do_pan_and_scan=True)
    inputs = {"pixel_values": torch.zeros(4, 3, 32, 32)}
    with pytest.raises(cm.UnsupportedModelError, match="pan and scan"):
        square_grid(LayoutInputs(mllm.model, mllm.processor, (240, 80), inputs, 16))


def test_settings_that_a_row_does_not_cover_are_refused():
    config = AutoConfig.for_model("idefics", use_resampler=True)
    with pytest.raises(cm.UnsupportedModelError, match=r"idefics model must not have use_resampler set: its perceiver"):
        family_for(config)
    model, processor = TINY["idefics2"]()
    processor.image_processor.do_image_splitting = True
    with pytest.raises(cm.UnsupportedModelError, match="do_image_splitting to False"):
        cm.load((model, processor)).prepare(picture((150, 60)), QUESTION)


@pytest.mark.parametrize("name", ["llava_next", "qwen2_vl", "internvl", "paligemma", "mllama"])
def test_a_processor_with_other_settings_than_the_rule_knows_is_refused(name, monkeypatch):
    """Whatever went wrong, a number of boxes other than that of tokens is never shown as a map."""
    mllm = cm.load(TINY[name]())
    inputs = prepare_module.tensors(mllm, [picture((80, 80))], prompt_text(mllm, QUESTION), {})
    candidates, end, call = prepare_module.candidates(mllm, inputs)
    monkeypatch.setattr(prepare_module, "candidates", lambda *_, **__: (candidates[:-1], end, call))
    with pytest.raises(cm.UnsupportedModelError, match="must"):
        mllm.prepare(picture((80, 80)), QUESTION)
