"""Small random models and processors, built offline from their configs."""

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from training.embedded.architecture import build_processor
from training.embedded.language import IMAGE, vocabulary


def tiny_llava(
    *, layers: int = 3, heads: int = 4, key_heads: int = 2, width: int = 32, image: int = 32, patch: int = 8, seed: int = 0
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A random LLaVA with grouped key heads, (model, processor)."""
    torch.manual_seed(seed)
    words = vocabulary()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=image,
            patch_size=patch,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            bos_token_id=words["<s>"],
            eos_token_id=words["</s>"],
            pad_token_id=words["<pad>"],
            initializer_range=0.2,
        ).to_dict(),
        image_token_index=words[IMAGE],
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.update(max_new_tokens=4, do_sample=False)
    return model, build_processor(image, patch)
