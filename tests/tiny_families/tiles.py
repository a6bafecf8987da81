"""Families that cut an image into tiles."""

import transformers
from transformers.models.smolvlm import processing_smolvlm

from cmllm_tools.models.processors import without_video

from .base import CLIP, HALF, SIGLIP, Built, Words, images, model, processor, squared, text, tiny, tokenizer

PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
ANYRES = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "image_grid_pinpoints": PINPOINTS}
CLS = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


@tiny("llava_next")
def llava_next() -> Built:
    words = tokenizer(image_token="<image>")
    processor = transformers.LlavaNextProcessor(images("LlavaNextImageProcessorPil", **ANYRES), words, **CLS)
    config = {"image_grid_pinpoints": PINPOINTS, "image_token_id": words.image_token_id, "vision_feature_layer": -1}
    return model("llava_next", text_config=text(words), vision_config=CLIP, **config), processor


@tiny("llava_next_video")
def llava_next_video() -> Built:
    words = tokenizer(image_token="<image>", video_token="<video>")
    parts = [images("LlavaNextImageProcessorPil", **ANYRES), words]
    frames = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    whole = processor("LlavaNextVideoProcessor", parts, "LlavaNextVideoVideoProcessor", frames, **CLS)
    config = {"image_grid_pinpoints": PINPOINTS, "image_seq_length": 16, "vision_feature_layer": -1}
    built = model("llava_next_video", text_config=text(words), vision_config=CLIP, **config, **image_and_video(words))
    return built, whole


