import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from PIL import Image
from tests_support import noise
from tiny_models import tiny_llava
from transformers import AutoModelForImageTextToText, AutoProcessor, LlamaConfig, LlamaForCausalLM

import cmllm_tools as cm
from cmllm_tools.loading import EMBEDDED_MODEL


def test_embedded_model_is_small_and_loads_by_plain_from_pretrained(example):
    size = sum(path.stat().st_size for path in EMBEDDED_MODEL.rglob("*") if path.is_file())
    assert size <= 12e6
    model = AutoModelForImageTextToText.from_pretrained(EMBEDDED_MODEL, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(EMBEDDED_MODEL)
    text = "USER: <image>\ndescribe the object. ASSISTANT:"
    inputs = processor(images=example.image, text=text, return_tensors="pt")
    output = model.generate(**inputs)
    answer = processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    mllm = cm.load()
    assert answer.strip() == mllm.generate(mllm.prepare(example.image, "describe the object."))


def test_local_folder_and_pair_give_the_same_answers(tmp_path, example):
    model, processor = tiny_llava()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    folder, pair = cm.load(tmp_path), cm.load((model, processor))
    assert isinstance(folder.model, type(model))
    assert folder.name == str(tmp_path)
    answers = [one.generate(one.prepare(example.image, "what is this ?"), min_new_tokens=4) for one in (folder, pair)]
    assert answers[0] == answers[1]
    assert answers[0]


def test_load_passes_options_to_from_pretrained():
    mllm = cm.load(dtype=torch.bfloat16, attn_implementation="eager", device_map="cpu")
    assert mllm.model.dtype == torch.bfloat16
    assert mllm.decoder.config._attn_implementation == "eager"
    assert "bfloat16" in repr(mllm)


def test_models_without_a_row_are_refused_by_name():
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=8)
    with pytest.raises(cm.UnsupportedModelError, match=r"supported family \(.*llava.*\); got model_type 'llama'"):
        cm.load((LlamaForCausalLM(config), None))
    with pytest.raises(cm.UnsupportedModelError, match=r"\(model, processor\)"):
        cm.load((1, 2, 3))


@pytest.mark.slow
def test_checkpoints_that_cannot_be_loaded(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    for source in (tmp_path, "no/such-model"):
        with pytest.raises(cm.UnsupportedModelError, match=f"{source} cannot be loaded"):
            cm.load(source)
    # A family without a row is refused before its weights are looked for.
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(cm.UnsupportedModelError, match=r"supported family .* got model_type 'bert'"):
        cm.load(tmp_path)


def test_prompt_knows_its_tokens(mllm, prompt):
    assert len(prompt.visual) == len(prompt.layout) == 64
    assert [prompt.tokens[i] for i in prompt.text_span] == ["describe", "the", "object", "."]
    assert prompt.positions("text") == prompt.text_span
    assert prompt.positions("last") == (len(prompt.tokens) - 1,)
    after = [prompt.tokens[i] for i in prompt.positions("after_image")]
    assert after == ["describe", "the", "object", ".", "assistant", ":"]
    (word,) = prompt.positions("object")
    assert prompt.tokens[word] == "object"
    assert prompt.positions(["the", "Object"]) == (word - 1, word)
    assert prompt.positions(-1) == prompt.positions("last")
    assert prompt.positions([word, word]) == (word,)
    text = repr(prompt)
    for part in ("'describe the object.'", "64 visual", "describe the object .", "8 x 8"):
        assert part in text


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("zebra", "highlight word must be in the question; got 'zebra', the question's tokens are: describe the object ."),
        ("", "highlight word"),
        (500, r"must lie in -\d+\.\.\d+; got 500"),
        ([], "At least one query"),
    ],
)
def test_queries_that_are_not_there(prompt, queries, message):
    with pytest.raises(cm.PromptError, match=message):
        prompt.positions(queries)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "at least one word; got ''"),
        ("  \n", "at least one word"),
        (None, "must have a question, as .*; got None"),
        ("what is <image> ?", "must not contain the image placeholder '<image>'"),
    ],
)
def test_questions_that_cannot_be_asked(mllm, question, message):
    with pytest.raises(cm.PromptError, match=message):
        mllm.prepare(Image.new("RGB", (50, 50)), question)


def test_question_that_repeats_a_word_of_the_template(mllm, example):
    prompt = mllm.prepare(example.image, "is the user : here ?")
    assert [prompt.tokens[i] for i in prompt.text_span] == ["is", "the", "user", ":", "<unk>", "?"]


def test_processor_without_visual_tokens_is_refused():
    model, processor = tiny_llava()
    model.config.image_token_id = processor.tokenizer.convert_tokens_to_ids("zero")
    with pytest.raises(cm.UnsupportedModelError, match="must hold visual tokens"):
        cm.load((model, processor)).prepare(Image.new("RGB", (40, 40)), "what is this ?")


def test_processor_of_another_patch_size_is_refused():
    model, _ = tiny_llava()
    _, other = tiny_llava(patch=16)
    with pytest.raises(cm.UnsupportedModelError, match="must have 16 visual tokens; the prompt has 4"):
        cm.load((model, other)).prepare(Image.new("RGB", (40, 40)), "what is this ?")


