"""Config and processor of the embedded model, before training."""

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .language import BOS, EOS, IMAGE, PAD, build_tokenizer, vocabulary

IMAGE_SIZE = 96
PATCH_SIZE = 12
GRID = IMAGE_SIZE // PATCH_SIZE


def build_model() -> LlavaForConditionalGeneration:
    """The untrained embedded model: a LLaVA with a 4-layer vision tower and a 6-layer decoder."""
    words = vocabulary()
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=IMAGE_SIZE,
                patch_size=PATCH_SIZE,
                hidden_act="gelu",
            ).to_dict(),
            text_config=LlamaConfig(
                vocab_size=len(words),
                hidden_size=192,
                intermediate_size=512,
                num_hidden_layers=6,
                num_attention_heads=6,
                num_key_value_heads=6,
                max_position_embeddings=512,
                bos_token_id=words[BOS],
                eos_token_id=words[EOS],
                pad_token_id=words[PAD],
            ).to_dict(),
            image_token_index=words[IMAGE],
            image_seq_length=GRID * GRID,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
    )


def build_processor(image_size: int = IMAGE_SIZE, patch_size: int = PATCH_SIZE) -> LlavaProcessor:
    """A processor like LLaVA-1.5's: short side to `image_size` px, centre crop, values in -1..1; needs no torchvision."""
    tokenizer = build_tokenizer()
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": image_size},
            crop_size={"height": image_size, "width": image_size},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=tokenizer.chat_template,
    )
