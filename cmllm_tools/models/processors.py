"""Processors: loaded without their video part where that cannot be had, and completed where their checkpoint is old."""

import sys
import threading
from collections.abc import Iterator
from copy import copy
from importlib import import_module
from types import ModuleType
from typing import Any

import transformers
from transformers import AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from ..errors import UnsupportedModelError
from .interrupts import restoring

VIDEO = "video_processor"


def fitted(processor: Any, model: Any) -> Any:
    """The processor, or a copy with settings that older checkpoints leave out, read from the model's config.

    Raises:
        UnsupportedModelError: for what is no processor of images and text.
    """
    if getattr(processor, "tokenizer", None) is None or not hasattr(processor, "image_processor"):
        raise UnsupportedModelError(
            "A model must be given with its processor, which holds an image processor and a tokenizer (AutoProcessor); got "
            f"{type(processor).__name__} with {type(model).__name__}."
        )
    config = model.config
    vision = getattr(config, "vision_config", None)
    patch, side = getattr(vision, "patch_size", None), getattr(vision, "image_size", None)
    from_config = {
        "patch_size": patch,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", "default"),
        "num_query_tokens": getattr(config, "num_query_tokens", None),
        "downsample_rate": getattr(config, "downsample_rate", None),
        "vision_aspect_ratio": getattr(config, "vision_aspect_ratio", None),
        "spatial_merge_size": getattr(config, "spatial_merge_size", None),
        "num_image_tokens": (side // patch) ** 2 if isinstance(patch, int) and isinstance(side, int) else None,
    }
    missing = {name: value for name, value in from_config.items() if getattr(processor, name, value) is None}
    # One that leaves them out is saved as if it had none.
    if getattr(processor, "num_additional_image_tokens", 1) in (0, None):
        missing["num_additional_image_tokens"] = _tokens_before_patches(model)
    missing = {name: value for name, value in missing.items() if value}
    if not missing:
        return processor
    whole = copy(processor)
    for name, value in missing.items():
        setattr(whole, name, value)
    return whole


def _tokens_before_patches(model: Any) -> int:
    """How many states of the vision encoder stand for the whole image (CLS)."""
    for module in model.modules():
        positions, patches = getattr(module, "num_positions", None), getattr(module, "num_patches", None)
        if isinstance(positions, int) and isinstance(patches, int):
            return positions - patches
    return 0


def load_processor(source: Any, model_type: str, **options: Any) -> Any:
    """The processor of a checkpoint; without its video part where torchvision is not installed.

    Raises:
        ImportError: for a processor whose image part needs torchvision.
        OSError: for one that is not there.
    """
    try:
        return AutoProcessor.from_pretrained(source, **options)
    except (ImportError, OSError) as error:
        saved, _ = ProcessorMixin.get_processor_dict(source, **options)
        name = saved.get("processor_class") or PROCESSOR_MAPPING_NAMES.get(model_type)
        cls = processor_class(name) if hasattr(transformers, name or "") else None
        if cls is None:
            raise error
        return (without_video(cls) if VIDEO in cls.get_attributes() else cls).from_pretrained(source, **options)


def processor_class(name: str) -> type[Any]:
    """A processor class of transformers, also where it is hidden although its images can be had by PIL alone.

    Such a class takes a helper from the torchvision version of its image processor, and the PIL version has that too.
    """
    found: type[Any] = getattr(transformers, name)
    if not getattr(found, "is_dummy", False):
        return found
    module = found.__module__
    if module not in sys.modules:
        kept, helper = module.replace(".processing_", ".image_processing_"), None
        try:
            helper = import_module(module.replace(".processing_", ".image_processing_pil_"))
        except ImportError:
            return found
        with _ONE_AT_A_TIME, _standing_in(kept, helper):
            import_module(module)
    result: type[Any] = getattr(sys.modules[module], name)
    return result


# Another thread that imports meanwhile would be given the stand-in.
_ONE_AT_A_TIME = threading.RLock()


@restoring
def _standing_in(name: str, other: ModuleType) -> Iterator[None]:
    """While open, imports of the module `name` give another one."""
    before = sys.modules.get(name)
    sys.modules[name] = other
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


class _Missing(dict[str, Any]):
    """Stands for a video processor: every setting of it is None, and it is written as an empty one."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def without_video(whole: type[Any]) -> type[Any]:
    """A processor class whose instances are made by `from_pretrained`, or `from_args_and_dict`, without the video part."""

    class ImagesOnly(whole):
        _whole = False

        @classmethod
        def get_attributes(cls) -> list[str]:
            names = super().get_attributes()
            return names if cls._whole else [name for name in names if name != VIDEO]

        @classmethod
        def from_args_and_dict(cls, args: list[Any], processor_dict: dict[str, Any], **options: Any) -> Any:
            # The class hands its parts on by position, and may read their settings: while it does, something keeps the
            # missing one's place.
            parts = list(args)
            parts.insert(whole.get_attributes().index(VIDEO), _Missing())
            cls._whole = True
            try:
                made = super().from_args_and_dict(parts, processor_dict, **options)
            finally:
                cls._whole = False
            setattr(made, VIDEO, None)
            return made

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return None if name == VIDEO else super().check_argument_for_proper_class(name, argument)

        def save_pretrained(self, *args: Any, **options: Any) -> Any:
            # What a class saves beyond its parts belongs to the missing one (a font for times).
            return ProcessorMixin.save_pretrained(self, *args, **options)

    ImagesOnly.__name__ = ImagesOnly.__qualname__ = whole.__name__
    return ImagesOnly
