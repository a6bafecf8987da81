"""Families with a grid of the image's own shape, whose patches are merged.

Processors here have no chat template, so that each family's own template is tested; qwen2_vl's is the exception.
"""

from .base import Built, Words, images, model, processor, text, tiny, tokenizer

VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 32,
}
SIGLIP_GRID = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
}
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
# Heads of width 16, half of which is rotated.
HALF_ROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4, "partial_rotary_factor": 0.5}
INTERLEAVED = HALF_ROPE | {"mrope_interleaved": True}
QWEN_TEMPLATE = (
    "{% for message in messages %}user : {% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|> {% elif part['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|> {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    " assistant :"
)


def qwen_processor(
    name: str, words: Words, seen: str = "Qwen2VLImageProcessorPil", chat_template: str | None = None, **settings: object
) -> object:
    size = {"shortest_edge": 256, "longest_edge": 4096}
    part = images(seen, **{"patch_size": 4, "merge_size": 2, "size": size} | settings)
    # The limits of Qwen3-VL's are of all frames together.
    video = "Qwen3VLVideoProcessor" if name == "Qwen3VLProcessor" else "Qwen2VLVideoProcessor"
    frames = {"patch_size": 4, "merge_size": 2, "size": size, "cap_pixels_per_frame": False}
    return processor(name, [part, words], video, frames, chat_template=chat_template)


# Tokenizer classes of some families split every checkpoint's words into characters of these, in the way of GPT-2.
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz:\u0120\u010a")


def qwen_tokens(*more: str) -> Words:
    return tokenizer(
        *more,
        im_start_token="<|im_start|>",
        im_end_token="<|im_end|>",
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
    )


def qwen_ids(words: Words) -> dict:
    return {
        "image_token_id": words.image_token_id,
        "video_token_id": words.video_token_id,
        "vision_start_token_id": words.vision_start_token_id,
        "vision_end_token_id": words.vision_end_token_id,
    }


def qwen(family: str, words: Words, vision: dict, seen: str, **config: object) -> Built:
    built = model(family, text_config=text(words, f"{family}_text", **config), vision_config=vision, **qwen_ids(words))
    return built, qwen_processor(seen, words)


@tiny("qwen2_vl")
def qwen2_vl() -> Built:
    words = qwen_tokens()
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    config = text(words, "qwen2_vl_text", rope_parameters=MROPE)
    built = model("qwen2_vl", text_config=config, vision_config=vision, **qwen_ids(words))
    return built, qwen_processor("Qwen2VLProcessor", words, chat_template=QWEN_TEMPLATE)


@tiny("qwen2_5_vl")
def qwen2_5_vl() -> Built:
    # Windows of 2 x 2 tokens in the first layer of the encoder, of 12 tokens in the second of the text.
    vision = VISION | {"window_size": 16, "fullatt_block_indexes": [1]}
    window = {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}
    return qwen("qwen2_5_vl", qwen_tokens(), vision, "Qwen2_5_VLProcessor", rope_parameters=MROPE, **window)


DEEPSTACK = VISION | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# The output of narrow linear heads is near zero by chance, and the norm after it would blow up what is there.
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "head_dim": 16,
    "rope_parameters": INTERLEAVED,
}


@tiny("qwen3_vl")
def qwen3_vl() -> Built:
    rope = INTERLEAVED | {"partial_rotary_factor": 1.0}
    return qwen("qwen3_vl", qwen_tokens(), DEEPSTACK, "Qwen3VLProcessor", head_dim=8, rope_parameters=rope)


@tiny("qwen3_vl_moe")
def qwen3_vl_moe() -> Built:
    rope = INTERLEAVED | {"partial_rotary_factor": 1.0}
    return qwen("qwen3_vl_moe", qwen_tokens(), DEEPSTACK, "Qwen3VLProcessor", rope_parameters=rope, **EXPERTS)


