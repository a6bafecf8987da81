"""Families that cut an image into tiles."""

import transformers

from .base import CLIP, Built, images, model, text, tiny, tokenizer


@tiny("llava_next")
def llava_next() -> Built:
    words = tokenizer(image_token="<image>")
    pinpoints = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
    processor = transformers.LlavaNextProcessor(
        images(
            "LlavaNextImageProcessorPil",
            size={"shortest_edge": 32},
            crop_size={"height": 32, "width": 32},
            image_grid_pinpoints=pinpoints,
        ),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = {"image_grid_pinpoints": pinpoints, "image_token_id": words.image_token_id, "vision_feature_layer": -1}
    return model("llava_next", text_config=text(words), vision_config=CLIP, **config), processor
