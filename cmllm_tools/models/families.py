"""What differs between families of multimodal models, as data: one row each."""

import re
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from ..errors import UnsupportedModelError
from .geometry import (
    LayoutRule,
    canvas_tiles,
    clip_grid,
    crop_grid,
    merged_grid,
    pixel_grid,
    square_grid,
    with_cls,
)
from .replay import CallSite
from .tiles import anyres_tiles

IN_SEQUENCE = CallSite()
SELF_ATTENTION = r"(?:.*\.)?layers\.(\d+)\.self_attn"

PROJECTOR = "projector in the sequence"
TILES = "tiles"
CODES = "discrete codes in the sequence"
Q_FORMER = "Q-Former"
RESAMPLER = "perceiver resampler"
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
        excluded: paths to settings in the model's config that rule a model out when on, with the reason.
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
    excluded: tuple[tuple[str, str], ...] = ()
    notes: str = ""

    def check(self, model: Any) -> None:
        """Refuse a model with a setting that the row does not cover.

        Raises:
            UnsupportedModelError: naming the setting and the reason.
        """
        for setting, reason in self.excluded:
            if attrgetter(setting)(model.config):
                raise UnsupportedModelError(f"A {self.name} model must not have {setting} set: {reason}.")

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
        # Tiles.
        Family("llava_next", TILES, anyres_tiles),
        # Discrete codes of the image, embedded like words.
        Family(
            "chameleon",
            CODES,
            crop_grid,
            site=CallSite("model", source="model.layers.0", replaces=("input_ids", "pixel_values")),
            template="<image>{question}",
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
            template="User:<image>{question}<end_of_utterance>\nAssistant:",
            notes="needs do_image_splitting=False",
        ),
        Family(
            "mllama",
            CROSS_ATTENTION,
            canvas_tiles,
            site=CallSite("model.language_model", "cross_attention_states"),
            attends=r"layers\.(\d+)\.cross_attn",
            template="<|image|><|begin_of_text|>{question}",
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
                lift=1,
            ),
            attends=r"gated_cross_attn_layers\.(\d+)\.cross_attn",
            template="User: {question}\nAssistant:",
            excluded=(("use_resampler", "its perceiver computes attention by hand, where it cannot be captured"),),
            notes="the processor puts the image before the prompt; layers are numbered among those that cross-attend",
        ),
    )
}


def family_of(model: Any) -> Family:
    """The row for a loaded model.

    Raises:
        UnsupportedModelError: for a family without a row, naming those that have one, or a setting a row excludes.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"A model must belong to a supported family ({', '.join(FAMILIES)}); got {type(model).__name__} "
            f"with model_type {model_type!r}. Load it with layout='probe' to find out where its visual tokens look."
        )
    FAMILIES[model_type].check(model)
    return FAMILIES[model_type]


def probed_family(model: Any) -> Family:
    """The model's row, or a guess for a family without one, with the layout left to probing.

    Raises:
        UnsupportedModelError: when the model does not say which part of it is the language model.
    """
    model_type = model.config.model_type
    if model_type in FAMILIES:
        return replace(family_of(model), layout=None)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    path = next((path for path, module in model.named_modules() if module is decoder), "")
    if not path:
        raise UnsupportedModelError(
            f"A model without a row in the family table must name its language model (get_decoder); {type(model).__name__} "
            "does not."
        )
    return Family(model_type, UNKNOWN, None, site=CallSite(path), notes="laid out by probing")
