"""What differs between families of multimodal models, as data: one row each."""

import re
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UnsupportedModelError
from .geometry import LayoutRule, clip_grid, merged_grid, padded_grid, square_grid, with_cls
from .replay import CallSite
from .tiles import (
    anyres_tiles,
    padded_tiles_then_whole,
    pooled_views,
    tiles_then_shaped,
    tiles_then_whole,
    whole_then_tiles,
)

IN_SEQUENCE = CallSite()
SELF_ATTENTION = r"(?:.*\.)?layers\.(\d+)\.self_attn"

PROJECTOR = "projector in the sequence"
TILES = "tiles"
Q_FORMER = "Q-Former"
CROSS_ATTENTION = "gated cross-attention"
NO_ENCODER = "no encoder"
CONVOLUTION = "convolutional encoder"
UNKNOWN = "not in the table"


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
        Family("qwen2_vl", PROJECTOR, merged_grid),
        Family(
            "kimi_k25",
            PROJECTOR,
            padded_grid,
            template="<|im_user|>user<|im_middle|><|media_begin|>image<|media_content|><|media_pad|><|media_end|>"
            "{question}<|im_end|><|im_assistant|>assistant<|im_middle|>",
            notes="images only; needs torchvision",
        ),
        # Tiles.
        Family("llava_next", TILES, anyres_tiles),
        Family(
            "cohere2_vision",
            TILES,
            tiles_then_whole,
            template="<|START_OF_TURN_TOKEN|><|USER_TOKEN|><|IMG_PATCH|>{question}<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            notes="needs torchvision",
        ),
        Family(
            "perception_lm",
            TILES,
            whole_then_tiles,
            template="<|start_header_id|>user<|end_header_id|>\n\n<|image|>{question}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            notes="needs torchvision, and timm for real checkpoints' vision tower",
        ),
        Family(
            "lfm2_vl",
            TILES,
            tiles_then_shaped,
            template="<|im_start|>user\n<image>{question}<|im_end|>\n<|im_start|>assistant\n",
            notes="convolution layers do not attend; needs torchvision",
        ),
        Family(
            "llama4",
            TILES,
            padded_tiles_then_whole,
            site=CallSite("language_model.model"),
            template="<|header_start|>user<|header_end|>\n\n<|image|>{question}<|eot|>"
            "<|header_start|>assistant<|header_end|>\n\n",
            notes="needs torchvision; no beam search, for which transformers 5.23 repeats its text but not its images",
        ),
        Family(
            "molmo2",
            TILES,
            pooled_views,
            template="<|im_start|>user\n<|image|>{question}<|im_end|>\n<|im_start|>assistant\n",
            notes="visual states are added to the placeholders' embeddings; images only; needs torchvision",
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
