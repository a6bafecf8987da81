"""Families whose image processor works on torchvision only, or whose encoder is one of timm's."""

import re

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from .base import CLIP, SIGLIP, Built, Words, images, model, processor, squared, text, tiny, tokenizer


@tiny("cohere2_vision", torchvision_only=True)
def cohere2_vision() -> Built:
    words = tokenizer(
        image_token="<|IMG_PATCH|>",
        boi_token="<|START_OF_IMG|>",
        eoi_token="<|END_OF_IMG|>",
        img_line_break_token="<|IMG_LINE_BREAK|>",
    )
    window = {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}
    built = model(
        "cohere2_vision",
        text_config=text(words, "cohere2", **window),
        vision_config=SIGLIP,
        alignment_intermediate_size=64,
        image_token_id=words.image_token_id,
    )
    # The processor's patch size is the side of a tile's grid of tokens.
    seen = squared("Cohere2VisionImageProcessor", patch_size=2, max_patches=6)
    return built, transformers.Cohere2VisionProcessor(seen, words)


@tiny("perception_lm", torchvision_only=True)
def perception_lm() -> Built:
    words = tokenizer(image_token="<|image|>", video_token="<|video|>")
    built = model(
        "perception_lm",
        text_config=text(words),
        # Width, depth and picture are set where real checkpoints set theirs.
        vision_config={
            "architecture": "vit_pe_core_large_patch14_336",
            "model_args": {
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
                "img_size": [32, 32],
                "patch_size": 8,
                "ref_feat_shape": [4, 4],
                "global_pool": "",
                "use_post_transformer_norm": False,
                "init_values": 0.1,
            },
        },
        projector_pooling_ratio=2,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
    )
    seen = images("PerceptionLMImageProcessor", tile_size=32, max_num_tiles=6)
    return built, processor(
        "PerceptionLMProcessor", [seen, words], "PerceptionLMVideoProcessor", patch_size=8, pooling_ratio=2
    )


@tiny("lfm2_vl", torchvision_only=True)
def lfm2_vl() -> Built:
    places = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    words = tokenizer(
        *places,
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail_token="<|img_thumbnail|>",
    )
    layers = {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_hidden_layers": 4}
    vision = SIGLIP | {"model_type": "siglip2_vision_model", "num_patches": 16, "patch_size": 4}
    built = model(
        "lfm2_vl",
        text_config=text(words, "lfm2", **layers, conv_L_cache=3, block_auto_adjust_ff_dim=False),
        vision_config=vision,
        projector_hidden_size=64,
        image_token_id=words.image_token_id,
    )
    seen = images(
        "Lfm2VlImageProcessor",
        encoder_patch_size=4,
        tile_size=32,
        max_tiles=4,
        min_image_tokens=4,
        max_image_tokens=24,
    )
    return built, transformers.Lfm2VlProcessor(seen, words)


@tiny("llama4", torchvision_only=True)
def llama4() -> Built:
    separators = ["<|tile_x_separator|>", "<|tile_y_separator|>"]
    words = tokenizer("<|image|>", "<|image_start|>", "<|image_end|>", *separators, image_token="<|patch|>")
    layers = {"no_rope_layers": [1, 1, 0], "num_hidden_layers": 3, "attention_chunk_size": 24, "moe_layers": [1]}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "projector_input_dim": 32,
        "projector_output_dim": 32,
        "vision_output_dim": 32,
    }
    built = model(
        "llama4",
        text_config=text(words, "llama4_text", **layers, head_dim=8, intermediate_size_mlp=64, num_local_experts=2),
        vision_config=vision,
        image_token_index=words.image_token_id,
    )
    seen = squared("Llama4ImageProcessor", max_patches=6)
    return built, transformers.Llama4Processor(seen, words, patch_size=8, chat_template=None)


@tiny("molmo2", torchvision_only=True)
def molmo2() -> Built:
    marks = ["<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>", "<im_end>", "<frame_end>", "<im_low>"]
    words = tokenizer("<im_patch>", *marks, image_token="<|image|>", video_token="<|video|>")
    number = words.convert_tokens_to_ids
    vision = {key: CLIP[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
    heads = {"num_key_value_heads": 2, "head_dim": 16, "num_attention_heads": 2}
    built = model(
        "molmo2",
        text_config=text(words, "molmo2_text", head_dim=8, additional_vocab_size=4, rope_scaling_layers=[0]),
        vision_config=vision | heads | {"image_size": [28, 28], "patch_size": 4},
        adapter_config=heads
        | {"hidden_size": 32, "intermediate_size": 64, "text_hidden_size": 32, "vision_feature_layer": [-1, -2]},
        image_patch_id=number("<im_patch>"),
        image_start_token_id=number("<im_start>"),
        low_res_image_start_token_id=number("<low_res_im_start>"),
        image_end_token_id=number("<im_end>"),
        frame_start_token_id=number("<frame_start>"),
        frame_end_token_id=number("<frame_end>"),
    )
    # Gates multiply: behind them, small weights would leave nothing to see beside the placeholder's own embedding.
    adapter = built.model.multi_modal_projector
    for module in (adapter.image_pooling_2d.v_proj, adapter.image_pooling_2d.o_proj, *adapter.image_projector.children()):
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.3)
    seen = squared("Molmo2ImageProcessor", 28, patch_size=4, max_crops=4, overlap_margins=[1, 1])
    return built, processor("Molmo2Processor", [seen, words], "Molmo2VideoProcessor")


@tiny("kimi_k25", torchvision_only=True)
def kimi_k25() -> Built:
    words = tokenizer("<|media_begin|>", "<|media_end|>", image_token="<|media_pad|>", video_token="<|video|>")
    latent = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 4,
        "pos_emb_height": 8,
        "pos_emb_width": 8,
    }
    built = model(
        "kimi_k25",
        text_config=text(words, "deepseek_v3", **latent, **experts, moe_intermediate_size=32) | {"num_key_value_heads": 4},
        vision_config=vision,
        projection_hidden_size=32,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
    )
    seen = images("Kimi_K25ImageProcessor", patch_size=4, max_patches=64, size={"max_height": 16, "max_width": 16})
    return built, processor("Kimi_K25Processor", [seen, words], "Kimi_K25VideoProcessor")


