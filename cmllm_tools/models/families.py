"""What differs between families of multimodal models, as data: one row each."""

import re
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UnsupportedModelError
from .geometry import LayoutRule, clip_grid, merged_grid, merged_rows, square_grid, with_cls
from .replay import CallSite
from .tiles import anyres_tiles

IN_SEQUENCE = CallSite()
SELF_ATTENTION = r"(?:.*\.)?layers\.(\d+)\.self_attn"

PROJECTOR = "projector in the sequence"
TILES = "tiles"
Q_FORMER = "Q-Former"
CROSS_ATTENTION = "gated cross-attention"
NO_ENCODER = "no encoder"
CONVOLUTION = "convolutional encoder"
UNKNOWN = "not in the table"

QWEN_TEMPLATE = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
DEEPSTACK = "the latent is added to the embeddings alone, not to the features that are added again in later layers"
HYBRID = "layers of linear attention hold no attention weights and are left out"
GLM_TEMPLATE = "[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>{question}<|assistant|>\n"


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        name: `model_type` of the config.
        way_in: how visual states reach the text.
        layout: rule that finds each visual token's box; None stands for probing.
        site: where the call is recorded and replayed, and which of its arguments holds the visual states.
        attends: pattern of the paths, within the replayed module, of the attention modules that look at visual states;
            its group is the layer's number.
        heads: attribute of those modules' config that counts query heads.
        learned: path in the model's config to the number of learned queries, where these look at the image in the text's
            place (Q-Former, perceiver).
        template: prompt for processors without a chat template, with `{question}`.
        notes: what a user should know.
    """

    name: str
    way_in: str
    layout: LayoutRule | None
    site: CallSite = IN_SEQUENCE
    attends: str = SELF_ATTENTION
    heads: str = "num_attention_heads"
    learned: str = ""
    template: str = "USER: <image>\n{question} ASSISTANT:"
    notes: str = ""

    def attention_modules(self, model: Any) -> dict[Any, int]:
        """The attention modules that look at visual states, with their layers' numbers.

        Raises:
            UnsupportedModelError: when the model has none.
        """
        inner = model.get_submodule(self.site.call)
        found = {
            module: int(match.group(1))
            for path, module in inner.named_modules()
            if (match := re.fullmatch(self.attends, path))
        }
        if not found:
            raise UnsupportedModelError(
                f"A {self.name} model must have attention modules {self.attends!r} in {self.site.call!r}; "
                f"{type(model).__name__} has none."
            )
        return found


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        # One grid over the image, or over a crop of it.
        Family("llava", PROJECTOR, clip_grid),
        Family("vipllava", PROJECTOR, clip_grid),
        Family("paligemma", PROJECTOR, square_grid, template="<image>{question}\n"),
        Family(
            "gemma3",
            PROJECTOR,
            square_grid,
            template="user\n<start_of_image>{question}\nmodel\n",
            notes="pan and scan is not laid out",
        ),
        # A grid of the image's own shape, patches merged.
        Family("qwen2_vl", PROJECTOR, merged_grid, template=QWEN_TEMPLATE),
        Family("qwen2_5_vl", PROJECTOR, merged_grid, template=QWEN_TEMPLATE),
        Family("qwen3_vl", PROJECTOR, merged_grid, template=QWEN_TEMPLATE, notes=DEEPSTACK),
        Family("qwen3_vl_moe", PROJECTOR, merged_grid, template=QWEN_TEMPLATE, notes=DEEPSTACK),
        Family("qwen3_5", PROJECTOR, merged_grid, template=QWEN_TEMPLATE, notes=HYBRID),
        Family("qwen3_5_moe", PROJECTOR, merged_grid, template=QWEN_TEMPLATE, notes=HYBRID),
        Family("glm4v", PROJECTOR, merged_grid, template=GLM_TEMPLATE),
        Family("glm4v_moe", PROJECTOR, merged_grid, template=GLM_TEMPLATE),
        Family("glm46v", PROJECTOR, merged_grid, template=GLM_TEMPLATE),
        Family("glm_ocr", PROJECTOR, merged_grid, template=GLM_TEMPLATE),
        Family(
            "paddleocr_vl",
            PROJECTOR,
            merged_grid,
            template=(
                "<|begin_of_sentence|>User: <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>{question}\nAssistant:\n"
            ),
        ),
        Family(
            "video_llama_3",
            PROJECTOR,
            merged_grid,
            template="<|im_start|>user\n<|image_pad|>\n{question}<|im_end|>\n<|im_start|>assistant\n",
        ),
        Family(
            "ernie4_5_vl_moe",
            PROJECTOR,
            merged_grid,
            template=(
                "<|begin_of_sentence|>User: <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>{question}\nAssistant: "
            ),
        ),
        Family("exaone4_5", PROJECTOR, merged_grid, template="<|image_pad|>{question}\n"),
        Family("lfm3_vl", PROJECTOR, merged_grid, template=QWEN_TEMPLATE, notes=HYBRID),
        Family(
            "hunyuan_vl",
            PROJECTOR,
            merged_rows,
            template=(
                "<\uff5chy_begin\u2581of\u2581sentence\uff5c><\uff5chy_place\u2581holder\u2581no\u2581100\uff5c>"
                "<\uff5chy_place\u2581holder\u2581no\u2581102\uff5c><\uff5chy_place\u2581holder\u2581no\u2581101\uff5c>"
                "{question}<\uff5chy_User\uff5c>"
            ),
        ),
        Family(
            "hyperclovax_vision_v2",
            PROJECTOR,
            merged_grid,
            template="<|im_start|>user\n<|image_pad|>\n{question}<|im_end|>\n<|im_start|>assistant\n",
        ),
        Family("glmga", PROJECTOR, merged_grid, template=GLM_TEMPLATE),
        Family("cosmos3_edge", PROJECTOR, merged_grid, template=QWEN_TEMPLATE),
        # Tiles.
        Family("llava_next", TILES, anyres_tiles),
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
    )
}


def family_of(model: Any) -> Family:
    """The row for a loaded model.

    Raises:
        UnsupportedModelError: for a family without a row, naming those that have one.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"A model must belong to a supported family ({', '.join(FAMILIES)}); got {type(model).__name__} "
            f"with model_type {model_type!r}. Load it with layout='probe' to find out where its visual tokens look."
        )
    return FAMILIES[model_type]


def probed_family(model: Any) -> Family:
    """The model's row, or a guess for a family without one, with the layout left to probing.

    Raises:
        UnsupportedModelError: when the model does not say which part of it is the language model.
    """
    model_type = model.config.model_type
    if model_type in FAMILIES:
        return replace(FAMILIES[model_type], layout=None)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    path = next((path for path, module in model.named_modules() if module is decoder), "")
    if not path:
        raise UnsupportedModelError(
            f"A model without a row in the family table must name its language model (get_decoder); {type(model).__name__} "
            "does not."
        )
    return Family(model_type, UNKNOWN, None, site=CallSite(path), notes="laid out by probing")
