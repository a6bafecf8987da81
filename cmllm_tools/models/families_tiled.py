"""Rows of the family table for models that cut an image into tiles."""

from ..layout.grid_rules import clip_grid, pooled, square_grid
from ..layout.tile_rules import (
    anyres_tiles,
    convolved_tiles,
    indicated_tiles,
    padded_tiles_then_whole,
    pooled_views,
    refined_slices,
    split_tiles,
    stretched_tiles,
    tiles_then_shaped,
    tiles_then_whole,
    whole_then_tiles,
)
from .family import TILES, Family
from .family_texts import IDEFICS_TEMPLATE, LINEAR, QWEN_TEXT, RESOLUTION, TEXT_MODEL
from .replay import CallSite

TILED = (
    Family("ovis2", TILES, indicated_tiles, template=QWEN_TEXT.replace("{image}", "{image}\n")),
    Family("llava_next", TILES, anyres_tiles),
    Family("llava_next_video", TILES, anyres_tiles, video=pooled(clip_grid)),
    Family(
        "granite4_vision",
        TILES,
        anyres_tiles,
        site=CallSite(states="", source="model.language_model.layers.0"),
        template="<|start_of_role|>user<|end_of_role|>{image}\n{question}<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
        notes="visual states enter at several layers: the latent is added before the first; a token is laid out on its "
        "own cell, and sees the window of its Q-Former too",
    ),
    Family(
        "llava_onevision",
        TILES,
        anyres_tiles,
        video=square_grid,
        template="<|im_start|>user {image}\n{question}<|im_end|><|im_start|>assistant\n",
    ),
    Family(
        "internvl",
        TILES,
        stretched_tiles,
        video=square_grid,
        image="<IMG_CONTEXT>",
        template="<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n",
    ),
    Family(
        "qianfan_ocr",
        TILES,
        stretched_tiles,
        template="<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n",
    ),
    Family(
        "aya_vision",
        TILES,
        stretched_tiles,
        template="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{image}{question}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    Family(
        "got_ocr2",
        TILES,
        convolved_tiles,
        template="<|im_start|>user\n{image}\n{question}<|im_end|><|im_start|>assistant\n",
        image="<img><imgpad></img>",
    ),
    Family(
        "granite_docling",
        TILES,
        stretched_tiles,
        site=TEXT_MODEL,
        template="<|start_of_role|>user:<|end_of_role|>{image}{question}<|end_of_text|>\n"
        "<|start_of_role|>assistant:<|end_of_role|>",
    ),
    Family(
        "minicpmv4_6",
        TILES,
        refined_slices,
        image="<|image_pad|>",
        template="<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n",
        batch=False,
        contrast=False,
        notes=f"{RESOLUTION}; no contrastive decoding: images of a batch are packed",
        prefix=LINEAR,
    ),
    Family(
        "minicpmv4_7",
        TILES,
        refined_slices,
        image="<|image_pad|>",
        template="<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n",
        batch=False,
        contrast=False,
        notes=f"{RESOLUTION}; no contrastive decoding: images of a batch are packed",
        prefix=LINEAR,
    ),
    Family("idefics3", TILES, split_tiles, site=TEXT_MODEL, template=IDEFICS_TEMPLATE, notes=RESOLUTION),
    Family(
        "smolvlm",
        TILES,
        split_tiles,
        video=square_grid,
        site=TEXT_MODEL,
        template=f"<|im_start|>{IDEFICS_TEMPLATE}",
        notes=f"{RESOLUTION}; its processor needs the package num2words",
    ),
    Family(
        "cohere2_vision",
        TILES,
        tiles_then_whole,
        image="<|IMG_PATCH|>",
        template="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{image}{question}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        notes="needs torchvision",
    ),
    Family(
        "perception_lm",
        TILES,
        whole_then_tiles,
        image="<|image|>",
        template="<|start_header_id|>user<|end_header_id|>\n\n{image}{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        notes="needs torchvision and timm",
    ),
    Family(
        "lfm2_vl",
        TILES,
        tiles_then_shaped,
        template="<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n",
        notes="convolution layers do not attend; needs torchvision",
        prefix="its layers of convolution keep no keys",
    ),
    Family(
        "llama4",
        TILES,
        padded_tiles_then_whole,
        site=CallSite("language_model.model"),
        image="<|image|>",
        template="<|header_start|>user<|header_end|>\n\n{image}{question}<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
        beams=False,
        notes="needs torchvision; no beam search, for which transformers 5.23 repeats its text but not its images",
    ),
    Family(
        "molmo2",
        TILES,
        pooled_views,
        image="<|image|>",
        template="<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n",
        notes="visual states are added to the placeholders' embeddings; images only; needs torchvision",
        prefix="the image's tokens attend to marks that come after the last of them",
        one_image="what is pooled is counted over the images of a batch",
    ),
)
