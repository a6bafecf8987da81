"""Which row of the family table a model has."""

from dataclasses import replace
from typing import Any

from ..errors import UnsupportedModelError
from .families import FAMILIES
from .family import UNKNOWN, Family
from .replay import CallSite


def family_of(model: Any) -> Family:
    """The row for a loaded model.

    Raises:
        UnsupportedModelError: for a family without a row, naming those that have one, or a setting a row excludes.
    """
    return family_for(getattr(model, "config", model))


def family_for(config: Any) -> Family:
    """The row for a model's config; raises like `family_of`."""
    model_type = getattr(config, "model_type", type(config).__name__)
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"A model must belong to a supported family ({', '.join(FAMILIES)}); got model_type {model_type!r}. "
            "Load it with layout='probe' to find out where its visual tokens look."
        )
    FAMILIES[model_type].check(config)
    return FAMILIES[model_type]


def family_rows() -> list[dict[str, Any]]:
    """The table as plain data: family, way in, layout, what it can do, whether it is tested, notes; by these names."""
    return [
        {
            "family": family.name,
            "way_in": family.way_in,
            "layout": getattr(family.layout, "__name__", "").replace("_", " "),
            "key_steering": not family.no_keys,
            "several_images": not family.several,
            "video": family.video is not None,
            "causes": f"all but {', '.join(family.lacking)}" if family.lacking else "all",
            "tested": family.tested,
            "notes": family.notes,
        }
        for family in sorted(FAMILIES.values(), key=lambda family: family.name)
    ]


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
    return Family(model_type, UNKNOWN, None, site=CallSite(path), notes="laid out by probing", tested=False)
