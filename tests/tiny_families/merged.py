"""Families with a grid of the image's own shape, whose patches are merged."""

from .base import Built, Words, images, model, processor, text, tiny, tokenizer


def qwen_tokens() -> Words:
    return tokenizer(
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


QWEN_TEMPLATE = (
    "{% for message in messages %}user : {% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|> {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    " assistant :"
)


def qwen_processor(name: str, words: Words, patch: int = 4) -> object:
    seen = images(
        "Qwen2VLImageProcessorPil", patch_size=patch, merge_size=2, size={"shortest_edge": 256, "longest_edge": 4096}
    )
    return processor(name, [seen, words], "Qwen2VLVideoProcessor", chat_template=QWEN_TEMPLATE)


@tiny("qwen2_vl")
def qwen2_vl() -> Built:
    words = qwen_tokens()
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = text(words, "qwen2_vl_text", rope_parameters=rope)
    return model("qwen2_vl", text_config=config, vision_config=vision, **qwen_ids(words)), qwen_processor(
        "Qwen2VLProcessor", words
    )
