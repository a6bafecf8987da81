"""What differs between families of multimodal models, as data: one row each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import UnsupportedModelError
from ..layout import VisualTokenLayout, fixed_grid

LayoutRule = Callable[[Any, Any, tuple[int, int], int], VisualTokenLayout]


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        name: `model_type` of the config.
        way_in: how visual tokens reach the language model.
        decoder: path of the module whose call is recorded and replayed; it takes `inputs_embeds`.
        layout: makes the layout from (model, processor, image size, number of visual tokens).
        template: prompt for processors without a chat template, with `{question}`.
        image_token: placeholder of an image in the text.
    """

    name: str
    way_in: str
    decoder: str
    layout: LayoutRule
    template: str
    image_token: str = "<image>"

    def find_decoder(self, model: nn.Module) -> nn.Module:
        return model.get_submodule(self.decoder)


def clip_grid(model: Any, processor: Any, image_size: tuple[int, int], tokens: int) -> VisualTokenLayout:
    """Layout of a CLIP-like processor (resize, optional centre crop) before a vision tower with square patches."""
    images = processor.image_processor
    resized = _resized(images.size, image_size) if images.do_resize else image_size
    crop = None
    if images.do_center_crop:
        crop = (images.crop_size["width"], images.crop_size["height"])
    seen = crop or resized
    patch = model.config.vision_config.patch_size
    grid = (seen[1] // patch, seen[0] // patch)
    if grid[0] * grid[1] != tokens:
        raise UnsupportedModelError(
            f"A {model.config.model_type} model with patches of {patch} px on {seen[0]} x {seen[1]} px must have "
            f"{grid[0] * grid[1]} visual tokens; the prompt has {tokens}. Check that processor and model belong together "
            "(patch_size, vision_feature_select_strategy)."
        )
    return fixed_grid(image_size, resized, crop, grid)


def _resized(size: Mapping[str, int], image_size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) after a processor's resize to `size`."""
    width, height = image_size
    if "shortest_edge" in size:
        short, long = sorted(image_size)
        target = size["shortest_edge"]
        other = int(target * long / short)
        return (target, other) if width <= height else (other, target)
    return size["width"], size["height"]


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="llava",
            way_in="projector in the sequence",
            decoder="model.language_model",
            layout=clip_grid,
            template="USER: <image>\n{question} ASSISTANT:",
        ),
    )
}

# Published settings (ControlMLLM section 4.1; ControlMLLM++ code), and those fitted to the embedded model, by
# (model_type, decoder layers, hidden size). The first row serves models without one, its window scaled to their depth.
METHOD_DEFAULTS: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = {
    ("llava", 32, 4096): {
        "ControlMLLM": {
            "steps": 5,
            "step_size": 400.0,
            "ema": 0.5,
            "early_stop": 0.25,
            "layers": (),
            "queries": "text",
            "sigma": 0.1,
        },
        "ControlMLLMPlus": {"steps": 3, "step_size": 0.03, "layers": (14, 26), "contrast": 0.7},
    },
    ("qwen2_5_vl", 28, 3584): {
        "ControlMLLMPlus": {"steps": 1, "step_size": 0.02, "layers": (12, 28), "contrast": 0.01},
    },
    ("llava", 6, 192): {
        "ControlMLLM": {
            "steps": 12,
            "step_size": 1000.0,
            "ema": 0.5,
            "early_stop": 0.65,
            "layers": (0, 4),
            "queries": "last",
            "sigma": 0.4,
        },
        "ControlMLLMPlus": {"steps": 10, "step_size": 0.2, "layers": (0, 3), "contrast": 0.0},
    },
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
            f"with model_type {model_type!r}."
        )
    return FAMILIES[model_type]


def method_defaults(method: str, model_type: str, layers: int, hidden_size: int) -> dict[str, Any]:
    """Settings of a method for a model: its own row, or the published ones with the layer window scaled to its depth."""
    own = METHOD_DEFAULTS.get((model_type, layers, hidden_size), {})
    if method in own:
        return dict(own[method])
    (_, published_layers, _), rows = next(iter(METHOD_DEFAULTS.items()))
    settings = dict(rows[method])
    if settings["layers"]:
        low, high = settings["layers"]
        settings["layers"] = (low * layers // published_layers, -(-high * layers // published_layers))
    return settings