@tiny("qwen3_5")
def qwen3_5() -> Built:
    return qwen("qwen3_5", qwen_tokens(*LETTERS), VISION | {"num_position_embeddings": 64}, "Qwen3VLProcessor", **LINEAR)


@tiny("qwen3_5_moe")
def qwen3_5_moe() -> Built:
    vision, experts = VISION | {"num_position_embeddings": 64}, EXPERTS | {"shared_expert_intermediate_size": 16}
    return qwen("qwen3_5_moe", qwen_tokens(*LETTERS), vision, "Qwen3VLProcessor", **LINEAR, **experts)


def glm(family: str, seen: str, *parts: str, whole: str = "Glm4vProcessor", **config: object) -> Built:
    """A GLM model whose text and vision configs have the model types `parts`."""
    words = tokenizer(
        mask_token="[gMASK]",
        sop_token="<sop>",
        user_token="<|user|>",
        assistant_token="<|assistant|>",
        image_token="<|image|>",
        video_token="<|video|>",
        image_start_token="<|begin_of_image|>",
        image_end_token="<|end_of_image|>",
        video_start_token="<|begin_of_video|>",
        video_end_token="<|end_of_video|>",
    )
    names = ("image", "video", "image_start", "image_end", "video_start", "video_end")
    numbers = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in names}
    built = model(
        family,
        text_config=text(words, parts[0], head_dim=16, rope_parameters=HALF_ROPE, **config),
        vision_config=VISION | {"model_type": parts[1], "image_size": 32},
        **numbers,
    )
    return built, qwen_processor(whole, words, seen)


@tiny("glm4v")
def glm4v() -> Built:
    return glm("glm4v", "Glm4vImageProcessorPil", "glm4v_text", "glm4v_vision")


@tiny("glm4v_moe")
def glm4v_moe() -> Built:
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
    return glm("glm4v_moe", "Glm4vImageProcessorPil", "glm4v_moe_text", "glm4v_moe_vision", **experts)


@tiny("glm46v")
def glm46v() -> Built:
    return glm("glm46v", "Glm46VImageProcessorPil", "glm4v_text", "glm4v_vision", whole="Glm46VProcessor")


@tiny("glm_ocr")
def glm_ocr() -> Built:
    return glm("glm_ocr", "Glm46VImageProcessorPil", "glm_ocr_text", "glm_ocr_vision", whole="Glm46VProcessor")


@tiny("paddleocr_vl")
def paddleocr_vl() -> Built:
    words = tokenizer(
        begin_token="<|begin_of_sentence|>",
        image_token="<|IMAGE_PLACEHOLDER|>",
        video_token="<|video_pad|>",
        vision_start_token="<|IMAGE_START|>",
        vision_end_token="<|IMAGE_END|>",
    )
    vision = SIGLIP_GRID | {"image_size": 32}
    config = text(words, "paddleocr_vl_text", head_dim=8, rope_parameters=MROPE)
    built = model("paddleocr_vl", text_config=config, vision_config=vision, **qwen_ids(words))
    return built, qwen_processor("PaddleOCRVLProcessor", words, "PaddleOCRVLImageProcessorPil")


@tiny("video_llama_3")
def video_llama_3() -> Built:
    words = qwen_tokens()
    numbers = {"image_token_id": words.image_token_id, "video_token_id": words.video_token_id}
    built = model("video_llama_3", text_config=text(words, "qwen2"), vision_config=SIGLIP_GRID, **numbers)
    return built, qwen_processor("VideoLlama3Processor", words, "VideoLlama3ImageProcessorPil")


@tiny("glmga")
def glmga() -> Built:
    return glm("glmga", "GlmgaImageProcessorPil", "glm4v_text", "glm4v_vision", whole="Glm46VProcessor")


