"""What comes to the door: models, processors, templates and options in the forms in which users hold them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import TINY
from tiny_models import tiny_llava
from transformers import PreTrainedTokenizerFast

import cmllm_tools as cm

QUESTION = "what is the red object ?"
PARTS = (
    "{% for message in messages %}user : {% for part in message['content'] %}{% if part['type'] == 'image' %}<image> "
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :"
)
ONE_TEXT = "{% for message in messages %}{{ message['role'] + ' : ' + message['content'] }}{% endfor %} assistant :"
WRITTEN_OUT = "{% for message in messages %}user : {{ message['content'] }}{% endfor %} assistant :"
STRIPPED = "{% for message in messages %}user : {{ message['content'].strip() }}{% endfor %} assistant :"
TEXT_ALONE = (
    "{% for message in messages %}user : {% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %} "
    "assistant :"
)
# A part of a type that only other services know, and a template that writes the placeholder itself.
ANOTHER_TYPE = (
    "{% for message in messages %}user : {% for part in message['content'] %}{% if part['type'] == 'image_url' %}<image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :"
)
PLACED = "{% for message in messages %}user : <image>\n{{ message['content'] }}{% endfor %} assistant :"
QUESTION_FIRST = (
    "{% for message in messages %}user : {% for part in message['content'] | reverse %}{% if part['type'] == 'image' %} "
    "<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :"
)


def picture(size=(50, 40)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def held(template=None, on="processor", family=None):
    model, processor = TINY[family]() if family else tiny_llava()
    processor.chat_template = processor.tokenizer.chat_template = None
    (processor if on == "processor" else processor.tokenizer).chat_template = template
    return cm.load((model, processor))


def asked(prompt):
    return " ".join(prompt.tokens[position] for position in prompt.text_span)


def looks(mllm, prompt):
    return cm.context_map(cm.capture_attention(mllm, prompt)).values.sum()


@pytest.mark.parametrize("on", ["processor", "tokenizer"])
@pytest.mark.parametrize("template", [PARTS, ONE_TEXT, WRITTEN_OUT, STRIPPED, TEXT_ALONE, ANOTHER_TYPE, PLACED])
def test_templates_are_used_wherever_they_stand_and_whatever_they_take(template, on):
    mllm = held(template, on)
    prompt = mllm.prepare(picture(), QUESTION)
    between = " " if template == PARTS else "\n"
    said = f"<image>{between}{QUESTION}"
    assert prompt.text == f"user : {said} assistant :"
    assert asked(prompt) == QUESTION
    assert len(prompt.visual) == 16
    assert looks(mllm, prompt) > 0


@pytest.mark.parametrize("family", ["qwen2_vl", "gemma3", "mistral3", "internvl", "blip-2", "mllama"])
def test_a_template_for_one_text_is_given_the_familys_own_placeholder(family):
    mllm = held(ONE_TEXT, "tokenizer", family)
    prompt = mllm.prepare(picture((80, 80)), QUESTION)
    assert prompt.text.startswith("user : ")
    assert prompt.text.endswith(f"{QUESTION} assistant :")
    assert "type" not in prompt.text
    assert asked(prompt) == QUESTION


def test_templates_of_a_name_and_templates_that_fail():
    mllm = held({"default": PARTS, "tools": "nothing"})
    assert asked(mllm.prepare(picture(), QUESTION)) == QUESTION
    for template, reason in (
        ({"tools": PARTS, "other": PARTS}, "default"),
        ("{{ raise_exception('only a system may speak') }}", "only a system may speak"),
        ("{% for message in messages %}", "Unexpected end of template"),
    ):
        with pytest.raises(cm.UnsupportedModelError, match=rf"chat template of .* must take a message.*{reason}"):
            held(template).prepare(picture(), QUESTION)


def test_a_template_that_changes_the_question_is_refused():
    with pytest.raises(cm.UnsupportedModelError, match="must stand unchanged in the prompt"):
        held(PARTS.replace("part['text']", "part['text'] | upper")).prepare(picture(), QUESTION)


@pytest.mark.parametrize("family", [None, "mllama", "idefics"])
def test_a_question_before_the_image_is_refused(family):
    template = QUESTION_FIRST.replace("<image>", "<|image|>") if family == "mllama" else QUESTION_FIRST
    with pytest.raises(cm.PromptError, match="must stand after the image, as text before it cannot attend to it"):
        held(template, family=family).prepare(picture((80, 80)), QUESTION)


def test_a_question_before_the_image_is_taken_where_learned_queries_look():
    mllm = held(QUESTION_FIRST, family="idefics2")
    prompt = mllm.prepare(picture((80, 80)), QUESTION)
    assert prompt.text_span[0] < prompt.image_end
    assert looks(mllm, prompt) > 0


def test_a_template_that_writes_what_the_tokenizer_adds_does_not_double_it():
    model, processor = TINY["llava"]()
    from tokenizers.processors import TemplateProcessing

    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", processor.tokenizer.bos_token_id)]
    )
    for start in ("<s> ", ""):
        processor.chat_template = start + PARTS
        prompt = cm.load((model, processor)).prepare(picture(), QUESTION)
        assert prompt.tokens.count("<s>") == 1
        assert asked(prompt) == QUESTION


@pytest.mark.parametrize(
    ("family", "left_out"),
    [
        ("llava", {"patch_size": None, "vision_feature_select_strategy": None, "num_additional_image_tokens": 0}),
        ("llava", {"num_additional_image_tokens": 0}),
        ("vipllava", {"patch_size": None, "vision_feature_select_strategy": None, "num_additional_image_tokens": 0}),
        ("llava_next", {"patch_size": None, "vision_feature_select_strategy": None, "num_additional_image_tokens": 0}),
        ("llava_onevision", {"num_image_tokens": None, "vision_feature_select_strategy": None}),
        ("granite4_vision", {"patch_size": None, "downsample_rate": None, "vision_feature_select_strategy": None}),
        ("llava_onevision", {"vision_aspect_ratio": None}),
        ("mistral3", {"spatial_merge_size": None}),
        ("blip-2", {"num_query_tokens": None}),
        ("instructblip", {"num_query_tokens": None}),
    ],
)
def test_processors_of_old_checkpoints_are_completed_from_the_model(family, left_out):
    model, processor = TINY[family]()
    expected = cm.load((model, processor)).prepare(picture((80, 80)), QUESTION)
    for name, value in left_out.items():
        setattr(processor, name, value)
    prompt = cm.load((model, processor)).prepare(picture((80, 80)), QUESTION)
    assert {name: getattr(processor, name) for name in left_out} == left_out
    assert prompt.tokens == expected.tokens
    assert torch.equal(prompt.inputs["input_ids"], expected.inputs["input_ids"])
    assert np.array_equal(prompt.layout.boxes, expected.layout.boxes)


@pytest.mark.parametrize("family", ["blip-2", "mllama", "aya_vision"])
def test_a_processor_that_lacks_a_setting_is_named(family):
    model, processor = TINY[family]()
    del processor.image_token
    with pytest.raises(cm.CmllmError, match=rf"{type(processor).__name__} takes it"):
        cm.load((model, processor)).prepare(picture((80, 80)), QUESTION)


def test_a_question_of_half_characters_is_refused_as_such(mllm):
    with pytest.raises(cm.PromptError, match="A question must be a text of whole characters"):
        mllm.prepare(picture(), "what is \ud800 ?")


def test_a_whole_processor_is_the_users_own():
    model, processor = tiny_llava()
    assert cm.load((model, processor)).processor is processor


@pytest.mark.parametrize(
    "options", [{"truncation": True, "max_length": 12}, {"text_kwargs": {"truncation": True, "max_length": 12}}]
)
def test_a_prompt_is_not_cut_by_options(options):
    with pytest.raises(cm.PromptError, match=r"must not be cut.* it has \d+ tokens, and truncation leaves 12"):
        held().prepare(picture(), QUESTION, **options)
    assert asked(held().prepare(picture(), QUESTION, truncation=True, max_length=500)) == QUESTION


def test_a_prompt_is_not_cut_by_its_tokenizer():
    mllm = held()
    tokenizer = mllm.processor.tokenizer
    tokenizer.model_max_length = 14
    with pytest.raises(cm.PromptError, match="truncation leaves 14"):
        mllm.prepare(picture(), QUESTION, truncation=True)
    tokenizer.init_kwargs["truncation"] = True
    with pytest.raises(cm.PromptError, match="truncation leaves 14"):
        mllm.prepare(picture(), QUESTION)
    tokenizer.init_kwargs["truncation"] = False
    tokenizer.backend_tokenizer.enable_truncation(12)
    assert asked(mllm.prepare(picture(), QUESTION)) == QUESTION


def test_a_prompt_longer_than_the_models_positions_is_refused(mllm):
    long = "describe the object . " * 200
    with pytest.raises(cm.PromptError, match=r"longer than the model's positions; .* has 512, the prompt 8\d\d tokens"):
        mllm.prepare(picture(), long)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"videos": [1]}, "videos"),
        ({"audio": 1, "zebra": 2}, "audio, zebra"),
        ({"return_tensors": "np"}, "return_tensors"),
        ({"return_offsets_mapping": True}, "return_offsets_mapping"),
        ({"videos_kwargs": {"fps": 2}}, "videos_kwargs"),
        ({"text_kwargs": {"zebra": 1}}, "zebra"),
        ({"images_kwargs": {"zebra": 1}}, "zebra"),
    ],
)
def test_options_that_would_be_ignored_or_are_prepares_own_are_refused(mllm, options, named):
    with pytest.raises(cm.PromptError, match=rf"LlavaProcessor has none that is called {named}\."):
        mllm.prepare(picture(), QUESTION, **options)


def test_options_of_another_form_are_refused(mllm):
    with pytest.raises(cm.PromptError, match="text_kwargs must be a dictionary of options; got 3"):
        mllm.prepare(picture(), QUESTION, text_kwargs=3)
    with pytest.raises(cm.PromptError, match="must be such that LlavaProcessor takes them"):
        mllm.prepare(picture(), QUESTION, padding="zebra")


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (60, 3), (3, 60)])
def test_images_of_few_pixels_are_not_read_in_another_order(size):
    model, processor = TINY["video_llava"]()
    small, large = (Image.new("RGB", (size[0] * scale, size[1] * scale), (250, 120, 10)) for scale in (1, 8))
    prompt, expected = (cm.load((model, processor)).prepare(image, QUESTION) for image in (small, large))
    torch.testing.assert_close(prompt.inputs["pixel_values_images"], expected.inputs["pixel_values_images"])
    np.testing.assert_allclose(prompt.layout.boxes * 8, expected.layout.boxes, atol=1e-6)


@pytest.mark.parametrize("family", ["mistral3", "lighton_ocr", "gemma4"])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (1, 150), (150, 1)])
def test_images_too_small_for_a_model_are_refused_by_their_size(family, size):
    mllm = cm.load(TINY[family]())
    try:
        prompt = mllm.prepare(picture(size), QUESTION)
    except cm.ImageError as error:
        assert f"{size[0]} x {size[1]} px" in str(error)
    else:
        assert looks(mllm, prompt) > 0


def test_pairs_lists_pipelines_and_copies_over_devices_are_taken():
    model, processor = tiny_llava()
    for given in (
        [model, processor],
        SimpleNamespace(model=model, processor=processor, tokenizer=processor.tokenizer),
        cm.load((model, processor)),
        (torch.nn.DataParallel(model), processor),
        (torch.nn.DataParallel(torch.compile(model)), processor),
        (torch.compile(torch.nn.DataParallel(model)), processor),
    ):
        mllm = cm.load(given)
        assert mllm.model is model
        assert mllm.processor is processor


def test_a_pipeline_of_transformers_is_taken():
    from transformers import ImageTextToTextPipeline

    model, processor = tiny_llava()
    mllm = cm.load(ImageTextToTextPipeline(model=model, processor=processor))
    assert (mllm.model, mllm.processor) == (model, processor)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda m, p: m, r"with its processor, as load\(\(model, processor\)\); got LlavaForConditionalGeneration alone"),
        (lambda m, p: p, "pair .*got LlavaProcessor"),
        (lambda m, p: (m, p.tokenizer), "which holds an image processor and a tokenizer .*; got \\w+ with Llava"),
        (lambda m, p: (m, p.image_processor), "which holds an image processor and a tokenizer"),
        (lambda m, p: (m, None), "got NoneType with Llava"),
        (lambda m, p: (p, m), r"given as \(model, processor\); got LlavaProcessor in its place"),
        (lambda m, p: (1, 2), "got int in its place"),
        (lambda m, p: (m, p, 3), "got 3 parts"),
        (lambda m, p: (m,), "got 1 parts"),
        (lambda m, p: {"model": m, "processor": p}, "got dict"),
        (lambda m, p: 7, "got int"),
        (lambda m, p: b"model", "got bytes"),
        (lambda m, p: "", "got ''"),
        (lambda m, p: "~no-such-user-here/model", "there is no folder ~no-such-user-here/model"),
    ],
)
def test_what_is_no_model_with_its_processor_is_refused(given, message):
    with pytest.raises(cm.UnsupportedModelError, match=message):
        cm.load(given(*tiny_llava()))


def saved(folder, **settings):
    for part in tiny_llava(**settings):
        part.save_pretrained(folder)
    return folder


def test_a_home_folder_is_found_and_a_file_is_no_model(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "model")
    assert cm.load("~/model").model.config.model_type == "llava"
    with pytest.raises(cm.UnsupportedModelError, match=r"must be the folder of a checkpoint.* got the file"):
        cm.load("~/model/model.safetensors")
    with pytest.raises(cm.UnsupportedModelError, match="cannot be loaded"):
        cm.load("~/model", zebra=1)


def rewritten(folder, change):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    return folder


def test_a_checkpoint_without_some_weights_is_refused(tmp_path):
    rewritten(saved(tmp_path), lambda tensors: {k: v for k, v in tensors.items() if "vision" not in k})
    with pytest.raises(
        cm.UnsupportedModelError, match=r"must hold every weight.* lacks \d+ of LlavaFor.*vision_tower.*, \.\.\."
    ):
        cm.load(tmp_path)


def test_a_checkpoint_of_other_names_or_shapes_is_refused(tmp_path):
    rewritten(saved(tmp_path / "a"), lambda tensors: {k.replace("vision_tower", "vision"): v for k, v in tensors.items()})
    with pytest.raises(cm.UnsupportedModelError, match=r"lacks .*and has no place for \d+ that are there"):
        cm.load(tmp_path / "a")

    def shorter(tensors):
        key = next(key for key in tensors if key.endswith("lm_head.weight"))
        return tensors | {key: tensors[key][:-1].clone()}

    rewritten(saved(tmp_path / "b"), shorter)
    for options in ({}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(cm.UnsupportedModelError, match=r"lacks 1 of .*another shape \(lm_head\.weight\)"):
            cm.load(tmp_path / "b", **options)


def test_weights_without_a_place_are_named(tmp_path):
    rewritten(saved(tmp_path), lambda tensors: tensors | {"zebra.weight": torch.zeros(2)})
    with pytest.warns(UserWarning, match=r"no place for 1 weights of .*, which are left out \(zebra\.weight\)"):
        assert cm.load(tmp_path).layers == 3


def test_a_download_that_was_cut_is_refused(tmp_path):
    path = saved(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(cm.UnsupportedModelError, match="cannot be loaded"):
        cm.load(tmp_path)


def test_tied_and_quantised_weights_are_not_missing(tmp_path):
    model, processor = tiny_llava(width=64)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    mllm = cm.load(tmp_path)
    assert mllm.model.lm_head.weight is mllm.model.get_input_embeddings().weight


def test_a_slow_or_missing_tokenizer_is_no_processor():
    model, processor = tiny_llava()
    assert isinstance(processor.tokenizer, PreTrainedTokenizerFast)
    processor.tokenizer = None
    with pytest.raises(cm.UnsupportedModelError, match="which holds an image processor and a tokenizer"):
        cm.load((model, processor))
