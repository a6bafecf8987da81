"""What differs between families of multimodal models: one row each."""

from ..layout.grid_rules import (
    canvas_tiles,
    clip_grid,
    crop_grid,
    indicated_tiles,
    merged_grid,
    merged_rows,
    padded_corner,
    padded_grid,
    padded_square,
    pixel_grid,
    pooled_positions,
    sized_grid,
    square_grid,
    with_cls,
)
from ..layout.tile_rules import (
    anyres_tiles,
    convolved_tiles,
    padded_tiles_then_whole,
    pooled_views,
    refined_slices,
    split_tiles,
    stretched_tiles,
    tiles_then_shaped,
    tiles_then_whole,
    whole_then_tiles,
)
from .family import CODES, CONVOLUTION, CROSS_ATTENTION, NO_ENCODER, PROJECTOR, Q_FORMER, RESAMPLER, TILES, Family
from .replay import CallSite

TEXT_MODEL = CallSite("model.text_model")

QWEN_TEXT = "<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n"
DEEPSEEK_TEXT = "User: {image}{question}\n\nAssistant:"

IDEFICS_TEMPLATE = "User:{image}{question}<end_of_utterance>\nAssistant:"
RESOLUTION = "another resolution than the processor's own is not laid out"
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
DEEPSTACK = "the latent is added to the embeddings alone, not to the features that are added again in later layers"
SHARED = "its layers share keys, or keep keys of several sizes"
LINEAR = "its layers of linear attention keep no keys"
HYBRID = "layers of linear attention hold no attention weights and are left out"
OVERLAP = (
    "boxes are the cells of its grid; its overlapping convolutions may look up to half a cell aside, which only probing a "
    "checkpoint tells"
)
GLM_TEMPLATE = "[gMASK]<sop><|user|>\n{image}{question}<|assistant|>\n"
GLM_IMAGE = "<|begin_of_image|><|image|><|end_of_image|>"

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        # One grid over the image, or over a crop of it.
        Family("llava", PROJECTOR, clip_grid),
        Family("vipllava", PROJECTOR, clip_grid),
        Family("video_llava", PROJECTOR, clip_grid),
        Family(
            "pp_chart2table",
            PROJECTOR,
            convolved_tiles,
            template="<|im_start|>user\n{image}\n{question}<|im_end|><|im_start|>assistant\n",
            image=f"<img>{'<imgpad>' * 256}</img>",
        ),
        Family(
            "paligemma",
            PROJECTOR,
            square_grid,
            template="{image}{question}",
            answer_type=1,
            prefix="the image's tokens attend to the question",
        ),
        Family(
            "gemma3",
            PROJECTOR,
            square_grid,
            image="<start_of_image>",
            template="user\n{image}{question}\nmodel\n",
            notes="pan and scan is not laid out",
        ),
        Family(
            "fast_vlm",
            CONVOLUTION,
            clip_grid,
            template=QWEN_TEXT.replace("{image}", "{image}\n"),
            notes=f"needs timm; {OVERLAP}",
        ),
        Family(
            "gemma3n",
            CONVOLUTION,
            square_grid,
            image="<image_soft_token>",
            template="user\n{image}{question}\nmodel\n",
            notes=f"needs timm; {OVERLAP}",
            prefix=SHARED,
        ),
        Family(
            "janus",
            PROJECTOR,
            padded_square,
            image="<image_placeholder>",
            template="<|User|>: {image}\n{question}\n\n<|Assistant|>:",
            contrast=False,
            processors=False,
            notes="no contrastive decoding: its generate takes no logits processor",
        ),
        Family("deepseek_vl", PROJECTOR, padded_square, template=DEEPSEEK_TEXT, image="<image_placeholder>"),
        Family("deepseek_vl_hybrid", PROJECTOR, padded_square, template=DEEPSEEK_TEXT, image="<image_placeholder>"),
        # A grid of the image's own shape, patches merged or not.
        Family(
            "fuyu",
            NO_ENCODER,
            padded_corner,
            template="{question}\n",
            notes="needs torchvision, as transformers' PIL version of its image processor cannot cut patches",
        ),
        Family("mistral3", PROJECTOR, sized_grid, image="[IMG]", template="[INST]{image}{question}[/INST]", least=2),
        Family("lighton_ocr", PROJECTOR, sized_grid, template=QWEN_TEXT, image="<|image_pad|>"),
        Family(
            "gemma4",
            PROJECTOR,
            pooled_positions,
            image="<|image|>",
            template="<|turn>user\n{image}{question}<turn|>\n<|turn>model\n",
            prefix=SHARED,
        ),
        # A grid of the image's own shape, patches merged.
        Family("qwen2_vl", PROJECTOR, merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE),
        Family("qwen2_5_vl", PROJECTOR, merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE),
        Family("qwen3_vl", PROJECTOR, merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE, notes=DEEPSTACK),
        Family("qwen3_vl_moe", PROJECTOR, merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE, notes=DEEPSTACK),
        Family("qwen3_5", PROJECTOR, merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE, notes=HYBRID, prefix=LINEAR),
        Family("qwen3_5_moe", PROJECTOR, merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE, notes=HYBRID, prefix=LINEAR),
        Family("glm4v", PROJECTOR, merged_grid, template=GLM_TEMPLATE, image=GLM_IMAGE),
        Family("glm4v_moe", PROJECTOR, merged_grid, template=GLM_TEMPLATE, image=GLM_IMAGE),
        Family("glm46v", PROJECTOR, merged_grid, template=GLM_TEMPLATE, image=GLM_IMAGE),
        Family("glm_ocr", PROJECTOR, merged_grid, template=GLM_TEMPLATE, image=GLM_IMAGE),
        Family(
            "paddleocr_vl",
            PROJECTOR,
            merged_grid,
            image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
            template=("<|begin_of_sentence|>User: {image}{question}\nAssistant:\n"),
        ),
        Family(
            "video_llama_3",
            PROJECTOR,
            merged_grid,
            image="<|image_pad|>",
            template="<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n",
        ),
        Family(
            "ernie4_5_vl_moe",
            PROJECTOR,
            merged_grid,
            image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
            template=("<|begin_of_sentence|>User: {image}{question}\nAssistant: "),
        ),
        Family("exaone4_5", PROJECTOR, merged_grid, image="<|image_pad|>", template="{image}{question}\n"),
        Family("lfm3_vl", PROJECTOR, merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE, notes=HYBRID, prefix=LINEAR),
        Family(
            "hunyuan_vl",
            PROJECTOR,
            merged_rows,
            template=("<\uff5chy_begin\u2581of\u2581sentence\uff5c>{image}{question}<\uff5chy_User\uff5c>"),
            image=(
                "<\uff5chy_place\u2581holder\u2581no\u2581100\uff5c><\uff5chy_place\u2581holder\u2581no\u2581102\uff5c>"
                "<\uff5chy_place\u2581holder\u2581no\u2581101\uff5c>"
            ),
            batch=False,
            contrast=False,
            notes="no contrastive decoding: transformers shifts the positions of a batch's second row",
        ),
        Family(
            "hyperclovax_vision_v2",
            PROJECTOR,
            merged_grid,
            image="<|image_pad|>",
            template="<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n",
        ),
        Family("glmga", PROJECTOR, merged_grid, template=GLM_TEMPLATE, image=GLM_IMAGE),
        Family("cosmos3_edge", PROJECTOR, merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE),
        Family(
            "kimi_k25",
            PROJECTOR,
            padded_grid,
            template="<|im_user|>user<|im_middle|>{image}{question}<|im_end|><|im_assistant|>assistant<|im_middle|>",
            image="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
            notes="images only; needs torchvision",
        ),
        # Tiles.
        Family("ovis2", TILES, indicated_tiles, template=QWEN_TEXT.replace("{image}", "{image}\n")),
        Family("llava_next", TILES, anyres_tiles),
        Family("llava_next_video", TILES, anyres_tiles),
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
            template="<|im_start|>user {image}\n{question}<|im_end|><|im_start|>assistant\n",
        ),
        Family(
            "internvl",
            TILES,
            stretched_tiles,
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
        ),
        # Discrete codes of the image, embedded like words.
        Family(
            "chameleon",
            CODES,
            crop_grid,
            site=CallSite("model", source="model.layers.0", replaces=("input_ids", "pixel_values")),
            template="{image}{question}",
        ),
        # The text, or learned queries, attend to states outside the sequence.
        Family(
            "blip-2",
            Q_FORMER,
            with_cls(square_grid),
            site=CallSite("qformer", "encoder_hidden_states"),
            attends=r"encoder\.layer\.(\d+)\.crossattention\.attention",
            learned="num_query_tokens",
            template="Question: {question} Answer:",
        ),
        Family(
            "instructblip",
            Q_FORMER,
            with_cls(square_grid),
            site=CallSite("qformer", "encoder_hidden_states"),
            attends=r"encoder\.layer\.(\d+)\.crossattention\.attention",
            learned="num_query_tokens",
            template="{question}",
        ),
        Family(
            "idefics2",
            RESAMPLER,
            pixel_grid,
            site=CallSite("model.connector.perceiver_resampler", "context"),
            heads="resampler_n_heads",
            learned="perceiver_config.resampler_n_latents",
            template="User:{image}{question}<end_of_utterance>\nAssistant:",
            notes="needs do_image_splitting=False",
        ),
        Family(
            "mllama",
            CROSS_ATTENTION,
            canvas_tiles,
            site=CallSite("model.language_model", "cross_attention_states"),
            attends=r"layers\.(\d+)\.cross_attn",
            image="<|image|>",
            template="{image}<|begin_of_text|>{question}",
        ),
        Family(
            "idefics",
            CROSS_ATTENTION,
            with_cls(square_grid),
            site=CallSite(
                "model",
                "image_encoder_embeddings",
                source="model.vision_model",
                side="output",
                replaces=("pixel_values",),
                lifted=True,
            ),
            attends=r"gated_cross_attn_layers\.(\d+)\.cross_attn",
            template="User: {question}\nAssistant:",
            excluded=(("use_resampler", "its perceiver computes attention by hand, where it cannot be captured"),),
            notes="the processor puts the image before the prompt; layers are numbered among those that cross-attend",
        ),
    )
}