@tiny("granite4_vision")
def granite4_vision() -> Built:
    words = tokenizer(image_token="<image>")
    settings = CLS | {"patch_size": 4, "downsample_rate": "2/4"}
    processor = transformers.Granite4VisionProcessor(images("LlavaNextImageProcessorPil", **ANYRES), words, **settings)
    granite = {"embedding_multiplier": 2.0, "attention_multiplier": 0.35, "residual_multiplier": 0.5, "logits_scaling": 2.0}
    built = model(
        "granite4_vision",
        text_config=text(words, "granite4_vision_text", **granite),
        vision_config=CLIP | {"hidden_size": 64, "patch_size": 4},
        qformer_config={"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 8},
        image_grid_pinpoints=PINPOINTS,
        image_token_id=words.image_token_id,
        downsample_rate="2/4",
        deepstack_layer_map=[[-2, 0]],
        spatial_target_layers=[1, 2, 3, 4],
    )
    return built, processor


def image_and_video(words: Words) -> dict:
    return {"image_token_id": words.image_token_id, "video_token_id": words.video_token_id}


@tiny("llava_onevision")
def llava_onevision() -> Built:
    words = tokenizer(image_token="<image>", video_token="<video>")
    # More than two tiles' tokens are interpolated: those of the square picture.
    settings = {"vision_aspect_ratio": "anyres_max_2"}
    seen = squared("LlavaOnevisionImageProcessorPil", image_grid_pinpoints=PINPOINTS)
    full = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    frames = {"size": {"height": 32, "width": 32}}
    parts = [seen, words]
    whole = processor("LlavaOnevisionProcessor", parts, "LlavaOnevisionVideoProcessor", frames, **full, **settings)
    config = {"image_grid_pinpoints": PINPOINTS, **image_and_video(words), **settings}
    vision = SIGLIP | {"vision_use_head": False}
    return model("llava_onevision", text_config=text(words, "qwen2"), vision_config=vision, **config), whole


def internvl_tokens(**named: str) -> Words:
    return tokenizer(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", **named)


def internvl_config(words: Words) -> dict:
    vision = {key: value for key, value in CLIP.items() if key != "model_type"} | {"layer_scale_init_value": 1.0}
    return {"vision_config": vision, "image_token_id": words.context_image_token_id, "image_seq_length": 4}


def stretched(**settings: object) -> object:
    return squared("GotOcr2ImageProcessorPil", max_patches=6, **settings)


@tiny("internvl")
def internvl() -> Built:
    words = internvl_tokens(video_token="<video>")
    parts, frames = [stretched(crop_to_patches=True), words], {"size": {"height": 32, "width": 32}}
    whole = processor("InternVLProcessor", parts, "InternVLVideoProcessor", frames, image_seq_length=4)
    return model("internvl", text_config=text(words, "qwen2"), **internvl_config(words)), whole


@tiny("qianfan_ocr")
def qianfan_ocr() -> Built:
    words = internvl_tokens(placeholder="<image>")
    processor = transformers.QianfanOCRProcessor(stretched(crop_to_patches=True), words, image_seq_length=4)
    return model("qianfan_ocr", text_config=text(words, "qwen3", head_dim=8), **internvl_config(words)), processor


@tiny("aya_vision")
def aya_vision() -> Built:
    marks = ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE_GLOBAL", *(f"TILE_{n}" for n in range(1, 7))]
    words = tokenizer("<image>", *marks)
    config = text(words, "cohere2", sliding_window=12, layer_types=["sliding_attention", "full_attention"])
    built = model(
        "aya_vision",
        text_config=config,
        vision_config=SIGLIP | {"vision_use_head": False},
        image_token_id=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    return built, transformers.AyaVisionProcessor(stretched(), words, patch_size=8, img_size=32, downsample_factor=2)


SAM = {
    "hidden_size": 32,
    "mlp_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 4,
    "output_channels": 32,
    "window_size": 4,
    "global_attn_indexes": [1],
}


def got_tokens() -> Words:
    return tokenizer("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>")


def got_config(words: Words) -> dict:
    ids = {"image_token_id": words.convert_tokens_to_ids("<imgpad>"), "image_seq_length": 16}
    return {"text_config": text(words, "qwen2"), "vision_config": SAM, **ids}


@tiny("got_ocr2")
def got_ocr2() -> Built:
    words = got_tokens()
    # A setting of the class that is neither saved nor loaded.
    transformers.GotOcr2Processor.num_image_tokens = 16
    transformers.GotOcr2Processor.images_kwargs = {"crop_to_patches": True, "max_patches": 4}
    return model("got_ocr2", **got_config(words)), transformers.GotOcr2Processor(stretched(side=64), words)


@tiny("pp_chart2table")
def pp_chart2table() -> Built:
    words = got_tokens()
    pads = "<imgpad>" * 16
    template = f"<|im_start|>user <img>{pads}</img> {{{{ messages[0]['content'][1]['text'] }}}} <|im_end|>"
    processor = transformers.PPChart2TableProcessor(squared("PPChart2TableImageProcessorPil", 64), words, template)
    return model("pp_chart2table", **got_config(words)), processor


IDEFICS_MARKS = [
    "<fake_token_around_image>",
    "<global-img>",
    "<image>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
]


def idefics_config(words: Words) -> dict:
    vision = {key: value for key, value in CLIP.items() if key != "model_type"}
    return {"vision_config": vision, "image_token_id": words.convert_tokens_to_ids("<image>"), "text_config": text(words)}


SPLIT = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}, **HALF}


@tiny("idefics3")
def idefics3() -> Built:
    words = tokenizer(*IDEFICS_MARKS)
    processor = transformers.Idefics3Processor(images("Idefics3ImageProcessorPil", **SPLIT), words, image_seq_len=4)
    return model("idefics3", **idefics_config(words)), processor


@tiny("smolvlm")
def smolvlm() -> Built:
    # The processor asks for a package that only its video part uses.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    words = tokenizer("<video>", *IDEFICS_MARKS)
    parts, frames = [images("SmolVLMImageProcessorPil", **SPLIT), words], SPLIT
    whole = processor("SmolVLMProcessor", parts, "SmolVLMVideoProcessor", frames, image_seq_len=4)
    return model("smolvlm", **idefics_config(words)), whole


@tiny("granite_docling")
def granite_docling() -> Built:
    words = tokenizer(*IDEFICS_MARKS)
    vision = {key: value for key, value in CLIP.items() if key != "model_type"} | {"patch_size": 4, "out_hidden_size": 32}
    granite = {"embedding_multiplier": 2.0, "attention_multiplier": 0.35, "residual_multiplier": 0.5, "logits_scaling": 2.0}
    built = model(
        "granite_docling",
        text_config=text(words, "granite_docling_text", num_hidden_layers=3, **granite),
        vision_config=vision | {"deepstack_visual_indexes": [0, 1]},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=words.pad_token_id,
    )
    return built, transformers.GraniteDoclingProcessor(
        squared("GraniteDoclingImageProcessorPil", max_patches=6), words, image_seq_len=4
    )


MINICPM_MARKS = {
    f"{mark}_{end}_token": f"<{'/' * (end == 'end')}{mark}>"
    for mark in ("image", "slice", "image_id")
    for end in ("start", "end")
}


def minicpm(version: str, words: Words, **config: object) -> Built:
    vision = {key: value for key, value in CLIP.items() if key != "model_type"} | {"patch_size": 4}
    linear = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "head_dim": 16,
    }
    built = model(
        f"minicpmv{version}",
        text_config=text(words, "qwen3_5_text", **linear),
        vision_config=vision,
        insert_layer_id=0,
        image_size=32,
        **image_and_video(words),
        **config,
    )
    seen = images("MiniCPMV4_6ImageProcessorPil", patch_size=4, scale_resolution=48, max_slice_nums=6)
    return built, without_video(getattr(transformers, f"MiniCPMV{version}Processor")).from_args_and_dict([seen, words], {})


@tiny("minicpmv4_6")
def minicpmv4_6() -> Built:
    return minicpm("4_6", tokenizer(image_token="<|image_pad|>", video_token="<|video_pad|>", **MINICPM_MARKS))


@tiny("minicpmv4_7")
def minicpmv4_7() -> Built:
    words = tokenizer("\n", image_token="<|image_pad|>", video_token="<|video_pad|>", **MINICPM_MARKS)
    marks = {
        f"{mark}_id": getattr(words, f"{mark}_token_id")
        for mark in ("image_start", "image_end", "slice_start", "slice_end")
    }
    return minicpm("4_7", words, newline_id=words.convert_tokens_to_ids("\n"), **marks)