@tiny("fuyu", torchvision_only=True)
def fuyu() -> Built:
    words = tokenizer()
    words.add_tokens(["|SPEAKER|", "|NEWLINE|", "<0x04>", "_"])
    # As in the published one, a mark comes before the first token, and Fuyu's processor takes it off.
    core = Tokenizer(models.WordLevel(words.get_vocab(), unk_token="<unk>"))
    core.normalizer = normalizers.Prepend("_ ")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\|[A-Z]+\||<0x04>"), "isolated"), pre_tokenizers.WhitespaceSplit()]
    )
    words = Words(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>")
    config = text(words, "persimmon", qk_layernorm=True, hidden_act="relu2")
    built = model("fuyu", text_config=config, patch_size=8, image_token_id=words.convert_tokens_to_ids("|SPEAKER|"))
    seen = images("FuyuImageProcessor", size={"height": 64, "width": 96}, patch_size={"height": 8, "width": 8})
    return built, transformers.FuyuProcessor(seen, words)


def look_at_own_cells(encoder: torch.nn.Module) -> None:
    """Gives the kernels of a convolutional encoder random weights, largest at the pixels of the output's own cell.

    Small weights would leave nothing to see where a layer is not added to what came before. Where a strided kernel looks
    most is for training to say; without such weights it is where the padding puts its middle, up to half a cell aside.
    """
    for name, module in encoder.named_modules():
        # What is added stays small: positions have kernels of seven cells, and layer scales are small from the start.
        if isinstance(module, torch.nn.Conv2d) and not re.search(r"\.(pos_emb|se)\.", name):
            weight, stride = module.weight.data, module.stride[0]
            # timm pads by itself where a convolution has no padding.
            before = module.padding[0] or (weight.shape[-1] - stride) // 2
            away = torch.arange(weight.shape[-1]) - before - (stride - 1) / 2
            near = torch.exp(-2 * away**2)
            torch.nn.init.normal_(weight).mul_(near[:, None] * near)
            weight.mul_((2 / weight.square().sum((1, 2, 3), keepdim=True)).sqrt())
        elif getattr(module, "has_skip", True) is False and hasattr(getattr(module, "layer_scale", None), "gamma"):
            torch.nn.init.ones_(module.layer_scale.gamma)


@tiny("fast_vlm", torchvision_only=True)
def fast_vlm() -> Built:
    words = tokenizer(image_token="<image>")
    # The published encoder with fewer and narrower layers; a token is 64 px wide.
    vision = {
        "model_type": "timm_wrapper",
        "architecture": "fastvit_mci3",
        "hidden_size": 128,
        "model_args": {"layers": [1, 1, 2, 1, 1], "embed_dims": [8, 16, 32, 32, 64]},
    }
    built = model("fast_vlm", text_config=text(words, "qwen2"), vision_config=vision, image_token_id=words.image_token_id)
    look_at_own_cells(built.model.vision_tower)
    seen = squared("LlavaImageProcessor", 512, do_pad=True, do_center_crop=False)
    return built, transformers.LlavaProcessor(seen, words, patch_size=64, vision_feature_select_strategy="full")


@tiny("gemma3n", torchvision_only=True)
def gemma3n() -> Built:
    ends = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    ends |= {"boa_token": "<start_of_audio>", "eoa_token": "<end_of_audio>"}
    words = tokenizer(image_token="<image_soft_token>", audio_token="<audio_soft_token>", **ends)
    config = text(
        words,
        "gemma3n_text",
        num_hidden_layers=4,
        head_dim=8,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=len(words),
        laurel_rank=4,
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.5, 0.0, 0.0, 0.0],
    )
    narrow = {"channel_multiplier": 0.02, "msfa_output_resolution": 4}
    audio = {"hidden_size": 32, "conf_num_hidden_layers": 1, "conf_num_attention_heads": 2, "vocab_size": 4}
    built = model(
        "gemma3n",
        text_config=config,
        # Its depth, and the width of what it gives, are timm's constants.
        vision_config={"model_args": narrow, "vocab_offset": len(words), "vocab_size": 4},
        audio_config=audio | {"vocab_offset": len(words) + 4},
        vision_soft_tokens_per_image=16,
        **{f"{name}_id": words.convert_tokens_to_ids(token) for name, token in ends.items()},
        image_token_id=words.image_token_id,
        audio_token_id=words.audio_token_id,
    )
    look_at_own_cells(built.model.vision_tower)
    listener = transformers.Gemma3nAudioFeatureExtractor()
    return built, transformers.Gemma3nProcessor(
        listener, squared("SiglipImageProcessorPil", 192), words, image_seq_length=16
    )
