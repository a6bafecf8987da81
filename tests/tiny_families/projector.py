"""Families with one grid of visual tokens in the sequence."""

import torch
import transformers

from cmllm_tools.models.processors import processor_class, without_video

from .base import CLIP, SIGLIP, Built, Words, images, model, processor, squared, text, tiny, tokenizer

PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 4,
}


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
    frames = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    whole = processor("VideoLlavaProcessor", [seen, words], "VideoLlavaVideoProcessor", frames, patch_size=8)
    return model("video_llava", text_config=text(words), vision_config=CLIP, **config), whole


@tiny("paligemma")
def paligemma() -> Built:
    words = tokenizer(image_token="<image>")
    # It adds the tokens of places to the tokenizer's, which the model must have.
    processor = transformers.PaliGemmaProcessor(squared("SiglipImageProcessorPil", image_seq_length=16), words)
    vision = SIGLIP | {"projection_dim": 32}
    # As PaliGemma 2: soft-capped logits, and a window in every other layer.
    capped = {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "sliding_window": 8}
    built = model(
        "paligemma",
        text_config=text(words, "gemma2", layer_types=["sliding_attention", "full_attention"], **capped),
        vision_config=vision,
        projection_dim=32,
        image_token_id=words.image_token_id,
    )
    return built, processor


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


@tiny("janus")
def janus() -> Built:
    words = tokenizer(image_token="<image_placeholder>", boi_token="<begin_of_image>", eoi_token="<end_of_image>")
    vision = SIGLIP | {"model_type": "janus_vision_model", "mlp_ratio": 2, "projection_dim": 32, "num_image_tokens": 16}
    codes = {
        "base_channels": 32,
        "channel_multiplier": [1],
        "num_res_blocks": 1,
        "latent_channels": 32,
        "num_embeddings": 8,
    }
    built = model(
        "janus",
        text_config=text(words),
        vision_config=vision,
        vq_config=codes | {"projection_dim": 32, "image_token_embed_dim": 32},
        image_token_id=words.image_token_id,
    )
    return built, transformers.JanusProcessor(squared("JanusImageProcessorPil", min_size=4), words, num_image_tokens=16)


@tiny("deepseek_vl")
def deepseek_vl() -> Built:
    words = tokenizer(image_token="<image_placeholder>")
    built = model("deepseek_vl", text_config=text(words), vision_config=SIGLIP, image_token_id=words.image_token_id)
    seen = squared("DeepseekVLImageProcessorPil", min_size=4)
    return built, transformers.DeepseekVLProcessor(seen, words, num_image_tokens=16)


@tiny("deepseek_vl_hybrid")
def deepseek_vl_hybrid() -> Built:
    words = tokenizer(image_token="<image_placeholder>")
    sam = {
        "model_type": "sam_vision_model",
        "hidden_size": 32,
        "output_channels": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 4,
        "mlp_dim": 64,
        "window_size": 4,
        "global_attn_indexes": [1],
    }
    built = model(
        "deepseek_vl_hybrid",
        text_config=text(words),
        vision_config=SIGLIP,
        high_res_vision_config=sam,
        image_token_id=words.image_token_id,
    )
    seen = squared("DeepseekVLHybridImageProcessorPil", min_size=4, high_res_size={"height": 64, "width": 64})
    return built, transformers.DeepseekVLHybridProcessor(seen, words, num_image_tokens=16)


def pixtral_images(patch: int) -> object:
    return images("PixtralImageProcessorPil", size={"longest_edge": 48}, patch_size={"height": patch, "width": patch})


@tiny("mistral3")
def mistral3() -> Built:
    words = tokenizer("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    config = text(words, "mistral", head_dim=8, sliding_window=None)
    image_id = words.convert_tokens_to_ids("[IMG]")
    built = model("mistral3", text_config=config, vision_config=PIXTRAL, spatial_merge_size=2, image_token_id=image_id)
    return built, processor_class("PixtralProcessor")(pixtral_images(8), words, patch_size=4, spatial_merge_size=2)


@tiny("lighton_ocr")
def lighton_ocr() -> Built:
    words = tokenizer(image_token="<|image_pad|>", image_break_token="<|vision_pad|>", image_end_token="<|vision_end|>")
    config = text(words, "qwen3", head_dim=8)
    built = model("lighton_ocr", text_config=config, vision_config=PIXTRAL, image_token_id=words.image_token_id)
    # In patches, not in tokens: merging leaves an odd row or column out.
    return built, transformers.LightOnOcrProcessor(pixtral_images(4), words, patch_size=4, spatial_merge_size=2)


@tiny("ovis2")
def ovis2() -> Built:
    indicators = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    words = tokenizer("<image>", "<IMG_ATOM>", *indicators)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 48,
        "patch_size": 8,
        "vocab_size": 64,
        "hidden_stride": 2,
    }
    built = model(
        "ovis2",
        text_config=text(words, "qwen2"),
        vision_config=vision,
        image_token_id=words.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=words.convert_tokens_to_ids(indicators),
        vocab_size=len(words),
        hidden_size=32,
    )
    seen = squared("Ovis2ImageProcessorPil", 48, crop_to_patches=True, max_patches=6)
    return built, transformers.Ovis2Processor(seen, words, image_seq_length=9)


@tiny("gemma4")
def gemma4() -> Built:
    ends = {"boi_token": "<|image>", "eoi_token": "<image|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    words = tokenizer("<|video|>", image_token="<|image|>", audio_token="<|audio|>", **ends)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "patch_size": 4,
        "pooling_kernel_size": 2,
        "position_embedding_size": 64,
    }
    config = text(
        words,
        "gemma4_text",
        num_hidden_layers=4,
        head_dim=8,
        global_head_dim=16,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=len(words),
        use_bidirectional_attention="vision",
        final_logit_softcapping=30.0,
    )
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(f"<|{name}|>") for name in ("image", "video", "audio")}
    ids |= {f"{name}_id": words.convert_tokens_to_ids(token) for name, token in ends.items()}
    built = model("gemma4", text_config=config, vision_config=vision, **ids)
    # The only scale of its logits; at one, attention is so sharp that rounding in bfloat16 moves it by more than 3%.
    for layer in built.get_decoder().layers:
        torch.nn.init.constant_(layer.self_attn.q_norm.weight, 0.4)
    # Norms behind the encoder's layers undo the small weights that keep its tokens local.
    for layer in built.model.vision_tower.encoder.layers:
        torch.nn.init.constant_(layer.post_attention_layernorm.weight, 0.002)
        torch.nn.init.constant_(layer.post_feedforward_layernorm.weight, 0.002)
    parts = [
        transformers.Gemma4AudioFeatureExtractor(),
        images("Gemma4ImageProcessorPil", patch_size=4, pooling_kernel_size=2, max_soft_tokens=70),
        words,
    ]
    return built, without_video(transformers.Gemma4Processor).from_args_and_dict(parts, {})