@tiny("ernie4_5_vl_moe")
def ernie4_5_vl_moe() -> Built:
    named = {
        f"{kind}{part}_token": f"<|{kind.upper()}_{place}|>"
        for kind in ("image", "video")
        for part, place in (("", "PLACEHOLDER"), ("_start", "START"), ("_end", "END"))
    }
    words = tokenizer(begin_token="<|begin_of_sentence|>", **named)
    numbers = {f"{name}_id": getattr(words, f"{name}_id") for name in named}
    experts = {"moe_intermediate_size": [16, 16], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1}
    config = text(words, "ernie4_5_vl_moe_text", rope_parameters=MROPE, **experts)
    built = model("ernie4_5_vl_moe", text_config=config, vision_config=VISION, **numbers)
    return built, qwen_processor("Ernie4_5_VLMoeProcessor", words, "Ernie4_5_VLMoeImageProcessorPil")


WINDOWED = VISION | {"window_size": 16, "fullatt_block_indexes": [1]}


@tiny("exaone4_5")
def exaone4_5() -> Built:
    words = qwen_tokens()
    window = {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 8}
    numbers = {"image_token_id": words.image_token_id, "video_token_id": words.video_token_id}
    vision = WINDOWED | {"num_key_value_heads": 1}
    built = model("exaone4_5", text_config=text(words, "exaone4", **window), vision_config=vision, **numbers)
    return built, qwen_processor("Exaone4_5_Processor", words)


@tiny("lfm3_vl")
def lfm3_vl() -> Built:
    words = qwen_tokens()
    layers = ["conv", "sliding_attention", "full_attention"]
    config = text(words, "lfm3", num_hidden_layers=3, layer_types=layers, sliding_window=12, head_dim=8)
    vision = SIGLIP_GRID | {"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]}
    built = model("lfm3_vl", text_config=config, vision_config=vision, projector_hidden_size=32, **qwen_ids(words))
    return built, qwen_processor("Lfm3VlProcessor", words)


@tiny("hunyuan_vl")
def hunyuan_vl() -> Built:
    words = tokenizer(
        begin_token="<\uff5chy_begin\u2581of\u2581sentence\uff5c>",
        user_token="<\uff5chy_User\uff5c>",
        image_start_token="<\uff5chy_place\u2581holder\u2581no\u2581100\uff5c>",
        image_end_token="<\uff5chy_place\u2581holder\u2581no\u2581101\uff5c>",
        image_token="<\uff5chy_place\u2581holder\u2581no\u2581102\uff5c>",
    )
    vision = SIGLIP_GRID | {"max_image_size": 32, "min_image_size": 16, "img_max_token_num": 64, "max_vit_seq_len": 256}
    built = model(
        "hunyuan_vl",
        text_config=text(words, "hunyuan_vl_text", head_dim=8, rope_parameters=MROPE | {"mrope_section": [1, 1, 1, 1]}),
        vision_config=vision | {"out_hidden_size": 32},
        image_token_id=words.image_token_id,
        im_start_id=words.image_start_token_id,
        im_end_id=words.image_end_token_id,
    )
    return built, qwen_processor("HunYuanVLProcessor", words, "HunYuanVLImageProcessorPil")


@tiny("hyperclovax_vision_v2")
def hyperclovax_vision_v2() -> Built:
    words = qwen_tokens(*LETTERS)
    numbers = {"image_token_id": words.image_token_id, "video_token_id": words.video_token_id}
    vision = WINDOWED | {"model_type": "qwen2_5_vl_vision"}
    built = model(
        "hyperclovax_vision_v2",
        text_config=text(words, "hyperclovax", attention_multiplier=0.2),
        vision_config=vision,
        **numbers,
    )
    return built, qwen_processor("HyperCLOVAXVisionV2Processor", words)


@tiny("cosmos3_edge")
def cosmos3_edge() -> Built:
    words = qwen_tokens()
    config = text(words, "cosmos3_edge_text", head_dim=8, rope_parameters=MROPE)
    vision = SIGLIP_GRID | {"num_patches": 64}
    built = model("cosmos3_edge", text_config=config, vision_config=vision, projector_hidden_size=32, **qwen_ids(words))
    return built, qwen_processor("Cosmos3EdgeProcessor", words, "Cosmos3EdgeImageProcessorPil")
