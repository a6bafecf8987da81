"""Families with one grid of visual tokens in the sequence."""

import transformers

from cmllm_tools.models.processors import without_video

from .base import CLIP, SIGLIP, Built, Words, images, model, squared, text, tiny, tokenizer


def llava_processor(words: Words, **settings: object) -> object:
    clip = images("CLIPImageProcessorPil", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, **settings)
    return transformers.LlavaProcessor(
        clip, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


@tiny("llava")
def llava() -> Built:
    words = tokenizer(image_token="<image>")
    config = {"vision_feature_layer": -1, "image_token_id": words.image_token_id}
    return model("llava", text_config=text(words), vision_config=CLIP, **config), llava_processor(words)


@tiny("vipllava")
def vipllava() -> Built:
    words = tokenizer(image_token="<image>")
    config = {"vision_feature_layers": [-2, -1], "image_token_id": words.image_token_id}
    return model("vipllava", text_config=text(words), vision_config=CLIP, **config), llava_processor(words)


@tiny("video_llava")
def video_llava() -> Built:
    words = tokenizer(image_token="<image>", video_token="<video>")
    ids = {"image_token_id": words.image_token_id, "video_token_id": words.video_token_id}
    config = {"vision_feature_layer": -1, "image_seq_length": 16, **ids}
    seen = images("VideoLlavaImageProcessor", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    cls = without_video(transformers.VideoLlavaProcessor)
    processor = cls.from_args_and_dict([seen, words], {"patch_size": 8})
    return model("video_llava", text_config=text(words), vision_config=CLIP, **config), processor


@tiny("paligemma")
def paligemma() -> Built:
    words = tokenizer(image_token="<image>")
    vision = SIGLIP | {"projection_dim": 32}
    built = model(
        "paligemma",
        text_config=text(words, "gemma", head_dim=8),
        vision_config=vision,
        projection_dim=32,
        image_token_id=words.image_token_id,
    )
    return built, transformers.PaliGemmaProcessor(squared("SiglipImageProcessorPil", image_seq_length=16), words)


@tiny("gemma3")
def gemma3() -> Built:
    words = tokenizer(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    window = {"head_dim": 8, "sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}
    built = model(
        "gemma3",
        text_config=text(words, "gemma3_text", **window, query_pre_attn_scalar=8),
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        image_token_id=words.image_token_id,
        boi_token_id=words.boi_token_id,
        eoi_token_id=words.eoi_token_id,
    )
    processor = transformers.Gemma3Processor(squared("Gemma3ImageProcessorPil"), words, image_seq_length=4)
    return built, processor