def test_replay_gives_the_models_own_logits():
    model, processor = tiny_llava()
    mllm = cm.load((model, processor))
    prompt = mllm.prepare(noise((50, 40)), "what is this ?")
    with torch.no_grad():
        own = model(**prompt.inputs).logits
        replayed = model.lm_head(prompt.call.replay().last_hidden_state)
        zero = model.lm_head(prompt.call.replay(prompt.zero_latent()).last_hidden_state)
        moved = model.lm_head(prompt.call.replay(torch.ones_like(prompt.zero_latent())).last_hidden_state)
    assert torch.allclose(own, replayed, atol=1e-6)
    assert torch.equal(zero, replayed)
    first = prompt.visual[0]
    assert torch.equal(moved[:, :first], own[:, :first])
    assert not torch.allclose(moved[:, first:], own[:, first:], atol=1e-3)


def test_generate_with_latent_is_stepwise_greedy_replay():
    """Oracle without cache or hooks: append the best token, run the whole sequence again with the latent added."""
    model, processor = tiny_llava()
    mllm = cm.load((model, processor))
    prompt = mllm.prepare(noise((50, 40)), "what is this ?")
    torch.manual_seed(1)
    latent = torch.randn_like(prompt.zero_latent())
    embeds = prompt.call.states.clone()
    embeds[0, list(prompt.visual)] += latent
    expected = []
    with torch.no_grad():
        for _ in range(5):
            hidden = mllm.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
            token = model.lm_head(hidden[0, -1]).argmax()
            expected.append(int(token))
            embeds = torch.cat([embeds, model.get_input_embeddings()(token[None, None])], 1)
    answer = mllm.generate(prompt, latent, max_new_tokens=5, min_new_tokens=5, suppress_tokens=None)
    if processor.tokenizer.eos_token_id not in expected:
        assert answer == processor.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert answer != mllm.generate(prompt, max_new_tokens=5, min_new_tokens=5)


def test_zero_latent_and_zero_contrast_change_no_answer(mllm, prompt):
    plain = mllm.generate(prompt)
    assert mllm.generate(prompt, prompt.zero_latent()) == plain
    assert mllm.generate(prompt, prompt.zero_latent(), cm.Contrast(0)) == plain
    # Both branches equal: any contrast of a zero latent is the plain answer.
    assert mllm.generate(prompt, prompt.zero_latent(), cm.Contrast(0.7)) == plain
    assert mllm.generate(prompt, num_beams=3)


def test_contrast_formula():
    steered, plain = torch.tensor([2.0, 1.5, -4.0]), torch.tensor([3.0, 0.0, 0.0])
    combined = cm.Contrast(0.5, 0.1).combine(steered, plain)
    assert torch.allclose(combined[:2], torch.tensor([1.5 * 2 - 0.5 * 3, 1.5 * 1.5]))
    # -4 < 2 + log(0.1): not plausible, whatever the contrast says.
    assert combined[2] == -np.inf
    assert combined.argmax() == 1


def test_contrast_is_applied_to_the_steered_row(mllm, prompt):
    torch.manual_seed(0)
    latent = torch.randn_like(prompt.zero_latent()) * 0.5
    with torch.no_grad():
        head = mllm.model.lm_head
        steered = head(prompt.call.replay(latent).last_hidden_state[0, -1])
        plain = head(prompt.call.replay().last_hidden_state[0, -1])
    contrast = cm.Contrast(2.0, 0.1)
    expected = mllm.processor.tokenizer.decode([int(contrast.combine(steered, plain).argmax())])
    assert mllm.generate(prompt, latent, contrast, max_new_tokens=1) == expected.strip()


def test_contrast_refuses_what_it_cannot_do(mllm, prompt):
    with pytest.raises(cm.SettingsError, match="greedy"):
        mllm.generate(prompt, prompt.zero_latent(), cm.Contrast(0.5), num_beams=2)
    with pytest.raises(cm.SettingsError, match="alpha >= 0 and 0 <= beta <= 1; got alpha=-1"):
        cm.Contrast(-1)
    with pytest.raises(cm.SettingsError, match=r"beta=-0\.1"):
        cm.Contrast(1, -0.1)


def test_latent_of_another_prompt_is_refused(mllm, prompt):
    with pytest.raises(cm.CaptureError, match=r"\(visual token, width\) = \(64, 192\); got \(3, 4\)"):
        mllm.generate(prompt, torch.zeros(3, 4))


def test_generate_leaves_the_model_as_found(prompt, mllm):
    mllm.model.train()
    before = snapshot(mllm)
    mllm.generate(prompt, torch.ones_like(prompt.zero_latent()), cm.Contrast(0.5))
    with pytest.raises(cm.CaptureError):
        mllm.generate(prompt, torch.zeros(3, 4))
    assert_same(before, snapshot(mllm))
    mllm.model.eval()


def test_the_question_is_told_from_the_templates_own_words():
    mllm = cm.load(tiny_llava())
    prompt = mllm.prepare(Image.new("RGB", (40, 40)), "assistant")
    assert prompt.positions("text")[0] < len(prompt.tokens) - 2
    prompt = mllm.prepare(Image.new("RGB", (40, 40)), "user")
    assert prompt.positions("text")[0] > prompt.visual[-1]


def test_answers_do_not_depend_on_the_checkpoints_sampling():
    model, processor = tiny_llava()
    model.generation_config.update(do_sample=True, num_beams=3)
    mllm = cm.load((model, processor))
    prompt = mllm.prepare(Image.new("RGB", (40, 40)), "what is this ?")
    assert len({mllm.generate(prompt, max_new_tokens=6) for _ in range(3)}) == 1
    latent = torch.randn_like(prompt.zero_latent().detach())
    assert isinstance(mllm.generate(prompt, latent, cm.Contrast(0.5), max_new_tokens=3), str)
