"""Small random models and processors, built offline from their configs."""

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from cmllm_tools.models.embedded.language import IMAGE, build_tokenizer, vocabulary


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
    return model, tiny_processor(image, patch)


def tiny_processor(image: int, patch: int) -> LlavaProcessor:
    """A processor like LLaVA-1.5's: short side to `image` px, centre crop."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": image}, crop_size={"height": image, "width": image}),
        tokenizer=build_tokenizer(),
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
    )
