"""What differs between families of multimodal models: one row each."""

from ..layout.grid_rules import (
    clip_grid,
    crop_grid,
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
    canvas_tiles,
    convolved_tiles,
)
from .families_tiled import TILED
from .family import CODES, CONVOLUTION, CROSS_ATTENTION, NO_ENCODER, PROJECTOR, Q_FORMER, RESAMPLER, Family
from .family_texts import (
    DEEPSEEK_TEXT,
    DEEPSTACK,
    GLM_IMAGE,
    GLM_TEMPLATE,
    HYBRID,
    LINEAR,
    OVERLAP,
    PUT_IN,
    QUERIES_OF_ITS_OWN,
    QWEN_IMAGE,
    QWEN_TEXT,
    SHARED,
)
from .replay import CallSite

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        # One grid over the image, or over a crop of it.
        Family("llava", PROJECTOR, clip_grid),
        Family("vipllava", PROJECTOR, clip_grid),
        Family("video_llava", PROJECTOR, clip_grid, video=with_cls(clip_grid)),
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
            stream="its layers give several streams of states",
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
            several=PUT_IN,
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
        Family("qwen2_vl", PROJECTOR, merged_grid, video=merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE),
        Family("qwen2_5_vl", PROJECTOR, merged_grid, video=merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE),
        Family(
            "qwen3_vl", PROJECTOR, merged_grid, video=merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE, notes=DEEPSTACK
        ),
        Family(
            "qwen3_vl_moe", PROJECTOR, merged_grid, video=merged_grid, template=QWEN_TEXT, image=QWEN_IMAGE, notes=DEEPSTACK
        ),
        *(
            Family(
                name,
                PROJECTOR,
                merged_grid,
                video=merged_grid,
                template=QWEN_TEXT,
                image=QWEN_IMAGE,
                notes=HYBRID,
                prefix=LINEAR,
            )
            for name in ("qwen3_5", "qwen3_5_moe")
        ),
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
        *TILED,
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
            several=QUERIES_OF_ITS_OWN,
        ),
        Family(
            "instructblip",
            Q_FORMER,
            with_cls(square_grid),
            site=CallSite("qformer", "encoder_hidden_states"),
            attends=r"encoder\.layer\.(\d+)\.crossattention\.attention",
            learned="num_query_tokens",
            template="{question}",
            several=QUERIES_OF_ITS_OWN,
        ),
        Family(
            "idefics2",
            RESAMPLER,
            pixel_grid,
            site=CallSite("model.connector.perceiver_resampler", "context"),
            heads="resampler_n_heads",
            learned="perceiver_config.resampler_n_latents",
            several=QUERIES_OF_ITS_OWN,
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
            head="layers of text alone follow the last that attends to the image",
            template="User: {question}\nAssistant:",
            several=PUT_IN,
            excluded=(("use_resampler", "its perceiver computes attention by hand, where it cannot be captured"),),
            notes="the processor puts the image before the prompt; layers are numbered among those that cross-attend",
        ),
    )
}
